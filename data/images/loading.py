"""Loads the pixels of keys: every image as RGB at one size, in one array."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from operator import itemgetter

import numpy as np

from data.errors import BadImageError, DamageError, DataError
from data.images.arriving import Arriving, Queue, StoppedError, bare
from data.images.decode import decode, resize
from data.layout.key_files import show
from data.release import Release
from data.stores.folder import Store
from data.stores.pack import PackStore

BLOCK = 64  # images that a thread takes at a time
READERS = 8  # threads that wait for the disk
DECODE_SECONDS = 0.8e-3  # of one core for a photo of 256 pixels: benchmarks/RESULTS.md, "Images and lists"


def load_images(
    release: Release,
    keys: np.ndarray,
    size: int,
    threads: int = 1,
    out: np.ndarray | None = None,
    waiting: Arriving | None = None,
) -> np.ndarray:
    """Decode, convert to RGB and resize as torchvision's ``Resize((size, size))`` does, within one level in 255.

    Both sides become `size`, whatever the aspect ratio; orientation tags are not applied, as in the published loaders.

    Args:
        release: Where the images are.
        keys: (n,) bytes.
        size: Side in pixels.
        threads: How many decode at a time; the result does not depend on it.
        out: (n, size, size, 3) uint8 to write to instead of a new array.
        waiting: Says which images are needed first, and hears of those that are there.

    Returns:
        (n, size, size, 3) uint8, RGB, in the order of `keys`.

    Raises:
        BadImageError: A missing, empty, damaged or truncated image, the first one in the order of `keys`; with
            `waiting`, one of those that are found first.
        StoppedError: `waiting` needs no more.
        DataError: A pack of decoded pixels of another size.
    """
    images = np.empty((len(keys), size, size, 3), np.uint8) if out is None else out
    store = release.store
    decoded = pack_of_pixels(release, size) is not None
    decoding = threading.BoundedSemaphore(max(1, threads))
    queue = waiting.begin(images) if waiting else Queue(len(keys))
    failures: list[tuple[int, DataError]] = []

    def load(rows: np.ndarray) -> None:
        if isinstance(store, PackStore) and decoded:
            for row in rows:
                images[row] = store.pixels(keys[row])
        else:
            read = [_read(store, keys[row]) for row in rows]
            with decoding:
                for row, data in zip(rows, read, strict=True):
                    images[row] = _pixels(store, keys[row], data, size)
        if waiting:
            waiting.done(rows)

    def work() -> None:
        while len(rows := np.sort(queue.take(BLOCK))):
            # Once an image is bad, only one before it matters, and that only to those who wait for all.
            rows = rows[rows < min((row for row, _ in failures), default=len(keys))]
            try:
                load(rows)
            except DataError:
                failures.extend(_first_failure(load, rows))
                if failures and waiting:
                    queue.close()
            except BaseException:
                queue.close()
                raise

    # Files are read while others are decoded, several at a time: a cold disk serves one request in a millisecond, and
    # many in the same time. Both libraries release the interpreter lock while they decode and resize.
    count = min(max(READERS, threads), -(-len(keys) // BLOCK))
    with ThreadPoolExecutor(max(1, count)) as pool:
        for worker in [pool.submit(work) for _ in range(count)]:
            worker.result()
    if failures:
        raise min(failures, key=itemgetter(0))[1]
    if waiting and not waiting.has_all():
        raise StoppedError
    return images


def _first_failure(load: Callable[[np.ndarray], None], rows: np.ndarray) -> Iterator[tuple[int, DataError]]:
    """The first of `rows` that cannot be loaded, and why."""
    for row in rows:
        try:
            load(np.array([row]))
        except DataError as error:
            yield int(row), bare(error)
            return


def pack_of_pixels(release: Release, size: int) -> PackStore | None:
    """The store of a release whose images have been decoded; None if its images are files.

    Raises:
        DataError: It holds pixels of another size than is needed.
    """
    store = release.store
    if not isinstance(store, PackStore) or not store.decoded_size:
        return None
    if store.decoded_size != size:
        raise DataError(
            f"{release.root} holds pixels of {store.decoded_size} x {store.decoded_size}; images of {size} are needed"
            f" (crops take 8/7 of 'image-size'), so pack at {size}, or without --decoded."
        )
    return store


def _read(store: Store, key: bytes) -> bytes | DataError:
    """An image file's bytes, or why it cannot be read: an earlier image may be damaged."""
    try:
        return store.encoded(key)
    except DataError as error:
        return error


def _pixels(store: Store, key: bytes, data: bytes | DataError, size: int) -> np.ndarray:
    if isinstance(data, DataError):
        raise data
    return resize(_decoded(store, key, data), size, size)


def _decoded(store: Store, key: bytes, data: bytes) -> np.ndarray:
    try:
        return decode(data)
    except DamageError as error:
        raise BadImageError(
            f"image {show(key)} cannot be read from {store.place(key)} ({error}); it must be a whole image file."
        ) from None


def load_image(store: Store, key: bytes, size: int) -> np.ndarray:
    """One image as (size, size, 3) uint8.

    Raises:
        BadImageError: It is missing or damaged.
    """
    return _pixels(store, key, store.encoded(key), size)


def unreadable_images(release: Release, keys: np.ndarray, threads: int = 1) -> dict[int, str]:
    """Decode all image files and keep none of them.

    Returns:
        For each row of `keys` whose image is missing or damaged, the sentence that `load_images` would refuse it with.

    Raises:
        DataError: The machine cannot read any.
    """
    store = release.store

    def problem(row: int) -> str:
        try:
            _decoded(store, keys[row], store.encoded(keys[row]))
        except BadImageError as error:
            return str(error)
        return ""

    found = {}
    with ThreadPoolExecutor(max(1, threads)) as pool:
        for start in range(0, len(keys), BLOCK * READERS):
            rows = range(start, min(start + BLOCK * READERS, len(keys)))
            found.update({row: said for row, said in zip(rows, pool.map(problem, rows), strict=True) if said})
    return found
