"""How clients learn from noisy labels: one file per method, with both of its halves, and the table of their names.

docs/adding-a-method.md walks through adding one. Classes are named as papers name their methods.
"""

from dataclasses import replace

from config.errors import ConfigError
from config.named import build_named
from config.own_class import own_class
from config.run_config import RunConfig
from learning.method import Method
from learning.method_rules import problem_of_class
from methods.ce import CE
from methods.co_teaching import CoTeaching
from methods.co_teaching_plus import CoTeachingPlus
from methods.dividemix import DivideMix
from methods.dualoptim import DualOptim
from methods.elr import ELR
from methods.fedclean import FedClean
from methods.fedcorr import FedCorr
from methods.feddecorr import FedDecorr
from methods.feddiv import FedDiv
from methods.fedelc import FedELC
from methods.fedlsr import FedLSR
from methods.fednoro import FedNoRo
from methods.fedrn import FedRN
from methods.forward import Forward
from methods.gce import GCE
from methods.joint_optimization import JointOptimization
from methods.maskedoptim import MaskedOptim
from methods.robustfl import RobustFL
from methods.sce import SCE
from methods.selfie import SELFIE
from methods.xiao import Xiao

__all__ = ["METHODS", "Method", "build_method", "with_own_strategy"]

METHODS: dict[str, type[Method]] = {
    "ce": CE,
    "sce": SCE,
    "gce": GCE,
    "forward": Forward,
    "xiao": Xiao,
    "feddecorr": FedDecorr,
    "elr": ELR,
    "selfie": SELFIE,
    "joint-optimization": JointOptimization,
    "fedlsr": FedLSR,
    "co-teaching": CoTeaching,
    "co-teaching-plus": CoTeachingPlus,
    "dividemix": DivideMix,
    "fednoro": FedNoRo,
    "fedelc": FedELC,
    "maskedoptim": MaskedOptim,
    "dualoptim": DualOptim,
    "fedcorr": FedCorr,
    "feddiv": FedDiv,
    "fedclean": FedClean,
    "robustfl": RobustFL,
    "fedrn": FedRN,
}
AUTO = "auto"  # a value of `strategy`


def build_method(config: RunConfig) -> Method:
    """The run's method, with its `method-args`: a name from the table, or a class as ``"module:Class"``.

    Raises:
        ConfigError: There is no such method, it has no such parameter, or refuses a value; or a class of the user's
            says of itself what cannot be.
    """
    name, table = config.method, METHODS
    if ":" in name:
        table = {name: own_class("method", name, Method)}
    elif name not in table:
        known = ", ".join(table)
        raise ConfigError(
            f"run config: 'method' is {name!r}; it must be one of {known}, or your own class as 'module:Class'."
        )
    method: Method = build_named("method", table, name, config.method_args)
    if problem := problem_of_class(method, config.augmentation):
        raise ConfigError(f"run config: 'method' is {name!r}; {problem}.")
    return method


def with_own_strategy(config: RunConfig) -> RunConfig:
    """The config with the method's own strategy in place of ``auto``.

    Raises:
        ConfigError: There is no such method.
    """
    return replace(config, strategy=build_method(config).strategy) if config.strategy == AUTO else config
