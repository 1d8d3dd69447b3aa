"""The norm at which updates are clipped, and the noise that goes with it: fixed, or adapted to the updates.

Adaptive clipping (Andrew et al., NeurIPS 2021, arXiv 1905.03871, Algorithm 1) follows a quantile gamma of the updates'
norms. b_k is 1 if client k's update was no longer than C, m the number of replies:

    b = (sum_k b_k + N(0, sigma_b^2)) / m,    C <- C exp(-eta_C (b - gamma))
    z_Delta = (z^-2 - (2 sigma_b)^-2)^(-1/2)

so that noise z_Delta C on the sum of updates and sigma_b on the sum of bits are together as private as z. Flower's
classes use 1 - b for b, so that C falls where it should rise, and draw the noise for the next C instead of the C that
clipped.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from config.parameters import check_parameters, parameter
from config.rules import interval

NORM = "privacy/clipping-norm"  # in checkpoints
MUST_BE_SET = math.nan  # it satisfies no rule
POSITIVE = interval(0, float("inf"), open_low=True)


@dataclass(kw_only=True, eq=False)
class FixedClipping:
    """One C for the whole run.

    Attributes:
        noise_multiplier: z; the noise on the sum of updates has standard deviation z C.
        clipping_norm: C.
    """

    noise_multiplier: float = parameter(MUST_BE_SET, interval(0, float("inf")))
    clipping_norm: float = parameter(MUST_BE_SET, POSITIVE)

    def __post_init__(self) -> None:
        check_parameters(self)

    def update_noise(self, sampled: int) -> float:
        """Standard deviation of the noise on the sum of updates, in units of C, with `sampled` clients a round."""
        return self.noise_multiplier

    def adapt(self, within: int, replies: int, sampled: int, rng: np.random.Generator) -> None:
        """Set C for the next round.

        Args:
            within: Number of updates no longer than C.
            replies: Number of updates.
            sampled: Number of sampled clients.
            rng: Source of the noise on `within`.
        """

    def state(self) -> dict[str, np.ndarray]:
        """What later rounds depend on."""
        return {}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Restore what `state` returned."""


@dataclass(kw_only=True, eq=False)
class AdaptiveClipping:
    """C follows a quantile of the norms.

    Attributes:
        noise_multiplier: z, of updates and bits together.
        initial_clipping_norm: C in the first round.
        target_clipped_quantile: gamma; 0.5 aims at the median norm.
        clip_norm_lr: eta_C.
        clipped_count_stddev: sigma_b; 0 stands for a twentieth of the sampled clients, or for no noise if z is 0.
    """

    noise_multiplier: float = parameter(MUST_BE_SET, interval(0, float("inf")))
    initial_clipping_norm: float = parameter(0.1, POSITIVE)
    target_clipped_quantile: float = parameter(0.5, interval(0, 1))
    clip_norm_lr: float = parameter(0.2, POSITIVE)
    clipped_count_stddev: float = parameter(0.0, interval(0, float("inf")))

    def __post_init__(self) -> None:
        check_parameters(self)
        self.clipping_norm = self.initial_clipping_norm

    def bit_noise(self, sampled: int) -> float:
        """sigma_b."""
        return self.clipped_count_stddev or (sampled / 20 if self.noise_multiplier else 0.0)

    def update_noise(self, sampled: int) -> float:
        """z_Delta.

        Raises:
            ValueError: The noise on the bits is too small for z.
        """
        if not self.noise_multiplier:
            return 0.0
        deviation = self.bit_noise(sampled)
        if self.noise_multiplier >= 2 * deviation:
            raise ValueError(
                f"noise-multiplier {self.noise_multiplier:g} needs clipped-count-stddev above"
                f" {self.noise_multiplier / 2:g}, but it is {deviation:g} with {sampled} clients a round"
            )
        return float((self.noise_multiplier**-2 - (2 * deviation) ** -2) ** -0.5)

    def adapt(self, within: int, replies: int, sampled: int, rng: np.random.Generator) -> None:
        """See `FixedClipping.adapt`."""
        deviation = self.bit_noise(sampled)
        noise = float(rng.normal(scale=deviation)) if deviation else 0.0
        share = (within + noise) / replies
        self.clipping_norm *= math.exp(-self.clip_norm_lr * (share - self.target_clipped_quantile))

    def state(self) -> dict[str, np.ndarray]:
        return {NORM: np.asarray(self.clipping_norm)}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Restore what `state` returned.

        Raises:
            ValueError: It has no clipping norm.
        """
        if NORM not in state:
            raise ValueError("the clipping norm was not saved")
        self.clipping_norm = float(state[NORM])


Clipping = FixedClipping | AdaptiveClipping

PRIVACY: dict[str, Callable[..., Clipping | None]] = {
    "none": lambda: None,
    "server-fixed": FixedClipping,
    "server-adaptive": AdaptiveClipping,
    "client-fixed": FixedClipping,
    "client-adaptive": AdaptiveClipping,
}
