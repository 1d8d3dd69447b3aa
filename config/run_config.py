"""The run config: every key of ``[tool.flwr.app.config]`` as one typed, checked, frozen object.

`config.resolve` makes it of defaults, preset and what the user set. The server does that once and sends the result
along with every message, so a client never has to guess which of its defaults the user meant.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from config import choices
from config.errors import ConfigError as ConfigError
from config.named import kebab
from config.parameters import as_type_of, fits
from config.rules import (
    MODEL,
    MOST,
    MOST_SEED,
    NAME,
    RESUMABLE,
    WEIGHTS,
    Rule,
    at_least,
    choice,
    closest,
    described,
    interval,
    name_or_class,
    path_or_empty,
    text,
    true_or_false,
)
from data.text import one_line, shown

Value = bool | int | float | str
PRESETS = Path(__file__).parent / "presets"


def _key(group: str, default: Value, rule: Rule, meaning: str) -> Any:
    """All there is to know of a key; `meaning` and the rule are Markdown, with links as from docs/settings.md."""
    return dataclasses.field(default=default, metadata={"group": group, "rule": rule, "meaning": meaning})


@dataclass(frozen=True)
class RunConfig:
    """One run, fully determined. Field `num_server_rounds` is the key `num-server-rounds`, and so on.

    After a change here `python -m config.settings --write` writes docs/settings.md and pyproject.toml anew.
    docs/adding-a-key.md adds one.
    """

    preset: str = _key(
        "run",
        "",
        replace(choice({"": "", **choices.PRESETS}), short=described(choices.PRESETS)),
        "a recipe to start from: `config/presets/<preset>.toml`; what you set yourself wins",
    )
    seed: int = _key("run", 1, at_least(0, MOST_SEED), "every random draw derives from it")
    output_dir: str = _key("run", "", path_or_empty(), "where runs are written; empty: `~/clothing1m-fl-runs`")
    run_name: str = _key("run", "", NAME, "this run's folder in `output-dir`; empty: date and time")
    resume: str = _key(
        "run",
        "",
        RESUMABLE,
        "resume a run: `auto` (the one named `run-name`, or the newest unfinished one with this config) or a path",
    )
    tracking: str = _key(
        "run",
        "none",
        choice(choices.TRACKERS),
        "experiment tracker that gets each round's metrics as well ([docs/metrics.md](metrics.md#trackers))",
    )
    num_server_rounds: int = _key("run", 14, at_least(1), "how many federated rounds to train")
    evaluate_every: int = _key(
        "run",
        1,
        replace(at_least(1), short="a whole number from 1 to `num-server-rounds`"),
        "evaluate the global model in rounds that are multiples of this, and in the last one",
    )
    patience: int = _key("run", 0, at_least(0), "end after so many rounds without better validation accuracy; 0: never")
    target_accuracy: float = _key("run", 0.0, interval(0, 1), "end once validation accuracy is this high; 0: never")
    max_hours: float = _key(
        "run", 0.0, interval(0, float("inf")), "end once the rounds, over all resumes, took so many hours; 0: never"
    )

    data_dir: str = _key(
        "data",
        "",
        path_or_empty(),
        "the dataset: a folder in Clothing1M's released layout, one with a folder of photos per class, or a pack;"
        " empty: a sample is drawn",
    )
    train_split: str = _key("data", "noisy", choice(choices.TRAIN_SPLITS), "which images the clients hold")
    test_split: str = _key(
        "data", "clean_test", choice(choices.TEST_SPLITS), "clean list on which the server tests the global model"
    )
    val_split: str = _key(
        "data",
        "clean_val",
        choice(choices.VAL_SPLITS),
        "by what the best model is picked, never test: a clean list of the server's, or what clients say"
        " ([docs/no-clean-data.md](no-clean-data.md))",
    )
    holdout_fraction: float = _key(
        "data",
        0.0,
        interval(0, 0.5),
        "share of its images that each client never trains on, and is evaluated on instead; a visit then also reports"
        " the accuracy on them before and after training",
    )
    bad_images: str = _key(
        "data",
        "refuse",
        choice(choices.BAD_IMAGES),
        "what happens to an image that is missing or damaged ([docs/running.md](running.md#damaged-images))",
    )
    partition: str = _key("data", "iid", choice(choices.PARTITIONS), "how images are dealt to clients")
    partition_args: str = _key(
        "data",
        "",
        text(
            "dirichlet, quantity: `alpha`, `min-size`; shards: `shards-per-client`; bernoulli-dirichlet: `p`, `alpha`,"
            " `min-size`; file: `path`; iid, natural: none"
        ),
        "parameters of the partition, for instance `alpha=0.5`",
    )
    label_noise: str = _key("data", "none", choice(choices.LABEL_NOISES), "wrong labels on top of the released ones")
    label_noise_args: str = _key(
        "data",
        "",
        text(
            "`rate`, the same for all clients; or `min-rate` and `max-rate`, growing from client to client; or"
            " `noisy-share` as well, then that share of the clients is noisy, each at a rate between the two; rates at"
            " least 0 and below 1, the share from 0 to 1"
        ),
        "how many labels are wrong, for instance `rate=0.4`",
    )

    num_clients: int = _key(
        "federation",
        0,
        at_least(0),
        "how many clients there must be, as in the run that is repeated; 0: as many as the federation has",
    )
    fraction_train: float = _key(
        "federation", 0.2, interval(0, 1, open_low=True), "share of the clients that train in a round"
    )
    fraction_evaluate: float = _key(
        "federation",
        0.0,
        interval(0, 1),
        "share of the clients that evaluate the global model after a round",
    )
    eval_split: str = _key("federation", "clean_val", choice(choices.EVAL_SPLITS), "on which images they do")
    inspection: str = _key(
        "federation",
        "none",
        choice(choices.INSPECTIONS),
        "which models a client applies to all of its training images in a visit, without training: for"
        ' [clients.jsonl](clients.md), label reports and `val-split = "label-wave"`',
    )
    min_reply_fraction: float = _key(
        "federation",
        0.5,
        interval(0, 1),
        "share of the sampled clients that must give a usable reply, or the run stops",
    )
    round_timeout: float = _key(
        "federation",
        0.0,
        interval(0, float("inf")),
        "seconds after which a round continues without the clients that are late; 0: never",
    )
    max_update_norm: float = _key(
        "federation",
        0.0,
        interval(0, float("inf")),
        "length of a client's update (all parameters together) above which its reply is left out; 0: no limit",
    )
    max_update_ratio: float = _key(
        "federation",
        0.0,
        Rule("0 or a number above 1", lambda value: value == 0 or 1 < value <= MOST),
        "the same as a multiple of the round's median length; the server then holds all replies of a round in memory",
    )
    strategy: str = _key(
        "federation",
        "auto",
        name_or_class("auto", *choices.STRATEGIES),
        "how the server aggregates ([docs/strategies.md](strategies.md)); `auto`: what the method calls for, mostly"
        " fedavg",
    )
    strategy_args: str = _key(
        "federation",
        "",
        text(
            "those in [docs/strategies.md](strategies.md), and for every strategy `min-train-nodes`,"
            " `min-evaluate-nodes`, `min-available-nodes`: whole numbers of at least 1"
        ),
        "parameters of the strategy, for instance `eta=0.03 min-train-nodes=2`",
    )
    privacy: str = _key(
        "federation",
        "none",
        choice(choices.PRIVACY),
        "differential privacy of the global model: who clips updates, at a fixed norm or one that adapts"
        " ([docs/strategies.md](strategies.md#differential-privacy))",
    )
    privacy_args: str = _key(
        "federation",
        "",
        text(
            "`noise-multiplier`: at least 0; fixed: `clipping-norm`: above 0; adaptive: `initial-clipping-norm`,"
            " `target-clipped-quantile`, `clip-norm-lr`, `clipped-count-stddev`"
        ),
        "parameters of `privacy`, for instance `noise-multiplier=1.0 clipping-norm=5.0`",
    )
    payload: str = _key(
        "federation", "fp32", choice(choices.PAYLOADS), "number format in which models travel, both ways"
    )

    method: str = _key(
        "method",
        "ce",
        name_or_class(*choices.METHODS),
        "how clients learn from noisy labels ([docs/methods.md](methods.md))",
    )
    method_args: str = _key(
        "method",
        "",
        text("those in [docs/methods.md](methods.md)"),
        "parameters of the method, for instance `label-smoothing=0.1`",
    )

    model: str = _key("model", "resnet50", MODEL, "the network")
    pretrained: str = _key("model", "none", WEIGHTS, "initial weights ([docs/models.md](models.md#pretrained-weights))")
    trainable: str = _key(
        "model",
        "all",
        choice(choices.TRAINABLES),
        "which weights train, and travel ([docs/models.md](models.md#heads-and-adapters))",
    )
    trainable_args: str = _key(
        "model",
        "",
        text("lora: `rank`, `alpha`, `targets`, `freeze-a`"),
        "parameters of `trainable`, for instance `rank=8`",
    )
    batchnorm: str = _key(
        "model",
        "average",
        choice(choices.BATCHNORMS),
        "BatchNorm's weights and statistics ([docs/models.md](models.md#batchnorm))",
    )
    image_size: int = _key(
        "model",
        48,
        Rule("a whole number from 16 to 1024", lambda value: 16 <= value <= 1024),
        "side of the network's square input, in pixels",
    )
    stem: str = _key(
        "model",
        "auto",
        choice(choices.STEMS),
        "first layers of a ResNet ([docs/models.md](models.md#small-images)); `auto`: small for an `image-size` of at"
        " most 32 without pretrained weights",
    )
    normalization: str = _key(
        "model",
        "imagenet",
        choice(choices.NORMALIZATIONS),
        "whose mean and deviation of each colour channel inputs are normalised by"
        " ([docs/models.md](models.md#normalisation))",
    )
    normalization_args: str = _key(
        "model",
        "",
        text("release: `mean`, `deviation`, three numbers each"),
        "parameters of `normalization`, such as `mean=[0.7, 0.65, 0.64] deviation=[0.31, 0.32, 0.32]`; empty: the"
        " server measures them",
    )

    augmentation: str = _key(
        "training", "none", choice(choices.AUGMENTATIONS), "random changes to each image that a client trains on"
    )
    local_epochs: int = _key("training", 1, at_least(1), "how often a client goes through its images in one visit")
    batch_size: int = _key("training", 16, at_least(1), "images in each training step")
    drop_last: bool = _key("training", True, true_or_false(), "leave out an epoch's incomplete last batch")
    optimizer: str = _key(
        "training",
        "sgd",
        choice(choices.OPTIMIZERS),
        "how clients step ([docs/optimizers.md](optimizers.md)); its memory starts from zero in each visit",
    )
    optimizer_args: str = _key(
        "training",
        "",
        text("sgd: `nesterov`; adamw: `beta1`, `beta2`, `eps`"),
        "parameters of the optimizer, for instance `nesterov=true`",
    )
    learning_rate: float = _key(
        "training", 0.004, interval(0, float("inf"), open_low=True), "learning rate, the same in every step of a round"
    )
    lr_schedule: str = _key(
        "training",
        "constant",
        choice(choices.LR_SCHEDULES),
        "how the learning rate falls over the run's rounds"
        " ([docs/optimizers.md](optimizers.md#the-learning-rate-of-a-round))",
    )
    lr_schedule_args: str = _key(
        "training",
        "",
        text("cosine, linear: `final`; step: `every`, `gamma`"),
        "parameters of the schedule, for instance `every=10 gamma=0.1`",
    )
    lr_warm_up: int = _key(
        "training",
        0,
        replace(at_least(0), short="a whole number of at least 0, below `num-server-rounds`"),
        "rounds in which the learning rate first climbs to its full height; 0: none",
    )
    gradient_clipping: float = _key(
        "training",
        0.0,
        interval(0, float("inf")),
        "length to which the gradient of a step, over all trained parameters of a network, is shortened; 0: never",
    )
    momentum: float = _key(
        "training",
        0.9,
        interval(0, 1, open_high=True),
        "momentum of SGD, which starts from zero in each visit; adamw ignores it",
    )
    weight_decay: float = _key(
        "training",
        5e-4,
        interval(0, float("inf")),
        "weight decay: of SGD a part of the gradient, of AdamW decoupled from it",
    )

    precision: str = _key(
        "machine",
        "auto",
        choice(choices.PRECISIONS),
        "number format in which models train, by autocast; they are evaluated in fp32",
    )
    autotune: bool = _key(
        "machine",
        True,
        true_or_false(),
        "let cuDNN try which convolutions are fastest on this GPU; the last bits of a result may change",
    )
    compile: bool = _key(
        "machine", False, true_or_false(), "`torch.compile` the model on clients, which needs a C++ compiler there"
    )
    cache_dir: str = _key(
        "machine",
        "",
        path_or_empty(),
        "where decoded images and their features are kept; empty: in the user's cache folder",
    )
    cache_gib: float = _key(
        "machine",
        8.0,
        interval(0, float("inf")),
        "GiB of decoded images and features to keep on the disk of each machine; 0: none are kept",
    )
    state_dir: str = _key(
        "machine",
        "",
        path_or_empty(),
        "where clients keep what a method remembers of their images, and BatchNorm of their own; empty: in the run's"
        " folder, on real nodes in"
        " `~/clothing1m-fl-state`",
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _checked(field, getattr(self, field.name)))

    @property
    def server_lists(self) -> dict[str, str]:
        """The clean lists on which the server evaluates, by what for: ``test``, ``validation``; perhaps none."""
        lists = {"test": self.test_split} if self.test_split != "none" else {}
        return {**lists, "validation": self.val_split} if self.val_split in choices.VAL_LISTS else lists

    def to_flat(self) -> dict[str, Value]:
        """The config under its kebab-case keys, as it is saved and sent."""
        return {kebab(name): value for name, value in dataclasses.asdict(self).items()}

    @classmethod
    def from_flat(cls, values: Mapping[str, Any]) -> "RunConfig":
        """Build from kebab-case keys; keys that are left out keep their defaults.

        Raises:
            ConfigError: An unknown key or a bad value.
        """
        known = {kebab(field.name): field.name for field in dataclasses.fields(cls)}
        for key in values:
            if key not in known:
                raise ConfigError(no_such_key(key, known))
        return cls(**{known[key]: value for key, value in values.items()})


def no_such_key(key: str, known: Iterable[str]) -> str:
    """The sentence about a key that there is not."""
    names = list(known)
    return f"run config: there is no key {shown(key)}{closest(key, names)}; known keys are {', '.join(names)}."


def problem_of(key: str, value: Any) -> str | None:
    """Why a key cannot have this value, in one sentence; None if it can."""
    return _problem(next(field for field in dataclasses.fields(RunConfig) if kebab(field.name) == key), value)


def _problem(field: dataclasses.Field[Any], value: Any) -> str | None:
    rule: Rule = field.metadata["rule"]
    if fits(value, field.default, rule):
        return None
    given = one_line(repr(value)) if isinstance(value, str) else shown(value)
    return f"run config: '{kebab(field.name)}' is {given}; it must be {rule.allowed}{closest(value, rule.names)}."


def _checked(field: dataclasses.Field[Any], value: Any) -> Value:
    """`value` in the field's type, or a ConfigError that says what is allowed."""
    if problem := _problem(field, value):
        raise ConfigError(problem)
    return cast(Value, as_type_of(field.default, value))
