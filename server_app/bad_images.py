"""What the log says of images that clients leave out because they cannot be read."""

from collections.abc import Sequence

from server_app.members import Member

NAMED = 12  # clients


def left_out(members: Sequence[Member]) -> list[str]:
    """Lines for the log: how many images in all, and for each client how many, and the first; empty without any."""
    theirs = [member for member in members if member.bad_images]
    if not theirs:
        return []
    total = sum(member.bad_images for member in theirs)
    lines = [f"'bad-images' is 'skip': {total:,} images of {len(theirs)} of {len(members)} clients are left out."]
    for member in theirs[:NAMED]:
        lines.append(f"client {member.partition_id} leaves out {member.bad_images:,}; the first: {member.first_bad}")
    if len(theirs) > NAMED:
        lines.append(f"... and {len(theirs) - NAMED} more clients")
    return lines
