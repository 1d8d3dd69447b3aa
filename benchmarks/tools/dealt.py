"""A drawn release, and its images as a run of this app deals them, for contenders that read them in another form."""

from pathlib import Path

from data.partition.schemes import partition
from data.release import Release, Split, open_release, training_split
from data.sample import draw_sample


def draw_dealt(
    folder: Path, clients: int, images: int, image_size: int, test_images: int, seed: int
) -> tuple[Release, dict[str, Split]]:
    """Draw the release, with files a third larger than `image_size`.

    Returns:
        The release, and what ``client-0``, ``client-1``, ... and ``test`` hold of it.
    """
    draw_sample(
        folder, train=clients * images, clean_train=1, val=1, test=test_images, image_size=image_size * 4 // 3,
        seed=seed,
    )  # fmt: skip
    release = open_release(folder)
    train = training_split(release, "noisy")
    dealt = partition("iid", train.labels, clients, seed)
    splits = {f"client-{client}": train.take(rows) for client, rows in enumerate(dealt)}
    return release, {**splits, "test": release.split("clean_test")}
