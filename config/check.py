"""All that is wrong with the settings of a run, found without PyTorch and Flower, before anything starts.

`python -m config check` shows it, and the ServerApp looks first of all. What depends on the images is in
`config.check_data`; what depends on clients and their machines they say themselves, in the roll call.
"""

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from config.architectures import TIMM, TIMM_MISSING
from config.combinations import (
    problems_of_clients_evidence,
    problems_of_evaluation,
    problems_of_method,
    problems_of_network,
    problems_of_optimizer,
    problems_of_privacy,
    problems_of_stopping,
    problems_of_values,
)
from config.errors import ConfigError
from config.hints import hint_about_key
from config.known import LR_SCHEDULES, METHODS, OPTIMIZERS, PRIVACY, STRATEGIES, TRAINABLES
from config.method_data import opens_data
from config.named import kebab, parse_args, unknown
from config.normalization import problem_of_normalization
from config.own_class import module_and_class
from config.parameters import KnownStrategy, Parameter, fits
from config.paths import problem_of_output
from config.resolve import fused_values
from config.rules import NAMED_WEIGHTS, is_absolute
from config.run_config import RunConfig, no_such_key, problem_of
from config.stems import usual_stem, with_stem
from data.errors import DataError
from data.text import one_line, shown

# Keys that name something with parameters, and what is known of those.
NAMED: dict[str, Mapping[str, Any]] = {
    "method": METHODS,
    "strategy": STRATEGIES,
    "privacy": PRIVACY,
    "trainable": TRAINABLES,
    "optimizer": OPTIMIZERS,
    "lr-schedule": LR_SCHEDULES,
}
AUTO = "auto"  # a value of `strategy`
KEYS = tuple(RunConfig().to_flat())
CODE = Path(__file__).parents[1]


def check_settings(overrides: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> RunConfig:
    """The config of a new run, if nothing is wrong with it, with the method's strategy in place of ``auto``.

    Args:
        overrides: What the user set.
        defaults: pyproject.toml's.

    Raises:
        ConfigError: All that is wrong, a sentence each.
    """
    config, problems = examine(overrides, defaults)
    if problems:
        raise ConfigError(" ".join(problems))
    return config


def examine(overrides: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> tuple[RunConfig, list[str]]:
    """The config that values come to, and a sentence for each thing that is wrong; a bad value is left at its default.

    Args:
        overrides: What the user set, by key.
        defaults: pyproject.toml's values.
    """
    problems: list[str] = []
    try:
        values = fused_values(overrides, defaults)
    except ConfigError as error:
        problems.append(str(error))
        values = {key: value for key, value in {**(defaults or {}), **overrides}.items() if key != "preset"}
    for key in [key for key in values if key not in KEYS]:
        problems.append(hint_about_key(key) or no_such_key(key, KEYS))
        del values[key]
    bad = {key: problem for key, value in values.items() if (problem := problem_of(key, value))}
    problems += bad.values()
    config = RunConfig.from_flat({key: value for key, value in values.items() if key not in bad})
    if str(config.resume) not in ("", AUTO):  # the rest of the config is in the checkpoint
        return config, problems + [problem for problem in [_problem_of_resume(config)] if problem]
    problems += _problems_together(config, frozenset(bad))
    return with_stem(with_strategy(config)), problems


def with_strategy(config: RunConfig) -> RunConfig:
    """The config with the method's own strategy in place of ``auto``."""
    if config.strategy != AUTO or config.method not in METHODS:
        return config
    return RunConfig.from_flat({**config.to_flat(), "strategy": METHODS[config.method].strategy})


def differences(config: RunConfig) -> dict[str, Any]:
    """The keys whose values are not the defaults."""
    values = config.to_flat()
    defaults = {**with_strategy(RunConfig()).to_flat(), "stem": usual_stem(values)}
    return {key: value for key, value in values.items() if value != defaults[key]}


def _problems_together(config: RunConfig, bad: frozenset[str]) -> Iterator[str]:
    """What is wrong with parameters, combinations, files and folders; nothing that follows from a `bad` key."""
    args: dict[str, dict[str, Any]] = {}
    config = with_strategy(config)
    wrong = set(bad)
    for key in NAMED:
        name = getattr(config, key.replace("-", "_"))
        if key not in bad and f"{key}-args" not in bad:
            found = list(_problems_of_args(config, key, name, args))
            if found:
                wrong.add(f"{key}-args")
            yield from found
    for key, check in WITH_ARGS.items():
        if key not in bad and f"{key}-args" not in bad and (problem := check(config)):
            yield problem
    if not {"evaluate-every", "num-server-rounds"} & wrong:
        yield from problems_of_evaluation(config)
    if "val-split" not in wrong:  # a bad rule is 0 here, which ends nothing
        yield from problems_of_stopping(config)
    if not {"val-split", "eval-split", "inspection", "holdout-fraction", "fraction-evaluate"} & wrong:
        yield from problems_of_clients_evidence(config)
    if not {"num-server-rounds", "strategy-args"} & wrong:
        yield from problems_of_optimizer(config, args)
    yield from _problems_of_combination(config, wrong, args)
    for key, look in FILES.items():
        if key not in bad and (problem := look(config)):
            yield problem


def _problems_of_args(config: RunConfig, key: str, name: str, into: dict[str, dict[str, Any]]) -> Iterator[str]:
    """What is wrong with the pairs of ``<key>-args``, which go `into` a table; not of a class of the user's."""
    text = getattr(config, f"{key.replace('-', '_')}_args")
    into[f"{key}-args"] = {}
    try:
        given = parse_args(f"{key}-args", text)
    except ConfigError as error:
        yield str(error)
        return
    known = _parameters(key, name)
    if known is None:
        return
    for argument, value in given.items():
        if argument not in known:
            yield unknown(key, name, argument, known)
        elif not fits(value, known[argument].default if key != "privacy" else 0.0, known[argument].rule):
            yield (
                f"run config: '{key}-args' is {one_line(repr(text))}; {kebab(argument)} of {name} is {shown(value)},"
                f" and must be {known[argument].rule.allowed}."
            )
    for argument, one in known.items():
        if one.default != one.default and argument not in given:
            yield (
                f"run config: '{key}-args' is {one_line(repr(text))}; {name} needs {kebab(argument)}, which must be"
                f" {one.rule.allowed}."
            )
    into[f"{key}-args"] = given


def _parameters(key: str, name: str) -> Mapping[str, Parameter] | None:
    known = NAMED[key].get(name)
    return getattr(known, "parameters", known)


def _problems_of_combination(config: RunConfig, wrong: set[str], args: dict[str, dict[str, Any]]) -> Iterator[str]:
    if not {"model", "image-size", "pretrained", "trainable", "batchnorm", "stem"} & wrong:
        yield from problems_of_network(config)
    if "method" in wrong or config.method not in METHODS:
        return
    # Of a class of the user's, its own word counts, when it is imported.
    strategy = STRATEGIES.get(config.strategy, KnownStrategy({}, takes_one_mean=True))
    if "strategy" not in wrong:
        yield from problems_of_method(config, METHODS[config.method], strategy)
        if "privacy" not in wrong:
            yield from problems_of_privacy(config, strategy)
    if not {"method-args", "num-server-rounds", "model", "pretrained"} & wrong:
        yield from problems_of_values(config, args)


def _problem_of_partition(config: RunConfig) -> str | None:
    if config.partition == "iid" and not config.partition_args:
        return None
    from data.partition.file import check_scheme

    try:
        args = parse_args("partition-args", config.partition_args)
        check_scheme(config.partition, args)
        # Whether it is there, its readers say: the clients.
        if config.partition == "file" and not is_absolute(args["path"]):
            raise DataError(f"'path' is {shown(args['path'])}; it must be an absolute path that can exist.")
    except ConfigError as error:
        return str(error)
    except DataError as error:
        return _refused("partition", config.partition, config.partition_args, error)
    return None


def _problem_of_noise(config: RunConfig) -> str | None:
    if config.label_noise == "none" and not config.label_noise_args:
        return None
    import numpy as np

    from data.noise.published import CONFUSION
    from data.noise.synthetic import corrupt

    try:
        args = parse_args("label-noise-args", config.label_noise_args)
        corrupt(np.zeros(0, np.int32), config.label_noise, len(CONFUSION), 0, 1, config.seed, **args)
    except ConfigError as error:
        return str(error)
    except DataError as error:
        return _refused("label-noise", config.label_noise, config.label_noise_args, error)
    return None


def _refused(key: str, value: str, args: str, error: DataError) -> str:
    given = f", '{key}-args' is {one_line(repr(args))}" if args else ""
    return f"run config: '{key}' is {value!r}{given}: {one_line(str(error))}"


def _problem_of_data_dir(config: RunConfig) -> str | None:
    """A path that only nodes have is right if their server reads nothing; a simulation's data are opened next."""
    path = Path(config.data_dir).expanduser()
    if config.data_dir and opens_data(config) and not os.access(path, os.F_OK):
        return f"run config: 'data-dir' is {config.data_dir!r}, but there is no such folder or file."
    return None


def _problem_of_weights(config: RunConfig) -> str | None:
    path = Path(config.pretrained).expanduser()
    if not NAMED_WEIGHTS.fullmatch(config.pretrained) and not os.path.isfile(path):  # noqa: PTH113
        return f"run config: 'pretrained' is '{path}', but there is no such file."
    return None


def _problem_of_timm(config: RunConfig) -> str | None:
    if not config.model.startswith(TIMM) or _is_importable("timm"):
        return None
    return f"run config: 'model' is {config.model!r}, {TIMM_MISSING}"


def _problem_of_tracking(config: RunConfig) -> str | None:
    if config.tracking == "none" or _is_importable(config.tracking):
        return None
    return (
        f"run config: 'tracking' is {config.tracking!r}, but it is not installed; `pip install {config.tracking}` where"
        " the server runs, or choose none."
    )


def _problem_of_resume(config: RunConfig) -> str | None:
    if os.access(Path(config.resume).expanduser(), os.F_OK):
        return None
    return (
        f"run config: 'resume' is {config.resume!r}, where there is no run with a config.toml or checkpoints; it must"
        " be the folder of a run, or a checkpoint in it."
    )


def _problem_of_class(key: str, name: str) -> str | None:
    """Of a class of the user's: whether its module is there; it is imported later."""
    if ":" not in name:
        return None
    try:
        top = module_and_class(key, name)[0].split(".")[0]
    except ConfigError as error:
        return str(error)
    if _is_importable(top) or any((CODE / f"{top}{end}").exists() for end in ("", ".py")):
        return None
    return f"run config: '{key}' is {name!r}, but there is no module {top!r}; files of your own belong into custom/."


def _is_importable(module: str) -> bool:
    """Whether there is such a module at the top; it is not imported, since that may take seconds."""
    return sys.modules.get(module) is not None or importlib.util.find_spec(module) is not None


WITH_ARGS: dict[str, Callable[[RunConfig], str | None]] = {
    "partition": _problem_of_partition,
    "label-noise": _problem_of_noise,
    "normalization": problem_of_normalization,
}
FILES: dict[str, Callable[[RunConfig], str | None]] = {
    "output-dir": problem_of_output,
    "data-dir": _problem_of_data_dir,
    "model": _problem_of_timm,
    "pretrained": _problem_of_weights,
    "tracking": _problem_of_tracking,
    "strategy": lambda config: _problem_of_class("strategy", config.strategy),
    "method": lambda config: _problem_of_class("method", config.method),
}
