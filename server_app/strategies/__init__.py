"""How the server aggregates: one file per strategy, and the table of their names."""

from collections.abc import Callable

from flwr.serverapp.strategy import Strategy

from server_app.strategies.fedavg import StreamingFedAvg

STRATEGIES: dict[str, Callable[..., Strategy]] = {"fedavg": StreamingFedAvg}
