"""What accuracies of a run are measured on: clean test or, without a test set, what there is instead.

Everything that shows an accuracy asks here for it, and says the measure's name unless that is clean test.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from config.choices import VAL_LISTS


@dataclass(frozen=True)
class Measure:
    """Images on which the global model is evaluated, and where metrics.jsonl has what came of it.

    Attributes:
        name: Of the images, for sentences: "accuracy on ...". Runs may be compared if it is the same.
        short: The same for narrow columns.
        accuracy: Key of a line of metrics.jsonl; empty if nothing is measured.
        loss: Key of the mean cross-entropy on the same images.
        list: The clean list that they are of; empty if they are the clients' own.
        decides: Keys of the run config that say which clients' images these are.
        lag: How many rounds older than its line the model is that was measured.
    """

    name: str
    short: str
    accuracy: str = ""
    loss: str = ""
    list: str = ""
    decides: tuple[str, ...] = ()
    lag: int = 0

    def __bool__(self) -> bool:
        """Whether anything is measured."""
        return bool(self.accuracy)

    def by_round(self, lines: Iterable[Mapping[str, Any]]) -> dict[int, float]:
        """By round the accuracy of its model, 0 to 1, where these lines of metrics.jsonl have one."""
        found = {}
        for line in lines:
            share: Any = line.get(self.accuracy)
            if type(share) in (int, float) and 0 <= share <= 1:
                found[int(line["round"]) - self.lag] = float(share)
        return found

    @property
    def words(self) -> str:
        """For a title."""
        return f"accuracy on {self.name}" if self else "no accuracy measured"


_HELD_OUT = "clients' held-out images (their own labels)"
_OF_THOSE = ("fraction-evaluate",)

CLEAN_TEST = Measure("clean test", "clean test", "test-accuracy", "test-loss", "clean_test")
CLEAN_VAL = Measure("clean validation", "clean val", "val-accuracy", "val-loss", "clean_val")
CLEAN_TRAIN = Measure("clean train", "clean train", "val-accuracy", "val-loss", "clean_train")
NOISY_VAL = Measure(_HELD_OUT, "held-out images", "val-accuracy", "val-loss", decides=_OF_THOSE)
HELD_OUT = Measure(_HELD_OUT, "held-out images", "eval-accuracy", "eval-loss", decides=_OF_THOSE)
CLEAN_SLICES = Measure(
    "clients' slices of clean validation", "clean slices", "eval-accuracy", "eval-loss", "clean_val", _OF_THOSE
)
VISITS = Measure(  # without federated evaluation: of the clients that train next, on what they got
    "held-out images (their own labels) of the next round's clients", "held out, next round",
    "own-accuracy-before", "own-loss-before", decides=("fraction-train",), lag=1,
)  # fmt: skip
NOTHING = Measure("nothing", "nothing")


def measure_of(config: Mapping[str, Any]) -> Measure:
    """What a run with this config is measured on.

    Args:
        config: Resolved, under kebab-case keys. What is not there is at the defaults of versions that had no such key.
    """
    if config.get("test-split", "clean_test") != "none":
        return CLEAN_TEST
    on_validation = validation_of(config)
    if on_validation:
        return on_validation
    on_clients = on_clients_of(config)
    if on_clients:
        return on_clients
    return VISITS if config.get("holdout-fraction") else NOTHING


def validation_of(config: Mapping[str, Any]) -> Measure:
    """What `val-accuracy` of such a run is measured on; `NOTHING` if it has none."""
    split = config.get("val-split", VAL_LISTS[0])
    return {"clean_val": CLEAN_VAL, "clean_train": CLEAN_TRAIN, "noisy": NOISY_VAL}.get(str(split), NOTHING)


def on_clients_of(config: Mapping[str, Any]) -> Measure:
    """What `eval-accuracy` of such a run is measured on; `NOTHING` if no client evaluates."""
    if not config.get("fraction-evaluate"):
        return NOTHING
    return HELD_OUT if config.get("eval-split") == "own" else CLEAN_SLICES
