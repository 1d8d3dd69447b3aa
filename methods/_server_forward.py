"""Loss correction (Patrini et al., CVPR 2017) on the server: it gets the transition matrix and tells the clients."""

from dataclasses import dataclass, field

from config.run_config import ConfigError, RunConfig
from data.release import Release
from methods.server_half import ServerHalf, Value
from methods.transition import TOLD, TransitionSource, estimate_transition


@dataclass(frozen=True, eq=False)
class Forward(TransitionSource, ServerHalf):
    """The server's half; its parameters are those of `TransitionSource`."""

    _matrix: list[float] = field(default_factory=list, init=False, repr=False)

    def prepare(self, config: RunConfig, release: Release) -> None:
        """Read or estimate T.

        Raises:
            ConfigError: What `estimate_transition` refuses, or labels that are not the release's noisy ones, of which
                the matrix would not be.
        """
        if self.transition in ("estimate", "clothing1m"):
            if config.train_split == "clean" and config.label_noise != "confusion":
                self._refuse(f"'train-split' is 'clean' and 'label-noise' {config.label_noise!r}")
            if config.train_split != "clean" and config.label_noise != "none":
                self._refuse(f"'label-noise' {config.label_noise!r} changes labels on top of them")
        self._matrix[:] = estimate_transition(self, release).ravel().tolist()

    def _refuse(self, why: str) -> None:
        raise ConfigError(
            f"run config: 'method-args': transition is {self.transition!r}, the noise of the released noisy labels, but"
            f" {why}; it must be the path of the matrix of those labels."
        )

    def tell(self, partition: int) -> dict[str, Value]:
        return {TOLD: self._matrix}
