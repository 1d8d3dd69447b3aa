"""What happens to images that cannot be read: the run config's `bad-images`, for clients and server alike."""

import contextlib
from collections.abc import Iterator

import numpy as np

from config.run_config import RunConfig
from data.errors import BadImageError, DataError
from data.images.decoded_cache import DecodedCache
from data.release import Release, Split

LEAVES_OUT = {"refuse": False, "skip": True}


def sound_images(
    release: Release,
    split: Split,
    size: int,
    cache: DecodedCache,
    config: RunConfig,
    threads: int,
    one_must_remain: bool = True,
) -> tuple[Split, list[str]]:
    """Leave out images that cannot be read, if the config says so.

    Args:
        release: Where the images are.
        split: The list.
        size: Side in pixels at which they will be needed.
        cache: Keeps them, and notes which are bad.
        config: The run's.
        threads: How many decode at a time.
        one_must_remain: Whether a list of which nothing can be read is refused.

    Returns:
        The images that remain, in their order, and a sentence about each of the others. With `refuse`, all of them:
        whoever loads them finds out.

    Raises:
        DataError: None remains, and one must.
    """
    if not LEAVES_OUT[config.bad_images]:
        return split, []
    bad = cache.bad_images(release, split.keys, size, threads)
    if not bad:
        return split, []
    if len(bad) == len(split.keys) and one_must_remain:
        raise DataError(f"none of {len(bad)} images of {split.name} can be read; the first: {min(bad.items())[1]}")
    return split.take(np.delete(np.arange(len(split.keys)), list(bad))), [said for _, said in sorted(bad.items())]


@contextlib.contextmanager
def advising(config: RunConfig) -> Iterator[None]:
    """Around whatever loads images.

    Raises:
        BadImageError: One cannot be read, and `bad-images` is `refuse`; the sentence says how to go on.
        DataError: One has become unreadable after the others of its kind were left out.
    """
    try:
        yield
    except BadImageError as error:
        if LEAVES_OUT[config.bad_images]:
            raise DataError(str(error)) from None
        sentence = str(error).removesuffix(".")
        raise BadImageError(f"{sentence}; with 'bad-images' as 'skip', a new run leaves it out.") from None
