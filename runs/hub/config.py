"""`config.json`: how to build the network, and what it wants as input, in timm's format where timm loads it."""

from typing import Any

from config.architectures import TIMM
from runs.hub.subject import Subject

# As `data.images.decode.resize` treats a photo; timm's names for it.
RESIZING = {"interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "squash"}


def config_of(subject: Subject) -> dict[str, Any]:
    """What config.json holds."""
    return _timms(subject) if subject.is_timms else _own(subject)


def input_of(subject: Subject) -> dict[str, Any]:
    """Size, normalisation and resizing, under timm's names."""
    facts = subject.opened.facts
    size = [3, facts.image_size, facts.image_size]
    return {"input_size": size, "mean": list(facts.mean), "std": list(facts.deviation), **RESIZING}


def _timms(subject: Subject) -> dict[str, Any]:
    """What ``timm.create_model("local-dir:...", pretrained=True)`` reads."""
    network: Any = subject.opened.model
    classes = len(subject.class_names)
    known = {key: network.pretrained_cfg.get(key) for key in ("first_conv", "classifier")}
    takes_size = bool(getattr(network, "takes_size", False))
    return {
        "architecture": subject.architecture.removeprefix(TIMM).partition(".")[0],
        "num_classes": classes,
        "num_features": network.num_features,
        "label_names": list(subject.class_names),
        **({"model_args": {"img_size": subject.opened.facts.image_size}} if takes_size else {}),
        "pretrained_cfg": {
            "custom_load": False,
            **input_of(subject),
            "fixed_input_size": takes_size,
            "num_classes": classes,
            **{key: value for key, value in known.items() if value},
        },
    }


def _own(subject: Subject) -> dict[str, Any]:
    facts = subject.opened.facts
    return {
        "architecture": subject.architecture,
        "library": subject.library,
        "networks": facts.networks,
        "num_classes": len(subject.class_names),
        "label_names": list(subject.class_names),
        "image_size": facts.image_size,
        **({"small_stem": True} if facts.small_stem else {}),
        "normalization": facts.normalization,
        **input_of(subject),
    }
