"""What a simulation's log says at the start if its cache cannot hold all decoded images."""

from collections import defaultdict
from collections.abc import Sequence

from config.run_config import RunConfig
from data.images.loading import DECODE_SECONDS
from data.release import Release
from data.stores.pack import PackStore
from learning.augmentation import stored_size
from server_app.members import Member
from simulation.capacity import GIB


def cache_lines(config: RunConfig, release: Release, members: Sequence[Member], sampled: int) -> list[str]:
    """Which share of the images is kept, and what decoding the others costs; nothing if all are kept.

    Args:
        config: The run's.
        release: The one that is divided among the clients.
        members: All of them, in the order in which their lists are first asked for.
        sampled: How many train in each round.
    """
    if isinstance(release.store, PackStore) and release.store.decoded_size:
        return []
    pixel, stored = 3 * config.image_size**2, 3 * stored_size(config.augmentation, config.image_size) ** 2
    lists = defaultdict(list)  # by machine, images and bytes
    for member in members:
        lists[member.machine].append((member.num_examples, member.num_examples * stored))
        lists[member.machine].append((member.held_out, member.held_out * pixel))
        if config.eval_split == "clean_val":  # otherwise it evaluates on what it holds out
            lists[member.machine].append((member.eval_examples, member.eval_examples * pixel))
    if len(lists) == 1:  # of several, nobody knows which one is the server's, whose lists take space as well
        server = [(0, len(release.split(name).keys) * pixel) for name in config.server_lists.values()]
        next(iter(lists.values()))[:0] = server
    missing = sum(_not_kept(sizes, int(config.cache_gib * GIB)) for sizes in lists.values())
    if not missing:
        return []
    images = sum(images for sizes in lists.values() for images, _ in sizes)
    total = sum(size for sizes in lists.values() for _, size in sizes)
    seconds = DECODE_SECONDS * missing * sampled / len(members)
    kept, take = f"{1 - missing / images:.0%} of the images", f"{total / GIB:.3g} GiB"
    return [
        f"Cache       keeps {kept}, of {take}; 'cache-gib' is {config.cache_gib:g}",
        f"            others are decoded in each visit: {seconds:,.0f} s a round on a core",
    ]


def _not_kept(lists: Sequence[tuple[int, int]], most: int) -> int:
    """How many images do not fit, if each list is kept that fits beside those before it, as the cache does."""
    missing = 0
    for images, size in lists:
        if size <= most:
            most -= size
        else:
            missing += images
    return missing
