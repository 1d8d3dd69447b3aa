"""One photo of somebody's own, as training sees it in a folder of photos per class."""

from pathlib import Path

import numpy as np

from data.errors import BadImageError, DamageError
from data.images.decode import decode, upright


def read_photo(path: Path) -> np.ndarray:
    """A photo's pixels, (height, width, 3) uint8, turned upright by its orientation tag.

    Raises:
        BadImageError: It is no file, or cannot be read or decoded.
    """
    try:
        if not path.is_file():  # a pipe would be waited for
            raise BadImageError(f"{path} {'is not a file' if path.exists() else 'does not exist'}.")
        return decode(upright(path.read_bytes()))
    except DamageError as error:
        raise BadImageError(f"{path} cannot be read as an image ({error}).") from None
    except OSError as error:
        raise BadImageError(f"{path} cannot be read: {error.strerror}.") from None
