"""Opens the model of a run, or a file of one: a plain network with what is needed to use it."""

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from config.run_config import ConfigError, RunConfig
from config.stems import IMAGENET, SMALL
from data.errors import DataError
from data.release import open_release
from data.sample import default_sample
from data.sealed import DamagedError
from data.text import shown
from data.user_cache import below_home
from data.whole_files import round_files
from learning.model_facts import ModelFacts
from learning.network import NetworkSpec, build
from learning.shared_state import frozen_digest, load_shared, plain_state, shared_names, shared_state
from methods import build_method
from runs.errors import RunsError
from runs.model.which import Which
from runs.run import is_run, read_run
from server_app.checkpoint_file import Checkpoint, load_checkpoint
from server_app.files import BEST, CHECKPOINTS
from task import HEADS, Compute, build_model, pick_compute

LATEST = "model.safetensors"
MOST_NETWORKS = 16  # that a file may ask to be built; an own method may have three


@dataclass(frozen=True)
class OpenedModel:
    """A trained model, ready to be applied.

    Attributes:
        model: In evaluation mode on `compute.device`: without adapters, which are merged into their weights, and
            without a method's further heads. `task.Networks` if there are several.
        facts: What it is, and what it wants as input.
        path: The file that it is from.
        compute: The device, set up as in the run, so that numbers repeat.
        config: Of its run; None of a file outside of a run's folder, or if the run's config cannot be read.
    """

    model: nn.Module
    facts: ModelFacts
    path: Path
    compute: Compute
    config: RunConfig | None = None


def open_model(run_or_file: Path, which: str = Which.LAST) -> OpenedModel:
    """Open a run's latest model, or its best; or the one in a file, a checkpoint among them.

    Args:
        run_or_file: The folder of a run, or a file.
        which: A `Which`: ``last`` is model.safetensors, ``best`` the checkpoint of the best round by validation; of a
            file, it must be the default.

    Raises:
        RunsError: There is none, it is damaged, or it is not one that this version or this machine can build.
    """
    path = _file(run_or_file, which)
    folder = next((one for one in (path.parent, path.parent.parent) if is_run(one)), None)
    config = _config(folder) if folder else None
    try:
        metadata, weights = _read(path)
        if metadata.get("format", "").startswith("clothing1m-fl checkpoint"):
            checkpoint = load_checkpoint(path)
            config = config or RunConfig.from_flat(checkpoint.config)
            facts, weights = _from_checkpoint(checkpoint, path, folder)
        else:
            facts = ModelFacts.from_metadata(metadata, frozenset(weights))
        model = _filled(facts, weights)
    except (DamagedError, ConfigError) as error:
        instead = _instead(folder) if folder and path.name == LATEST and isinstance(error, DamagedError) else ""
        raise RunsError(f"{path} {_as_predicate(error)}{instead}.") from None
    compute = _compute(config)
    return OpenedModel(model.to(compute.device).eval(), replace(facts, heads=()), path, compute, config)


def _file(run_or_file: Path, which: str) -> Path:
    if not run_or_file.is_dir():
        if which != Which.LAST:
            raise RunsError(f"{run_or_file} is no folder of a run, of whose models the {which} one could be taken.")
        return run_or_file
    read_run(run_or_file)  # it must be a run
    path = run_or_file / LATEST if which == Which.LAST else run_or_file / CHECKPOINTS / BEST
    if not path.is_file():
        late = f"it is written once a minute and when a run ends{_instead(run_or_file)}"
        why = late if which == Which.LAST else "the run has picked no best round"
        raise RunsError(f"{run_or_file} has no {path.relative_to(run_or_file)}; {why}.")
    return path


def _instead(folder: Path) -> str:
    """What else of a run can be opened, as the end of a sentence; empty if there is nothing."""
    choices = ["--model best"] if (folder / CHECKPOINTS / BEST).is_file() else []
    choices += [str(path) for path in round_files(folder / CHECKPOINTS).values()][-1:]
    return f"; instead, there is {' or '.join(choices)}" if choices else ""


def _config(folder: Path) -> RunConfig | None:
    with contextlib.suppress(RunsError, ConfigError):
        if config := read_run(folder).config:
            return RunConfig.from_flat(config)
    return None


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a file, on the CPU."""
    try:
        if not path.is_file():  # the library would wait for a pipe
            raise DamagedError("is not a file" if path.exists() else "does not exist")
        path.open("rb").close()
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise DamagedError(f"cannot be read ({error.strerror or error})") from None
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        if isinstance(error, DamagedError):
            raise
        raise DamagedError("is no safetensors file, or a damaged one") from None


def _filled(facts: ModelFacts, weights: dict[str, Tensor]) -> nn.Module:
    """A plain network with these weights.

    Raises:
        DamagedError: They are not those of such a network.
        ConfigError: This machine has not the library that it is from.
    """
    if not 1 <= facts.networks <= MOST_NETWORKS:
        raise DamagedError(f"has metadata whose 'networks' is {facts.networks}, but must be from 1 to {MOST_NETWORKS}")
    classes = len(facts.class_names)
    stem = SMALL if facts.small_stem else IMAGENET
    model = build_model(facts.architecture, classes, 0, facts.networks, image_size=facts.image_size, stem=stem)
    own = model.state_dict()
    weights = {name: value for name, value in weights.items() if HEADS not in name.split(".")}
    # Constants of an architecture, such as Swin's table of positions, may be there or not.
    for name in (*sorted(weights.keys() - own.keys()), *sorted(shared_names(model) - weights.keys())):
        what = f"{facts.networks} networks {facts.architecture}" if facts.networks > 1 else facts.architecture
        how = f"{shown(name)} is missing, of {what}" if name in own else f"there is no {shown(name)} in {what}"
        raise DamagedError(f"does not fit its metadata: {how}")
    for name, value in weights.items():
        if own[name].shape != value.shape:
            raise DamagedError(
                f"does not fit its metadata: {shown(name)} has the shape {tuple(value.shape)}, which in"
                f" {facts.architecture} for {classes} classes is {tuple(own[name].shape)}"
            )
    for name in sorted(shared_names(model)):  # constants of an architecture may be infinite
        if weights[name].is_floating_point() and not weights[name].isfinite().all():
            raise DamagedError(f"cannot be used: its weights are no finite numbers, {shown(name)} for one")
    with torch.no_grad():
        for name, value in weights.items():
            own[name].copy_(value)
    return model


def _from_checkpoint(checkpoint: Checkpoint, path: Path, folder: Path | None) -> tuple[ModelFacts, dict[str, Tensor]]:
    """The whole network of a checkpoint, which holds what travels: the frozen rest is built as in the run.

    Raises:
        ConfigError: The weights that it began from are not there.
        DamagedError: They are others; or nothing says what the classes are called.
    """
    config = RunConfig.from_flat(checkpoint.config)
    class_names = tuple(checkpoint.class_names) or _class_names(config, folder)
    model = build(NetworkSpec.of(config, build_method(config), len(class_names)).to_be_filled())
    own = {name: value.shape for name, value in shared_state(model).items()}
    if own != {name: value.shape for name, value in checkpoint.model.items()}:
        raise DamagedError(f"does not hold the weights of {config.model} for {len(class_names)} classes")
    if checkpoint.frozen != frozen_digest(model):
        raise DamagedError(
            "holds what was trained beside frozen weights, which are others now; 'pretrained' of its run must name the"
            " same weights as then, with the same versions of torch, torchvision and timm"
        )
    load_shared(model, {name: torch.from_numpy(value) for name, value in checkpoint.model.items()})
    facts = ModelFacts.of(config, class_names, model, checkpoint.server_round)
    return facts, plain_state(model)


def _class_names(config: RunConfig, folder: Path | None) -> tuple[str, ...]:
    """Of a checkpoint that has none, as earlier versions wrote them: beside its run's latest model, or in its data."""
    if folder is not None:
        with contextlib.suppress(DamagedError):
            metadata, weights = _read(folder / LATEST)
            return ModelFacts.from_metadata(metadata, frozenset(weights)).class_names
    if not config.server_lists:  # then the server may have had no data, and the names were those of its clients
        raise DamagedError(f"does not say what its classes are called, and there is no {LATEST} of its run that does")
    try:
        return open_release(below_home(config.data_dir) if config.data_dir else default_sample()).class_names
    except (DataError, OSError) as error:
        raise DamagedError(f"has no class names, nor has its run, and its data cannot be opened ({error})") from None


def _compute(config: RunConfig | None) -> Compute:
    """As the run's server had it, as far as this machine can."""
    with contextlib.suppress(ConfigError):
        if config is not None:
            return pick_compute(config.precision, config.autotune)
    return pick_compute("fp32")


def _as_predicate(error: ValueError) -> str:
    """What completes a sentence that starts with the file's name."""
    text = str(error).removeprefix("run config: ").rstrip(".")
    return text if isinstance(error, DamagedError) else f"cannot be built here: {text}"
