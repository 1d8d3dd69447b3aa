"""Names that the config knows are those that are implemented, in the same order."""

from collections.abc import Iterable

import pytest

from config import choices
from config.normalization import MEASURED
from config.run_config import PRESETS
from config.stems import AUTO, IMAGENET, SMALL
from data.noise.synthetic import NOISES
from data.normalization import NORMALIZATIONS
from data.partition.file import SCHEMES
from data.release import TRAIN_SPLITS
from learning.augmentation import AUGMENTATIONS
from learning.network import BATCHNORMS
from learning.optimizer import OPTIMIZERS
from learning.schedule import SCHEDULES
from learning.sound_images import LEAVES_OUT
from learning.trainable import TRAINABLES
from messages.payload import PAYLOADS
from methods import METHODS
from server_app.callbacks.tracking import TRACKERS
from server_app.privacy.clipping_norms import PRIVACY
from server_app.strategies import STRATEGIES
from task import PRECISIONS

IMPLEMENTED: dict[str, Iterable[str]] = {
    "AUGMENTATIONS": AUGMENTATIONS,
    "BATCHNORMS": BATCHNORMS,
    "BAD_IMAGES": LEAVES_OUT,
    "LABEL_NOISES": NOISES,
    "LR_SCHEDULES": SCHEDULES,
    "METHODS": METHODS,
    "NORMALIZATIONS": [*NORMALIZATIONS, MEASURED],
    "OPTIMIZERS": OPTIMIZERS,
    "PARTITIONS": SCHEMES,
    "PAYLOADS": PAYLOADS,
    "PRECISIONS": PRECISIONS,
    "PRIVACY": PRIVACY,
    "STEMS": [AUTO, IMAGENET, SMALL],
    "STRATEGIES": STRATEGIES,
    "TRACKERS": TRACKERS,
    "TRAINABLES": TRAINABLES,
    "TRAIN_SPLITS": TRAIN_SPLITS,
}
LISTED = {name: value for name, value in vars(choices).items() if name.isupper()}


@pytest.mark.parametrize("name", IMPLEMENTED)
def test_what_is_implemented_can_be_chosen_and_nothing_else(name: str) -> None:
    listed: Iterable[str] = LISTED[name]
    assert list(listed) == list(IMPLEMENTED[name])


def test_no_list_is_left_out() -> None:
    assert (
        LISTED.keys() - {"PRESETS", "TEST_SPLITS", "VAL_SPLITS", "VAL_LISTS", "EVAL_SPLITS", "INSPECTIONS"}
        == IMPLEMENTED.keys()
    )


def test_presets_are_the_files() -> None:
    assert set(choices.PRESETS) == {path.stem for path in PRESETS.glob("*.toml")}
