"""How a client learns: one file per method, and the table of their names; docs/adding-a-method.md adds one."""

from collections.abc import Callable

from client_app.methods.ce import CrossEntropy
from client_app.methods.co_teaching import CoTeaching
from client_app.methods.elr import EarlyLearningRegularisation
from client_app.methods.fedlsr import LocalSelfRegularisation
from client_app.methods.method import Method

__all__ = ["METHODS", "Method"]

METHODS: dict[str, Callable[..., Method]] = {
    "ce": CrossEntropy,
    "co-teaching": CoTeaching,
    "elr": EarlyLearningRegularisation,
    "fedlsr": LocalSelfRegularisation,
}
