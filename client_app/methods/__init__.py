"""How a client learns: one file per method, and the table of their names; docs/adding-a-method.md adds one."""

from collections.abc import Callable

from client_app.methods.ce import CrossEntropy
from client_app.methods.decorr import Decorrelation
from client_app.methods.forward import ForwardCorrection
from client_app.methods.gce import GeneralizedCrossEntropy
from client_app.methods.method import Method
from client_app.methods.sce import SymmetricCrossEntropy

__all__ = ["METHODS", "Method"]

METHODS: dict[str, Callable[..., Method]] = {
    "ce": CrossEntropy,
    "feddecorr": Decorrelation,
    "forward": ForwardCorrection,
    "gce": GeneralizedCrossEntropy,
    "sce": SymmetricCrossEntropy,
}
