"""Decoded images on disk, and features of them, shared by all processes of a machine and by later runs.

One file holds the pixels of one list of images at one size and is mapped into memory: the operating system keeps in RAM
what is used, gives it back when memory is short, and all Ray actors share one copy. In deployment, where each message
starts a new process, the next one finds them there. `data.images.shared_files` says what stays and what makes way.
"""

import contextlib
import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from data.errors import BadImageError
from data.images.arriving import Arriving
from data.images.checked import Checked
from data.images.decode import DECODER
from data.images.loading import load_images, pack_of_pixels, unreadable_images
from data.images.pixels import Pixels, StoredPixels
from data.images.shared_files import BOOT, FEATURES, NOTE, PIXELS, SharedFiles
from data.release import Release
from data.stores.pack import PackStore
from data.user_cache import below_home, cache_folder
from data.whole_files import replace_file

GIB = 1 << 30
SEAL = 16  # bytes of the checksum at the end of a file of features


class DecodedCache:
    """A folder of decoded images that never holds more than `max_bytes`."""

    def __init__(
        self, folder: Path, max_bytes: int, warn: Callable[[str], None] = lambda sentence: None, run: str = ""
    ) -> None:
        """Creates nothing until the first image is cached, or noted as bad.

        Args:
            folder: Shared by all processes of the machine.
            max_bytes: 0: nothing is cached.
            warn: Called once, with a sentence, if the folder cannot be written: images are then decoded each time.
            run: The same for all processes of a run; empty: this process is one.
        """
        self.folder = folder
        self.max_bytes = max_bytes
        self._files = SharedFiles(folder, max_bytes, run)
        self._warn: Callable[[str], None] | None = warn
        self._names: dict[tuple[str, bytes, int], str] = {}
        self._checked: dict[str, Checked] = {}

    @staticmethod
    def place(folder: str) -> Path:
        """`folder`, or the one in the user's cache when it is empty."""
        return below_home(folder) if folder else cache_folder("decoded")

    def pixels(self, release: Release, keys: np.ndarray, size: int, threads: int = 1) -> Pixels:
        """Images as `data.images.loading.load_images` makes them, each list decoded at most once while it is kept.

        The images of a pack of pixels stay where they are: in its file, which is mapped. Their checksums are verified
        once on this machine until it starts again, or the file changes.

        Image files must not change while this process runs: their sizes and times are only checked when it first asks
        for a list.

        Raises:
            DataError: What `load_images` refuses.
        """
        pack = pack_of_pixels(release, size)
        if pack is None:
            return StoredPixels(self._decoded(release, keys, size, threads))
        rows = pack.rows(keys)
        for row in self._damaged(pack, rows, threads):
            raise pack.damage(row)
        return StoredPixels(pack.all_pixels, rows)

    def arriving(self, release: Release, keys: np.ndarray, size: int, threads: int = 1) -> Pixels:
        """Like `pixels`, but at once: images that are not kept are decoded meanwhile, and refused when used."""
        shape = (len(keys), size, size, 3)
        if pack_of_pixels(release, size) is not None:
            return self.pixels(release, keys, size, threads)
        if self._may_keep(shape):
            with contextlib.suppress(OSError):  # which whoever decodes them will report
                if (kept := self._files.mapped(self._name(release, keys, size), shape)) is not None:
                    return StoredPixels(kept)
        return Arriving(shape, lambda waiting: self._decoded(release, keys, size, threads, waiting))

    def images(self, release: Release, keys: np.ndarray, size: int, threads: int = 1) -> np.ndarray:
        """The same as (n, size, size, 3) uint8: a private mapping of a file, or an array if there is none to map."""
        return self.pixels(release, keys, size, threads).whole()

    def bad_images(self, release: Release, keys: np.ndarray, size: int, threads: int = 1) -> dict[int, str]:
        """Decode or check everything once, and note in the folder which images cannot be read.

        Returns:
            Rows of `keys`, and for each the sentence that `pixels` would refuse it with.

        Raises:
            DataError: What `pixels` refuses for another reason.
        """
        if (pack := pack_of_pixels(release, size)) is not None:
            rows = pack.rows(keys)
            damaged = np.isin(rows, self._damaged(pack, rows, threads))
            return {int(place): str(pack.damage(rows[place])) for place in np.flatnonzero(damaged)}
        note = (self.folder / self._name(release, keys, size)).with_suffix(NOTE)
        bad = _noted(note, len(keys))
        if bad is None:
            try:
                self._decoded(release, keys, size, threads)
                bad = {}
            except BadImageError:
                bad = unreadable_images(release, keys, threads)
            with contextlib.suppress(OSError):  # then the next visit decodes again
                self.folder.mkdir(parents=True, exist_ok=True)
                replace_file(note, json.dumps(bad).encode())
        return bad

    def features(
        self, release: Release, keys: np.ndarray, size: int, about: str, width: int, compute: Callable[[], np.ndarray]
    ) -> np.ndarray:
        """Numbers that follow from images, computed at most once while they are kept.

        Args:
            release: Where the images are.
            keys: (n,) bytes.
            size: Side in pixels at which they are decoded.
            about: All else that decides the numbers.
            width: d.
            compute: Returns the array; it may ask this cache for the images.

        Returns:
            (n, d) float32.
        """
        kept = self.kept_features(release, keys, size, about, width)
        if kept is not None:
            return kept
        values = np.ascontiguousarray(compute(), dtype=np.float32)
        sealed = np.concatenate([values.view(np.uint8).reshape(-1), _seal(values)])
        if self._may_keep(sealed.shape):
            try:
                name = self._name_of_features(release, keys, size, about)
                self._files.filled(name, sealed.shape, lambda file: np.copyto(file, sealed))
            except OSError as error:
                self._cannot_be_written(error, "features are computed anew in each visit")
        return values

    def kept_features(self, release: Release, keys: np.ndarray, size: int, about: str, width: int) -> np.ndarray | None:
        """What `features` would not have to compute; None if it would. A damaged file is deleted."""
        count = 4 * len(keys) * width
        if not self._may_keep((count + SEAL,)):
            return None
        name = self._name_of_features(release, keys, size, about)
        with contextlib.suppress(OSError):  # which whoever writes the file will report
            kept = self._files.mapped(name, (count + SEAL,))
            if kept is not None:
                values = kept[:count].view(np.float32).reshape(len(keys), width)
                if np.array_equal(kept[count:], _seal(values)):
                    return values
                del kept, values  # a file that is mapped stays
                self._files.discard(name)
        return None

    def _decoded(
        self, release: Release, keys: np.ndarray, size: int, threads: int, waiting: Arriving | None = None
    ) -> np.ndarray:
        shape = (len(keys), size, size, 3)

        def load(pixels: np.ndarray | None = None) -> np.ndarray:
            return load_images(release, keys, size, threads, pixels, waiting)

        if self._may_keep(shape):
            try:
                name = self._name(release, keys, size)
                kept = self._files.mapped(name, shape)
                if kept is None:
                    kept = self._files.filled(name, shape, load)
                if kept is not None:
                    return kept
            except OSError as error:  # no permission, a full disk, too many open files
                self._cannot_be_written(error, "images are decoded anew in each visit")
        return load()

    def _may_keep(self, shape: tuple[int, ...]) -> bool:
        return 0 < math.prod(shape) <= self.max_bytes

    def _damaged(self, pack: PackStore, rows: np.ndarray, threads: int) -> np.ndarray:
        """Which of these rows are, in the order given."""
        if pack.state not in self._checked:
            self._checked[pack.state] = Checked(self.folder, pack)
        checked = self._checked[pack.state]
        try:
            return checked.damaged(rows, threads)
        except OSError as error:
            self._cannot_be_written(error, "images are checked anew by each process")
            return checked.damaged(rows, threads)

    def _cannot_be_written(self, error: OSError, effect: str) -> None:
        if self._warn:
            self._warn(f"{self.folder} cannot be written ({error.strerror or error}); {effect}.")
        self._warn = None

    def _name(self, release: Release, keys: np.ndarray, size: int) -> str:
        """A name that changes with the images, their order, their files, the size and the decoder."""
        listed = hashlib.sha256(np.ascontiguousarray(keys).tobytes()).digest()
        known = (str(release.root), listed, size)
        if known not in self._names:
            about = f"{DECODER} {size} {keys.dtype} {BOOT}".encode()
            seen = hashlib.sha256(about + listed + release.store.mark(keys))
            self._names[known] = f"{seen.hexdigest()[:32]}{PIXELS}"
        return self._names[known]

    def _name_of_features(self, release: Release, keys: np.ndarray, size: int, about: str) -> str:
        seen = hashlib.sha256(f"{self._name(release, keys, size)} {about}".encode())
        return f"{seen.hexdigest()[:32]}{FEATURES}"


def _seal(values: np.ndarray) -> np.ndarray:
    """A checksum, as (SEAL,) uint8."""
    digest = hashlib.blake2b(values.data, digest_size=SEAL).digest()
    return np.frombuffer(digest, np.uint8)


def _noted(path: Path, count: int) -> dict[int, str] | None:
    """What a note says of so many images; None if there is none, or a crash left it damaged."""
    try:
        bad = {int(row): str(said) for row, said in json.loads(path.read_bytes()).items()}
    except (OSError, ValueError, AttributeError):
        return None
    return bad if all(0 <= row < count for row in bad) else None
