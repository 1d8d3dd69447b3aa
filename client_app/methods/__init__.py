"""How a client learns: one file per method, and the table of their names; docs/adding-a-method.md adds one."""

from collections.abc import Callable

from client_app.methods.ce import CrossEntropy
from client_app.methods.co_teaching import CoTeaching
from client_app.methods.elr import EarlyLearningRegularisation
from client_app.methods.fedelc import FedELC
from client_app.methods.fedlsr import LocalSelfRegularisation
from client_app.methods.fednoro import FedNoRo
from client_app.methods.method import Method

__all__ = ["METHODS", "Method"]

METHODS: dict[str, Callable[..., Method]] = {
    "ce": CrossEntropy,
    "elr": EarlyLearningRegularisation,
    "fedlsr": LocalSelfRegularisation,
    "co-teaching": CoTeaching,
    "fednoro": FedNoRo,
    "fedelc": FedELC,
}
