"""The run config: every key of ``[tool.flwr.app.config]`` as one typed, checked, frozen object.

Precedence, lowest first: the defaults below (a test keeps them equal to pyproject.toml), the preset that `preset`
names (a file of ``config/presets/``), what the user set with ``flwr run -c``. The server resolves this once and sends
the result along with every message, so a client never has to guess which of its defaults the user meant.
"""

import dataclasses
import inspect
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from config.rules import Rule, at_least, interval, one_of, path_or_empty
from data.arguments import parse_pairs

Value = bool | int | float | str
PRESETS = Path(__file__).parent / "presets"


class ConfigError(ValueError):
    """A bad run-config value, said in one sentence: the key, the value, and what is allowed."""


ANY_TEXT = Rule("text", lambda value: True)
NAME = Rule(
    "a plain folder name of letters, digits, '.', '_' and '-'",
    lambda value: re.fullmatch(r"(?!\.\.?$)[\w.-]*", value) is not None,
)


def _key(default: Value, rule: Rule, meaning: str) -> Any:
    return dataclasses.field(default=default, metadata={"rule": rule, "meaning": meaning})


@dataclass(frozen=True)
class RunConfig:
    """One run, fully determined. Field `num_server_rounds` is the key `num-server-rounds`, and so on."""

    preset: str = _key("", ANY_TEXT, "start from `config/presets/<preset>.toml`; what you set yourself wins")
    seed: int = _key(1, at_least(0), "every random draw derives from it")
    data_dir: str = _key(
        "", path_or_empty(), "folder in Clothing1M's released layout, or a pack; empty: a sample is drawn"
    )
    output_dir: str = _key("", path_or_empty(), "where runs are written; empty: `~/clothing1m-fl-runs`")
    run_name: str = _key("", NAME, "folder of this run under `output-dir`; empty: date and time")
    resume: str = _key(
        "",
        Rule(
            "auto, or the absolute path of a run's folder or of a checkpoint in it",
            lambda value: value in ("", "auto") or Path(value).expanduser().is_absolute(),
        ),
        "go on with a run: `auto` (the one named `run-name`, or the newest unfinished one with this config) or a path",
    )
    tracking: str = _key(
        "none",
        one_of("none", "tensorboard", "wandb", "trackio"),
        "experiment tracker that gets each round's metrics, too",
    )
    cache_dir: str = _key("", path_or_empty(), "where decoded images are kept; empty: in the user's cache folder")
    cache_gib: float = _key(
        8.0, interval(0, float("inf")), "GiB of decoded images to keep on the disk of each machine; 0 keeps none"
    )
    state_dir: str = _key(
        "",
        path_or_empty(),
        "where clients keep what a method remembers of their images; empty: in the run's folder, on real nodes"
        " `~/clothing1m-fl-state`",
    )
    num_server_rounds: int = _key(14, at_least(1), "federated rounds")
    fraction_train: float = _key(0.2, interval(0, 1, open_low=True), "share of the clients that trains in a round")
    fraction_evaluate: float = _key(
        0.0, interval(0, 1), "share of the clients that evaluates in a round, on its slice of clean val"
    )
    val_split: str = _key(
        "clean_val", one_of("clean_val", "clean_train", "none"), "clean list that picks the best model, never test"
    )
    min_reply_fraction: float = _key(
        0.5, interval(0, 1), "share of the sampled clients that must give a usable reply, or the run stops"
    )
    round_timeout: float = _key(
        0.0,
        interval(0, float("inf")),
        "seconds after which a round goes on without the clients that are late; 0: never",
    )
    strategy: str = _key(
        "auto",
        ANY_TEXT,
        "how the server aggregates: a name in docs/strategies.md, or `module:Class`; `auto`: the method's own, mostly"
        " fedavg",
    )
    strategy_args: str = _key("", ANY_TEXT, "its parameters, `key=value` pairs; docs/strategies.md lists them")
    privacy: str = _key(
        "none",
        one_of("none", "server-fixed", "server-adaptive", "client-fixed", "client-adaptive"),
        "differential privacy of the global model: who clips updates, at which norm",
    )
    privacy_args: str = _key("", ANY_TEXT, "its parameters, `key=value` pairs; docs/strategies.md lists them")
    method: str = _key("ce", ANY_TEXT, "how clients learn from noisy labels: a name in docs/methods.md")
    method_args: str = _key("", ANY_TEXT, "its parameters, `key=value` pairs; docs/methods.md lists them")
    model: str = _key(
        "resnet50",
        one_of("cnn", "resnet18", "resnet34", "resnet50"),
        "torchvision architecture; `cnn`: a tiny one for quick trials",
    )
    pretrained: str = _key(
        "none",
        Rule(
            "none, imagenet, or the absolute path of a .safetensors, .pt or .pth file",
            lambda value: (
                value in ("none", "imagenet")
                or (Path(value).suffix in (".safetensors", ".pt", ".pth") and Path(value).expanduser().is_absolute())
            ),
        ),
        "initial weights: `none`, `imagenet`, or a `.safetensors`, `.pt` or `.pth` file",
    )
    image_size: int = _key(
        48, Rule("a whole number from 16 to 1024", lambda value: 16 <= value <= 1024), "side of the input in pixels"
    )
    train_split: str = _key(
        "noisy", one_of("noisy", "noisy-mini", "clean"), "which images clients hold; `noisy-mini`: a fixed tenth"
    )
    augmentation: str = _key(
        "none",
        one_of("none", "flip", "crop-flip", "flip-jitter", "crop-flip-jitter"),
        "random crop out of an image 8/7 the size, flip, colour jitter",
    )
    normalization: str = _key("imagenet", one_of("imagenet", "clothing1m"), "whose channel mean and deviation")
    local_epochs: int = _key(1, at_least(1), "passes of a client over its images in one visit")
    batch_size: int = _key(16, at_least(1), "images per step")
    drop_last: bool = _key(True, ANY_TEXT, "leave out an epoch's incomplete last batch")
    learning_rate: float = _key(0.004, interval(0, float("inf"), open_low=True), "of SGD, constant")
    momentum: float = _key(0.9, interval(0, 1, open_high=True), "of SGD, within one visit")
    weight_decay: float = _key(5e-4, interval(0, float("inf")), "of SGD")
    precision: str = _key(
        "auto",
        one_of("auto", "fp32", "tf32", "bf16", "fp16"),
        "autocast; `auto`: bf16 where the hardware has it; `tf32`: fp32 whose products a GPU rounds to 10 bits",
    )
    autotune: bool = _key(
        True,
        ANY_TEXT,
        "let cuDNN try which convolutions are fastest on this GPU; they may change last bits of a result",
    )
    compile: bool = _key(False, ANY_TEXT, "`torch.compile` the model on clients; needs a C++ compiler there")
    payload: str = _key(
        "fp32", one_of("fp32", "bf16", "fp16"), "numbers that travel; bf16 and fp16 send half the bytes, both ways"
    )
    partition: str = _key("iid", ANY_TEXT, "how images are dealt to clients")
    partition_args: str = _key("", ANY_TEXT, 'its parameters, for instance `"alpha=0.5"`')
    label_noise: str = _key("none", ANY_TEXT, "wrong labels on top of the released ones")
    label_noise_args: str = _key(
        "", ANY_TEXT, "its level: one rate, one that grows from client to client, or one for each of some clients"
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _checked(field, getattr(self, field.name)))

    def to_flat(self) -> dict[str, Value]:
        """The config under its kebab-case keys, as it is saved and sent."""
        return {_kebab(name): value for name, value in dataclasses.asdict(self).items()}

    @classmethod
    def from_flat(cls, values: Mapping[str, Any]) -> "RunConfig":
        """Build from kebab-case keys; keys that are left out keep their defaults.

        Raises:
            ConfigError: An unknown key or a bad value.
        """
        known = {_kebab(field.name): field.name for field in dataclasses.fields(cls)}
        for key in values:
            if key not in known:
                raise ConfigError(f"run config: there is no key '{key}'; known keys are {', '.join(known)}.")
        return cls(**{known[key]: value for key, value in values.items()})


def resolve(
    overrides: Mapping[str, Any], defaults: Mapping[str, Any] | None = None, presets: Path = PRESETS
) -> RunConfig:
    """`defaults` (pyproject.toml's), then the preset, then `overrides` (what the user set, and nothing else).

    Raises:
        ConfigError: An unknown preset or key, or a bad value.
    """
    fused = {**(defaults or {}), **overrides}
    name = fused.get("preset", "")
    if not name:
        return RunConfig.from_flat(fused)
    available = {path.stem: path for path in sorted(presets.glob("*.toml"))}
    if name not in available:
        raise ConfigError(f"run config: 'preset' is {name!r}; it must be one of {', '.join(available)}.")
    preset = tomllib.loads(available[name].read_text(encoding="utf-8"))
    return RunConfig.from_flat({**fused, **preset, **overrides})


def parse_args(key: str, text: str) -> dict[str, Any]:
    """Read the `key=value` pairs of an ``*-args`` string; values are TOML, names may use hyphens.

    Args:
        key: The run-config key that holds `text`, for the error message.
        text: For instance ``"alpha=0.5 min-size=10"``.

    Returns:
        Python names (``min_size``) to values.
    """
    try:
        return parse_pairs(text)
    except ValueError as error:
        raise ConfigError(
            f"run config: '{key}' is {text!r}; it must be key=value pairs with TOML values, such as"
            f" \"alpha=0.5 name='text'\" ({error})."
        ) from None


def build_named(key: str, table: Mapping[str, Callable[..., Any]], name: str, args_text: str) -> Any:
    """Make what `key` names: ``table[name]`` called with the pairs of ``<key>-args``.

    Raises:
        ConfigError: An unknown name or parameter (the known ones are listed), or a value that the callable refuses.
    """
    if name not in table:
        raise ConfigError(f"run config: '{key}' is {name!r}; it must be one of {', '.join(sorted(table))}.")
    args = parse_args(f"{key}-args", args_text)
    known = inspect.signature(table[name]).parameters
    for argument in args:
        if argument not in known:
            allowed = ", ".join(map(_kebab, known)) or "none"
            raise ConfigError(f"run config: '{key}-args' names {_kebab(argument)!r}; {name} takes {allowed}.")
    try:
        return table[name](**args)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"run config: '{key}-args' is {args_text!r}; {name} refuses it: {error}.") from None


def rounds_of(share: float, rounds: int, num_rounds: int) -> int:
    """How many rounds a phase takes: `rounds`, or if that is negative, `share` of the run's, rounded half up.

    Papers give such lengths in rounds of their own protocol; as a share they fit runs of any length.
    """
    return rounds if rounds >= 0 else int(share * num_rounds + 0.5)


def _kebab(name: str) -> str:
    return name.replace("_", "-")


def _checked(field: dataclasses.Field[Any], value: Any) -> Value:
    """`value` in the field's type, or a ConfigError that says what is allowed."""
    rule: Rule = field.metadata["rule"]
    wanted = type(field.default)
    if wanted is float and type(value) is int:
        value = float(value)
    if type(value) is not wanted or not rule.holds(value):
        allowed = "true or false" if wanted is bool else rule.allowed
        raise ConfigError(f"run config: '{_kebab(field.name)}' is {value!r}; it must be {allowed}.")
    return cast(Value, value)
