"""Images with their classes, on which a model is evaluated: a list of the run's own release, or of other data."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from config.run_config import RunConfig
from data.errors import BadImageError, DataError
from data.images.decode import decode
from data.images.decoded_cache import GIB, DecodedCache
from data.images.formats import read_suffixes
from data.images.pixels import Pixels
from data.release import Release, Split, open_release
from data.sample import default_sample
from data.stores.class_folder import ClassFolderStore
from data.stores.pack import PackStore
from data.text import shown
from data.user_cache import below_home
from learning.evaluation import evaluation_batch
from learning.sound_images import sound_images
from runs.errors import RunsError
from runs.model.class_names import about_unknown, matched
from runs.model.opened import OpenedModel

MOST_AT_ONCE = 2 * GIB  # bytes of decoded images in memory
PHOTOS = "noisy_train"  # the only list of a folder per class
MAY_BE = "a release, a pack of one, or a folder with one folder of photos per class"


@dataclass(frozen=True)
class Block:
    """Some images.

    Attributes:
        pixels: Of n images.
        truth: (n,) int64 classes of the model.
        names: Key of each.
    """

    pixels: Pixels
    truth: np.ndarray
    names: Sequence[str]


@dataclass(frozen=True)
class Labelled:
    """A list of images with classes.

    Attributes:
        release: Where they are.
        listed: All of the list.
        known: Those of classes that the model knows.
        classes: The model's number of each class of the release; -1 for one that it does not know.
        side: Of the model's input.
        batch: How many images are evaluated at once.
        config: Says where decoded images are kept, and what becomes of those that cannot be read.
        notes: Sentences about what is left out; complete when all images have been read.
    """

    release: Release
    listed: Split
    known: Split
    classes: np.ndarray
    side: int
    batch: int
    config: RunConfig
    notes: list[str]

    @classmethod
    def of_run(cls, opened: OpenedModel, split: str = "") -> "Labelled":
        """A list of the run's own data; by default the one on which its server tests.

        Raises:
            RunsError: The run's settings are not known, or it has no test set.
            DataError: Its data are no longer there, or there is no such list.
        """
        if (config := opened.config) is None:
            raise RunsError(
                f"{opened.path} is not in the folder of a run whose config.toml can be read; say with --data on what"
                " to evaluate it."
            )
        if (split := split or config.test_split) == "none":
            raise RunsError("the run has no test set ('test-split' is none); say with --data or --split on what.")
        try:
            release = open_release(below_home(config.data_dir) if config.data_dir else default_sample())
        except DataError as error:
            known = str(error).removesuffix(".")
            raise RunsError(f"{known}; say with --data where the run's images are now, or on which others.") from None
        return cls._of(release, split, opened, config)

    @classmethod
    def of_data(cls, opened: OpenedModel, named: str, split: str = "") -> "Labelled":
        """A list of another release or pack, or all photos of a folder with one folder per class.

        Images that cannot be read are left out.

        Raises:
            RunsError: It is nothing of that, no class is one of the model's, or `split` is given for a folder per
                class.
            DataError: There is no such list.
        """
        release = _opened(named)
        if isinstance(release.store, ClassFolderStore):
            if split not in ("", PHOTOS):
                raise RunsError(f"--split is {split}, but {release.root} holds photos without lists.")
            split = PHOTOS
        return cls._of(release, split or "clean_test", opened, replace(opened.config or RunConfig(), bad_images="skip"))

    @classmethod
    def _of(cls, release: Release, split: str, opened: OpenedModel, config: RunConfig) -> "Labelled":
        listed = known = release.split(split)
        classes = matched(release.class_names, opened.facts.class_names, str(release.root))
        notes = []
        if not (knows := classes[listed.labels] >= 0).all():
            unknown = [release.class_names[number] for number in np.unique(listed.labels[~knows])]
            notes.append(about_unknown(unknown, int((~knows).sum())))
            known = listed.take(np.flatnonzero(knows))
        if not len(known.keys):
            raise RunsError(f"{split} of {release.root} holds no image of a class that the model knows.")
        side = opened.facts.image_size
        batch = evaluation_batch(side, opened.compute.device)
        return cls(release, listed, known, classes, side, batch, config, notes)

    @property
    def split(self) -> str:
        """Which list they are; empty for a folder per class."""
        return "" if isinstance(self.release.store, ClassFolderStore) else self.listed.name

    @property
    def where(self) -> str:
        """In words."""
        return f"{self.split} of {self.release.root}" if self.split else str(self.release.root)

    def __len__(self) -> int:
        """How many they are, those that cannot be read among them."""
        return len(self.known.keys)

    def blocks(self) -> Iterator[Block]:
        """The images of known classes, in their order: all at once, or as many as fit into memory.

        Batches of a block are those of the whole list, so that results do not depend on where blocks end.

        Raises:
            DataError: One cannot be read, and is not to be left out.
        """
        step = self.batch * max(1, MOST_AT_ONCE // (3 * self.side**2 * self.batch))
        most = int(self.config.cache_gib * GIB) if len(self) <= step else 0
        cache, threads = DecodedCache(DecodedCache.place(self.config.cache_dir), most), torch.get_num_threads()
        for start in range(0, len(self), step):
            part = self.known.take(np.arange(start, min(start + step, len(self))))
            sound, bad = sound_images(self.release, part, self.side, cache, self.config, threads)
            self.notes.extend(bad)
            pixels = self._pixels(cache, sound, threads)
            yield Block(pixels, self.classes[sound.labels], [os.fsdecode(bytes(key)) for key in sound.keys])

    def _pixels(self, cache: DecodedCache, part: Split, threads: int) -> Pixels:
        try:
            return cache.pixels(self.release, part.keys, self.side, threads)
        except BadImageError as error:
            if self.config.bad_images == "skip":  # it was sound a moment ago
                raise DataError(str(error)) from None
            without = f"`--data {self.release.root}` evaluates without such images"
            raise DataError(f"{str(error).removesuffix('.')}; {without}.") from None

    def pixels_of(self, name: str) -> np.ndarray:
        """An image by its key, (height, width, 3) uint8, as large as it is on disk, for a person to look at.

        Raises:
            DataError: It cannot be read.
            DamageError: It cannot be decoded.
        """
        store, key = self.release.store, os.fsencode(name)
        if isinstance(store, PackStore) and store.decoded_size:
            return store.pixels(key)
        return decode(store.encoded(key))


def _opened(named: str) -> Release:
    """What --data names.

    Raises:
        RunsError: It is nothing that has images with classes.
    """
    path = below_home(named)
    try:
        return open_release(path)
    except (DataError, OSError) as error:
        given = f"--data is {shown(named)}"
        if not path.exists():
            raise RunsError(f"{given}, which does not exist; it must be {MAY_BE}.") from None
        if path.is_file() and path.suffix.lower() in read_suffixes():
            raise RunsError(f"{given}, which is a single photo; it must be {MAY_BE}.") from None
        raise RunsError(f"{given}; it must be {MAY_BE} ({str(error).removesuffix('.')}).") from None
