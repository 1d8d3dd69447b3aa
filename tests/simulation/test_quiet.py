"""What Flower and Ray say to their own developers is left out."""

import logging
import warnings

import pytest

from simulation.quiet import WithoutNoise, quieten


@pytest.mark.parametrize(
    ("message", "stays"),
    [
        ("configure_train: Sampled %s nodes (out of %s)", False),
        ("Manually terminating %s", False),
        ("Reply left out: %s", True),
        ("", True),
    ],
)
def test_noise_is_left_out(message: str, stays: bool) -> None:
    record = logging.LogRecord("flwr", logging.INFO, "", 1, message, None, None)
    assert WithoutNoise().filter(record) is stays


def test_it_is_installed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("flwr")
    monkeypatch.setattr(logger, "filters", [])
    with warnings.catch_warnings():
        quieten()
        quieten()
        warnings.warn("Tip: In future versions of Ray, Ray will no longer override", FutureWarning, stacklevel=1)
        with pytest.raises(FutureWarning):
            warnings.warn("another one", FutureWarning, stacklevel=1)
    assert [type(known) for known in logger.filters] == [WithoutNoise]


def test_flower_still_says_what_is_left_out() -> None:
    """Or the words above would have to follow."""
    import inspect

    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation.ray_transport import ray_actor

    assert '"configure_train: Sampled' in inspect.getsource(FedAvg)
    assert '"Manually terminating' in inspect.getsource(ray_actor)
