"""What one must know to use a trained model: kept with its weights, as metadata of `model.safetensors`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from config.normalization import MEASURED, normalization_of
from config.rules import is_encodable
from config.run_config import RunConfig, problem_of
from config.stems import SMALL, has_small_stem
from config.stems import stem_of as stem_of_run
from data.normalization import NORMALIZATIONS, Normalization, Triple
from data.sealed import DamagedError
from models.outside import lines_that_build, stem_of
from task import HEADS, Heads, networks_of

RESIZE = "both sides to image-size, bilinear, antialiased; RGB from 0 to 1; then minus mean, divided by deviation"
NEEDED = ("class-names", "model", "image-size", "normalization")  # what every version has written


@dataclass(frozen=True)
class ModelFacts:
    """What a model is, and what it wants as input.

    Attributes:
        architecture: The network's name, as `model` in the run config.
        class_names: In the order of the outputs.
        image_size: Side of the input in pixels; both sides of a photo are resized to it.
        normalization: Its name, as in the run config.
        mean: Of each channel, on inputs from 0 to 1; it is subtracted first.
        deviation: Of each channel; what is left is divided by it.
        method: With which it was trained.
        networks: How many there are; several answer together with the mean of their probabilities.
        heads: Names and outputs of the method's further heads, which no answer needs.
        round: After which these are the weights; 0 if unknown.
        build: Python that builds one network without this app; empty if unknown.
        stem: Its first layers in words, where the same name often means others; else empty.
        small_stem: Whether they are those for small images, see `config.stems`.
    """

    architecture: str
    class_names: tuple[str, ...]
    image_size: int
    normalization: str
    mean: Triple
    deviation: Triple
    method: str = ""
    networks: int = 1
    heads: Heads = ()
    round: int = 0
    build: str = ""
    stem: str = ""
    small_stem: bool = False

    @classmethod
    def of(
        cls, config: RunConfig, class_names: tuple[str, ...], model: nn.Module | None = None, server_round: int = 0
    ) -> "ModelFacts":
        """Those of a run's model; without one, of a single network without further heads."""
        networks = networks_of(model) if model is not None else []
        sized = any(getattr(network, "takes_size", False) for network in networks)
        small = stem_of_run(config) == SMALL
        build = lines_that_build(config.model, len(class_names), config.image_size, takes_size=sized, small_stem=small)
        mean, deviation = normalization_of(config)
        return cls(
            config.model,
            tuple(class_names),
            config.image_size,
            config.normalization,
            mean,
            deviation,
            config.method,
            max(1, len(networks)),
            _heads(networks[0]) if networks else (),
            server_round,
            build,
            stem_of(config.model, small),
            small,
        )

    @property
    def numbers(self) -> Normalization:
        """By which inputs are normalised."""
        return Normalization(self.mean, self.deviation)

    def to_metadata(self) -> dict[str, str]:
        """Texts by name, as safetensors keeps them; lists as JSON."""
        known = {
            "class-names": json.dumps(self.class_names, ensure_ascii=False),
            "model": self.architecture,
            "image-size": str(self.image_size),
            "resize": RESIZE,
            "normalization": self.normalization,
            "mean": json.dumps(self.mean),
            "deviation": json.dumps(self.deviation),
            "method": self.method,
            "round": str(self.round),
            "networks": str(self.networks),
            "further-heads": json.dumps(dict(self.heads), ensure_ascii=False) if self.heads else "",
            "build": self.build,
            "stem": self.stem,
            "small-stem": "true" if self.small_stem else "",
        }
        return {name: text for name, text in known.items() if text}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], names: frozenset[str] = frozenset()) -> "ModelFacts":
        """Read what `to_metadata` wrote, or what earlier versions did, which wrote less.

        Args:
            metadata: Of a file.
            names: Of its tensors, which say of older files how many networks there are.

        Raises:
            DamagedError: Something needed is missing, or is not what it must be.
        """
        if missing := [name for name in NEEDED if not metadata.get(name)]:
            raise DamagedError(f"does not say how to use it: its metadata lacks {', '.join(map(repr, missing))}")
        size = _number(metadata, "image-size")
        known = {"model": metadata["model"], "image-size": size, "normalization": metadata["normalization"]}
        for key, value in known.items():
            if problem := problem_of(key, value):
                raise DamagedError(
                    f"cannot be used by this version: {problem.removeprefix('run config: ').rstrip('.')}"
                )
        mean, deviation = _numbers(metadata)
        pairs = _json(metadata, "further-heads") if "further-heads" in metadata else {}
        if not isinstance(pairs, dict) or not all(type(outputs) is int for outputs in pairs.values()):
            raise DamagedError("has metadata whose 'further-heads' are no numbers by name")
        of_names = 1 + max((int(name.split(".")[1]) for name in names if _is_of_several(name)), default=0)
        return cls(
            metadata["model"],
            _class_names(metadata),
            size,
            metadata["normalization"],
            mean,
            deviation,
            metadata.get("method", ""),
            _number(metadata, "networks") if "networks" in metadata else of_names,
            tuple(pairs.items()),
            _number(metadata, "round") if "round" in metadata else 0,
            metadata.get("build", ""),
            metadata.get("stem", ""),
            _small_stem(metadata),
        )


def _numbers(metadata: Mapping[str, str]) -> Normalization:
    """Those of a known name, which a file may repeat; those that were measured are in the file alone."""
    given = {name: _json(metadata, name) for name in Normalization._fields if name in metadata}
    if metadata["normalization"] == MEASURED:
        try:
            return Normalization.of(given)
        except ValueError as error:
            raise DamagedError(f"has metadata by which no input can be normalised: {error}") from None
    known = NORMALIZATIONS[metadata["normalization"]]
    for name, value in given.items():
        if value != list(getattr(known, name)):
            raise DamagedError(f"has a {name} that is not that of its normalization {metadata['normalization']!r}")
    return known


def _heads(network: nn.Module) -> Heads:
    heads = getattr(network, HEADS, None)
    return tuple((name, layer.out_features) for name, layer in heads.items()) if heads is not None else ()


def _small_stem(metadata: Mapping[str, str]) -> bool:
    """Files of earlier versions do not say, and have none."""
    said = metadata.get("small-stem", "")
    if said not in ("", "true"):
        raise DamagedError(f"has metadata whose 'small-stem' is {said[:40]!r}, which must be true or missing")
    if said and not has_small_stem(metadata["model"]):
        raise DamagedError(f"has metadata whose 'small-stem' is true, but a {metadata['model']} has none")
    return bool(said)


def _is_of_several(name: str) -> bool:
    """Whether a tensor's name is that of one of several networks, see `task.Networks`."""
    first, _, rest = name.partition(".")
    return first == "networks" and rest.partition(".")[0] in ("0", "1")


def _number(metadata: Mapping[str, str], name: str) -> int:
    text = metadata[name]
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise DamagedError(f"has metadata whose {name!r} is {text[:40]!r}, which is no whole number")
    return int(text)


def _class_names(metadata: Mapping[str, str]) -> tuple[str, ...]:
    names = _json(metadata, "class-names")
    if not isinstance(names, list) or not all(isinstance(name, str) and is_encodable(name) for name in names):
        raise DamagedError("has metadata whose 'class-names' are no list of names")
    if not names:
        raise DamagedError("has metadata whose 'class-names' are none")
    return tuple(names)


def _json(metadata: Mapping[str, str], name: str) -> Any:
    try:
        return json.loads(metadata[name])
    except (ValueError, RecursionError):
        raise DamagedError(f"has metadata whose {name!r} is no JSON") from None
