"""Imports the ClientApp before any test imports Flower's simulation, which it would otherwise patch for the tests."""

import pytest

import client_app.app  # noqa: F401


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The messages with which the process ended."""
    from flwr.supercore import exit as flower

    messages: list[str] = []

    def flwr_exit(code: int, message: str) -> None:
        messages.append(message)
        raise SystemExit(code)

    monkeypatch.setattr(flower, "flwr_exit", flwr_exit)
    return messages
