"""The server half of a method as a run calls it: what it returns is checked, and what it raises ends in one sentence.

A half may be a class of the user's own, whose faults would otherwise show rounds later, or at a client.
"""

import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from logging import DEBUG
from typing import Any, TypeVar, cast

import numpy as np
from flwr.common import log
from torch import nn

from config.run_config import ConfigError, RunConfig
from data.release import Release
from data.text import one_line, shown
from learning.method import Method
from learning.schema import Schema
from learning.server_half import Ask, Choice, ServerHalf, Told, Workbench
from messages.arrays import all_finite
from server_app.stopping import EXPECTED, RunStoppedError

T = TypeVar("T")
LONGEST_ERROR = 400  # characters


def server_half(method: Method, name: str) -> ServerHalf:
    """The server half of the method that `method` of the run config names.

    Raises:
        ConfigError: It is none, or contradicts itself.
    """
    try:
        half: Any = method.on_server()
    except Exception as error:  # a class of the user's may raise anything
        raise ConfigError(
            f"run config: 'method' is {name!r}, whose on_server raised"
            f" {one_line(f'{type(error).__name__}: {error}', LONGEST_ERROR)}."
        ) from error
    start = f"run config: 'method' is {name!r}, whose on_server returns {type(half).__name__};"
    if not isinstance(half, ServerHalf):
        raise ConfigError(f"{start} it must return a learning.server_half.ServerHalf.")
    if type(half).train is not ServerHalf.train and not half.trains:
        raise ConfigError(f"{start} it has a train, so its trains must be True.")
    if type(half).tell_models is not ServerHalf.tell_models and not half.keeps_models:
        raise ConfigError(f"{start} it has a tell_models, so its keeps_models must be True.")
    if half.keeps_models and not method.shares_models:
        raise ConfigError(f"{start} its keeps_models is True, so shares_models of the method must be as well.")
    return half


class GuardedHalf(ServerHalf):
    """Calls another half; all hooks raise RunStoppedError if that one fails, or returns what it must not."""

    def __init__(self, half: ServerHalf, name: str) -> None:
        """Guard `half`, whose method is `name` in the run config."""
        self._half = half
        self._name = name

    @property
    def trains(self) -> bool:  # type: ignore[override]
        return self._half.trains

    @property
    def keeps_models(self) -> bool:  # type: ignore[override]
        return self._half.keeps_models

    @property
    def needs_data(self) -> bool:
        return self._half.needs_data

    def prepare(self, config: RunConfig, release: Release | None) -> None:
        """`release` may be None unless the half needs data."""
        self._call("prepare", self._half.prepare, config, cast(Release, release))

    def check_classes(self, classes: int) -> None:
        self._call("check_classes", self._half.check_classes, classes)

    def before_round(self, server_round: int, arrays: Any, ask: Ask) -> None:
        self._call("before_round", self._half.before_round, server_round, arrays, ask)

    def answers(self, classes: int, images: int) -> Mapping[str, Schema]:
        return self._call("answers", self._half.answers, classes, images)

    def tell(self, partition: int) -> dict[str, Told]:
        told = self._call("tell", self._half.tell, partition)
        if type(told) is not dict or not all(type(key) is str and _is_told(value) for key, value in told.items()):
            raise self._returned("tell", told, "a dict of names to numbers, texts or lists of decimals")
        return told

    def tell_arrays(self, partition: int) -> dict[str, np.ndarray]:
        arrays = self._call("tell_arrays", self._half.tell_arrays, partition)
        if type(arrays) is not dict or not all(type(key) is str and _is_array(one) for key, one in arrays.items()):
            raise self._returned("tell_arrays", arrays, "a dict of names to NumPy arrays, float32 and finite")
        return arrays

    def tell_models(self, partition: int) -> dict[str, int]:
        models = self._call("tell_models", self._half.tell_models, partition)
        if type(models) is not dict or not all(type(key) is str and _is_client(one) for key, one in models.items()):
            raise self._returned("tell_models", models, "a dict of names to partitions")
        return {key: int(client) for key, client in models.items()}

    def choose(self, server_round: int, clients: Sequence[int], usual: int) -> Choice | None:
        choice = self._call("choose", self._half.choose, server_round, clients, usual)
        if choice is not None and not (isinstance(choice, Choice) and isinstance(choice.count, int)):
            raise self._returned("choose", choice, "None, or a Choice of partitions and a whole number")
        return choice

    def heard(self, server_round: int, replies: Mapping[int, Mapping[str, Any]]) -> None:
        self._call("heard", self._half.heard, server_round, replies)

    def heard_arrays(self, server_round: int, arrays: Mapping[int, Mapping[str, np.ndarray]]) -> None:
        self._call("heard_arrays", self._half.heard_arrays, server_round, arrays)

    def train(self, server_round: int, model: nn.Module, workbench: Workbench) -> None:
        self._call("train", self._half.train, server_round, model, workbench)

    def metrics(self, server_round: int) -> dict[str, float]:
        metrics = self._call("metrics", self._half.metrics, server_round)
        if type(metrics) is not dict or not all(type(key) is str and _is_number(one) for key, one in metrics.items()):
            raise self._returned("metrics", metrics, "a dict of names to numbers")
        return {key: float(value) for key, value in metrics.items()}

    def noisy_clients(self) -> Mapping[int, bool] | None:
        judged = self._call("noisy_clients", self._half.noisy_clients)
        if judged is None:
            return None
        if not isinstance(judged, Mapping) or not all(_is_tag_of_client(*one) for one in judged.items()):
            raise self._returned("noisy_clients", judged, "None, or a mapping of partitions to True or False")
        return {int(partition): bool(noisy) for partition, noisy in judged.items()}

    def wrong_labels(self) -> Mapping[int, float]:
        shares = self._call("wrong_labels", self._half.wrong_labels)
        if not isinstance(shares, Mapping) or not all(_is_share_of_client(*one) for one in shares.items()):
            raise self._returned("wrong_labels", shares, "a mapping of partitions to shares from 0 to 1")
        return {int(partition): float(share) for partition, share in shares.items()}

    def state(self) -> dict[str, np.ndarray]:
        """As it is now: the half may write into its arrays before the checkpoint is written."""
        state = self._call("state", self._half.state)
        if type(state) is not dict or not all(type(key) is str and _is_kept(value) for key, value in state.items()):
            raise self._returned("state", state, "a dict of names to NumPy arrays of numbers")
        return {key: value.copy() for key, value in state.items()}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        self._call("load_state", self._half.load_state, state)

    def _call(self, hook: str, function: Callable[..., T], *arguments: Any) -> T:
        try:
            return function(*arguments)
        except (*EXPECTED, FloatingPointError):
            raise
        except Exception as error:  # a class of the user's may raise anything
            log(DEBUG, "%s of the server half of %s:", hook, self._name, exc_info=True)
            raise RunStoppedError(
                f"{hook} of the server half of 'method' {self._name!r} raised {self._what_and_where(error)}."
            ) from error

    def _what_and_where(self, error: Exception) -> str:
        """The error, and the last line of the half's own file that led to it."""
        code = {vars(one)[name].__code__.co_filename for one in type(self._half).__mro__ for name in _functions(one)}
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames[1:] if frame.filename in code] or frames[-1:]
        return one_line(f"{type(error).__name__}: {error} ({own[-1].filename}, line {own[-1].lineno})", LONGEST_ERROR)

    def _returned(self, hook: str, value: Any, wanted: str) -> RunStoppedError:
        return RunStoppedError(
            f"{hook} of the server half of 'method' {self._name!r} returned {shown(value)}; it must return {wanted}."
        )


def _functions(owner: type) -> list[str]:
    return [name for name, value in vars(owner).items() if hasattr(value, "__code__")]


def _is_client(partition: Any) -> bool:
    return isinstance(partition, (int, np.integer)) and not isinstance(partition, bool)


def _is_tag_of_client(partition: Any, noisy: Any) -> bool:
    return _is_client(partition) and isinstance(noisy, (bool, np.bool_))


def _is_share_of_client(partition: Any, share: Any) -> bool:
    return _is_client(partition) and isinstance(share, (int, float, np.number)) and bool(0 <= share <= 1)


def _is_told(value: Any) -> bool:
    return isinstance(value, (bool, int, float, str)) or (
        type(value) is list and all(isinstance(one, float) for one in value)
    )


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == np.float32 and all_finite(value)


def _is_kept(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "biuf"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and (math.isfinite(value) or math.isnan(value))
