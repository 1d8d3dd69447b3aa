"""Differential privacy around a strategy that takes the mean (McMahan et al., ICLR 2018, arXiv 1710.06963).

    w_t + 1/m (sum_k Delta_k min(1, C / ||Delta_k||) + N(0, (z C)^2))    is the mean that the strategy sees

m is the number of usable replies, and all have equal weight: with weights n_k, one client could move the mean by more
than C / m. Flower's classes hold all replies, clip BatchNorm's buffers and counters too, keep the weights n_k, and add
the noise after the strategy's step, where it does not suit a step such as FedAdam's. Here the step works on the noised
mean, so that nothing it does can weaken the guarantee. docs/strategies.md explains that guarantee.
"""

import os
from collections.abc import Iterable, Mapping
from logging import INFO, WARNING
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from config.combinations import problems_of_privacy
from config.named import build_named
from config.run_config import ConfigError, RunConfig
from messages.arrays import as_array, as_numpy, take_arrays
from messages.clipping import clip_update
from messages.keys import CLIPPING_NORM, METRICS, NORM_BIT
from server_app.privacy.clipping_norms import NORM, PRIVACY, Clipping
from server_app.strategies.batchnorm import is_parameter
from server_app.strategies.running_mean import RunningMean
from task import derived_seed

SECRET = "CLOTHING1M_FL_NOISE_SECRET"  # environment variable of the server


def with_privacy(strategy: Strategy, config: RunConfig) -> Strategy:
    """`strategy`, wrapped as `privacy` and `privacy-args` ask.

    Args:
        strategy: The run's.
        config: The run's.

    Raises:
        ConfigError: An unknown or bad parameter, a strategy that needs more than the mean, a limit of the updates'
            length besides clipping, or a `payload` that rounds updates after clients have clipped them.
    """
    clipping: Clipping | None = build_named("privacy", PRIVACY, config.privacy, config.privacy_args)
    if clipping is None:
        return strategy
    for problem in problems_of_privacy(config, strategy):
        raise ConfigError(problem)
    return Private(strategy, clipping, on_clients=config.privacy.startswith("client-"), seed=config.seed)


def takes_one_mean(strategy: object) -> bool:
    """Whether a strategy or its class declares that it needs no more of the replies than their mean."""
    return bool(getattr(strategy, "takes_one_mean", False))


class Private(Strategy):
    """Clips, averages and noises a round's updates, and passes the result to a strategy as its only reply."""

    holds_all_replies = False

    def __init__(self, strategy: Strategy, clipping: Clipping, *, on_clients: bool, seed: int) -> None:
        """Wrap `strategy`.

        Args:
            strategy: Receives one reply a round.
            clipping: Sets C and the noise.
            on_clients: Whether clients clip before they send; otherwise the server does.
            seed: Source of the noise, together with the secret in the environment.
        """
        self.strategy: Any = strategy
        self.clipping = clipping
        self._on_clients = on_clients
        self._seed = seed
        self._secret = os.environ.get(SECRET, "")
        self._sent: dict[str, np.ndarray] = {}
        self._sampled = 0
        if clipping.noise_multiplier and not self._secret:
            log(
                WARNING,
                "The noise of 'privacy' is derived from 'seed', which every client receives: whoever knows it can"
                " remove the noise. Set %s where the server runs to prevent this.",
                SECRET,
            )

    def __getattr__(self, name: str) -> Any:
        """Take everything else, such as `fraction_train`, from the inner strategy."""
        if name == "strategy":  # not set yet, as in a copy
            raise AttributeError(name)
        return getattr(self.strategy, name)

    @property
    def least_replies(self) -> int:
        """A round with fewer usable replies cannot be aggregated."""
        return int(getattr(self.strategy, "least_replies", 1))

    def peak_bytes(self, model_bytes: int, replies: int) -> int:
        """The inner strategy's peak for one reply, plus w_t, plus the noised mean as arrays and as bytes."""
        return int(self.strategy.peak_bytes(model_bytes, 1)) + 3 * model_bytes

    def check(self, sampled: int) -> None:
        """Check that the noise is possible with so many clients a round.

        Raises:
            ConfigError: It is not.
        """
        try:
            self.clipping.update_noise(sampled)
        except ValueError as error:
            raise ConfigError(f"run config: 'privacy-args': {error}.") from None

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        if self._on_clients:
            config[CLIPPING_NORM] = self.clipping.clipping_norm
        else:
            decoded = ((name, as_numpy(array)) for name, array in arrays.items())
            self._sent = {name: array for name, array in decoded if is_parameter(name, array.dtype)}
        messages = list(self.strategy.configure_train(server_round, arrays, config, grid))
        self._sampled = len(messages)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average the clipped replies one by one, add noise, adapt the norm, and let the strategy take its step.

        Adds the metrics ``clipping-norm`` and ``noise-stddev``, the standard deviation for each parameter of the mean.

        """
        mean = RunningMean()
        contents: list[RecordDict] = []
        within = 0
        one: Message | None = None
        for reply in replies:
            if reply.has_error():
                continue
            arrays = take_arrays(reply.content.array_records[self.strategy.arrayrecord_key])
            within += self._clip(arrays, next(iter(reply.content.metric_records.values())))
            mean.add(arrays, 1.0)
            del arrays
            contents.append(reply.content)
            one = reply
        if one is None:
            return None, None
        norm, multiplier = self.clipping.clipping_norm, self.clipping.update_noise(self._sampled)
        deviation = multiplier * norm / len(contents)
        result = mean.take()
        add_noise(result, deviation, self._generator("noise on updates", server_round))
        self.clipping.adapt(within, len(contents), self._sampled, self._generator("noise on norm bits", server_round))
        log(
            INFO,
            "privacy: %d updates clipped to norm %.4g, noise with standard deviation %.4g added to each mean weight",
            len(contents),
            norm,
            deviation,
        )
        metrics = self.strategy.train_metrics_aggr_fn(contents, self.strategy.weighted_by_key)
        record = ArrayRecord({name: as_array(result.pop(name)) for name in list(result)})
        counted = MetricRecord({**metrics, self.strategy.weighted_by_key: 1})
        one.content = RecordDict({self.strategy.arrayrecord_key: record, METRICS: counted})
        new, metrics = self.strategy.aggregate_train(server_round, [one])
        if new is None or metrics is None:
            return new, metrics
        metrics.pop(NORM_BIT, None)  # the exact share would leak through metrics.jsonl
        metrics[CLIPPING_NORM], metrics["noise-stddev"] = norm, deviation
        return new, metrics

    def _clip(self, arrays: dict[str, np.ndarray], metrics: MetricRecord) -> bool:
        """Clip unless the client has; return whether the update was short enough."""
        if not self._on_clients:
            return clip_update(arrays, self._sent, self.clipping.clipping_norm)
        return bool(metrics[NORM_BIT])

    def _generator(self, purpose: str, server_round: int) -> np.random.Generator:
        return np.random.default_rng(derived_seed(self._seed, f"{purpose} {self._secret}", server_round))

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        messages: Iterable[Message] = self.strategy.configure_evaluate(server_round, arrays, config, grid)
        return messages

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        metrics: MetricRecord | None = self.strategy.aggregate_evaluate(server_round, replies)
        return metrics

    def summary(self) -> None:
        self.strategy.summary()

    def state(self) -> dict[str, np.ndarray]:
        """The inner strategy's state, plus the norm if it adapts."""
        inner: dict[str, np.ndarray] = getattr(self.strategy, "state", dict)()
        return {**inner, **self.clipping.state()}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        self.clipping.load_state(state)
        if inner := {name: value for name, value in state.items() if name != NORM}:
            self.strategy.load_state(inner)


def add_noise(arrays: dict[str, np.ndarray], deviation: float, rng: np.random.Generator) -> None:
    """Replace parameters by noisy ones, with Gaussian noise; BatchNorm's buffers stay as they are."""
    if not deviation:
        return
    for name, value in arrays.items():
        if is_parameter(name, value.dtype):
            arrays[name] = np.asarray(value + rng.normal(scale=deviation, size=value.shape), dtype=value.dtype)
