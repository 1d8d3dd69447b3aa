"""The images behind a ranking: where they are, their pixels, and their true classes where those are known."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from data.contact_sheet import fitted
from data.errors import DamageError, DataError
from data.images.decode import decode
from data.layout.finding import WRONG
from data.layout.key_files import find, show
from data.release import Release, open_release
from data.stores.pack import PackStore
from runs.labels.doubted import Doubted


class Photos:
    """Releases of the clients.

    Attributes:
        missing: By client, why its images cannot be shown, a sentence each.
    """

    def __init__(self, roots: Mapping[int, Path], instead: Path | None = None) -> None:
        """Open them.

        Args:
            roots: By client, where its images were.
            instead: Where all of them are now.

        Raises:
            DataError: `instead` cannot be opened.
        """
        self.missing: dict[int, str] = {}
        self._releases: dict[int, Release] = {}
        opened: dict[Path, Release] = {} if instead is None else {instead: open_release(instead)}
        for client, root in roots.items():
            place = instead or root
            try:
                self._releases[client] = opened[place] = opened.get(place) or open_release(place)
            except (DataError, OSError) as error:
                self.missing[client] = str(error)

    def place(self, client: int, key: bytes) -> str:
        """The image's file, or the pack that it is in; empty if the client's release is gone."""
        return str(Path(self._releases[client].store.place(key)).absolute()) if client in self._releases else ""

    def name(self, client: int, key: bytes) -> str:
        """What the owner of an image calls its file: a key spells some characters of a photo's name as a URL does."""
        store = self._releases[client].store if client in self._releases else None
        if store is None or isinstance(store, PackStore):  # whether it is a photo's is not known
            return unquote(show(key)).rpartition("/")[2]
        return Path(store.place(key)).name

    def pixels(self, client: int, key: bytes, side: int) -> np.ndarray | None:
        """(h, w, 3) uint8, small enough for a square of `side`; None if it cannot be read."""
        if client not in self._releases:
            return None
        store = self._releases[client].store
        try:
            if isinstance(store, PackStore) and store.decoded_size:
                return fitted(store.pixels(key), side)
            return fitted(decode(store.encoded(key)), side)
        except (DataError, DamageError):
            return None

    def true(self, doubted: Doubted) -> np.ndarray:
        """(n,) int32, the class that each image shows, -1 where nobody knows.

        `WRONG` where no more is known than that the release's label is wrong, if the run's synthetic noise left it.
        """
        true = np.full(len(doubted), -1, np.int32)
        for client, release in self._releases.items():
            rows = np.flatnonzero(doubted.clients == client)
            with contextlib.suppress(DataError):  # lists that cannot be read
                index = release.index
                order = np.argsort(index.keys, kind="stable")
                places, found = find(doubted.keys[rows], index.keys[order])
                rows, places = rows[found], order[places[found]]
                changed = (index.true[places] == WRONG) & (index.noisy[places] != doubted.given[rows])
                true[rows] = np.where(changed, -1, index.true[places])
        return true
