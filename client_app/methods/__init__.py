"""How a client learns: one file per method, and the table of their names; docs/adding-a-method.md adds one."""

from collections.abc import Callable

from client_app.methods.ce import CrossEntropy
from client_app.methods.co_teaching import CoTeaching
from client_app.methods.decorr import Decorrelation
from client_app.methods.elr import EarlyLearningRegularisation
from client_app.methods.fedelc import FedELC
from client_app.methods.fedlsr import LocalSelfRegularisation
from client_app.methods.fednoro import FedNoRo
from client_app.methods.forward import ForwardCorrection
from client_app.methods.gce import GeneralizedCrossEntropy
from client_app.methods.method import Method
from client_app.methods.sce import SymmetricCrossEntropy

__all__ = ["METHODS", "Method"]

METHODS: dict[str, Callable[..., Method]] = {
    "ce": CrossEntropy,
    "sce": SymmetricCrossEntropy,
    "gce": GeneralizedCrossEntropy,
    "forward": ForwardCorrection,
    "feddecorr": Decorrelation,
    "elr": EarlyLearningRegularisation,
    "fedlsr": LocalSelfRegularisation,
    "co-teaching": CoTeaching,
    "fednoro": FedNoRo,
    "fedelc": FedELC,
}
