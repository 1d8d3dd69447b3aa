"""Which settings may differ when a run resumes, and why others may not."""

from collections.abc import Mapping
from typing import Any

from config.normalization import KEY as ARGS
from config.normalization import MEASURED, lead_to
from config.run_config import ConfigError, RunConfig
from learning.schedule import depends_on_rounds
from server_app.checkpoint_file import Checkpoint

ROUNDS = "num-server-rounds"
# Keys that may differ from the run that `auto` finds: where its own files are, and how long it trains.
NOT_SEARCHED = frozenset({
    "num-server-rounds", "patience", "target-accuracy", "max-hours", "num-clients", "resume", "run-name", "output-dir",
    "cache-dir", "cache-gib", "state-dir", "tracking", "preset",
})  # fmt: skip
# Keys that may differ from the run that is resumed. Hashes in the checkpoint guard what `data-dir` holds; the other two
# change no result as long as clients answer, and a run that is stuck because they do not needs other values. What is
# looked at stays: `test-split`, `val-split`, `eval-split` and `inspection` change no weight, but a curve must not begin
# in the middle or go on with other images, and clients add up what they have seen. `holdout-fraction` changes weights.
MAY_DIFFER = NOT_SEARCHED | {"data-dir", "min-reply-fraction", "round-timeout"}


def decides(key: str, config: Mapping[str, Any]) -> bool:
    """Whether a resumed run must have the same value as in its config so far.

    Of a partition from a file, `partition-args` has only that file's place, and `pretrained` has only the place of
    weights that never train: a hash in the checkpoint guards them. A schedule's rates may depend on how many rounds
    there are.
    """
    if key == ROUNDS and depends_on_rounds(config.get("lr-schedule", "")):
        return True
    if key == "pretrained" and config.get("trainable", "all") != "all":
        return False
    return key not in MAY_DIFFER and not (key == "partition-args" and config.get("partition") == "file")


def is_searched(key: str, config: Mapping[str, Any]) -> bool:
    """Whether `auto` passes over a run that has another value than its `config`."""
    return key not in NOT_SEARCHED or decides(key, config)


def differences(saved: Mapping[str, Any], config: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Keys whose values differ between a saved config and the current one, both values of each, without `resume`.

    Numbers that were measured for a run are what its user asked for by leaving them out.
    """
    current = config.to_flat()
    keys = sorted((current.keys() | saved.keys()) - {"resume"})
    if saved.get("normalization") == config.normalization == MEASURED and lead_to(current[ARGS], saved.get(ARGS)):
        keys.remove(ARGS)
    return {key: (saved.get(key), current.get(key)) for key in keys if saved.get(key) != current.get(key)}


def show(different: Mapping[str, tuple[Any, Any]]) -> str:
    """What `differences` found, in words."""
    return ", ".join(f"'{key}' was {old!r} and is now {new!r}" for key, (old, new) in different.items())


def check_config(config: RunConfig, checkpoint: Checkpoint) -> None:
    """Check that a checkpoint can be resumed with the current config.

    Raises:
        ConfigError: It cannot; the sentence names the keys, their values, and what is allowed.
    """
    different = differences(checkpoint.config, config)
    wrong = {key: values for key, values in different.items() if decides(key, checkpoint.config)}
    if wrong.keys() == {ROUNDS}:
        before, now = wrong[ROUNDS]
        raise ConfigError(
            f"run config: 'num-server-rounds' is {now}, but the 'lr-schedule' of the resumed run is"
            f" {config.lr_schedule}, whose rates depend on that number; it must be {before}, as before (runs with"
            " constant or step can have more)."
        )
    if wrong:
        raise ConfigError(f"run config: 'resume' needs the config of the resumed run, but {show(wrong)}.")
    if config.num_server_rounds < checkpoint.server_round:
        raise ConfigError(
            f"run config: 'num-server-rounds' is {config.num_server_rounds}, but the resumed run has finished"
            f" {checkpoint.server_round} rounds; it must be at least that."
        )
