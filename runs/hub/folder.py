"""Writes the folder: weights, `config.json` and the card."""

import json
from pathlib import Path

import safetensors.torch
from torch import Tensor

from data.whole_folders import complete_or_absent
from runs.hub.card import card
from runs.hub.config import config_of
from runs.hub.subject import Subject

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"


def write_folder(subject: Subject, out: Path) -> None:
    """Write it, as a whole or not at all.

    Args:
        subject: The model.
        out: A folder that does not exist yet, or an empty one.

    Raises:
        DataError: It is none.
    """
    metadata = {"format": "pt", **subject.opened.facts.to_metadata()}  # the first one is what others look for
    texts = {
        CONFIG: json.dumps(config_of(subject), ensure_ascii=False, indent=2) + "\n",
        CARD: card(subject),
    }
    with complete_or_absent(out) as folder:
        (folder / WEIGHTS).write_bytes(safetensors.torch.save(_plain(subject), metadata=metadata))
        for file, text in texts.items():
            (folder / file).write_text(text, encoding="utf-8")


def _plain(subject: Subject) -> dict[str, Tensor]:
    """The weights on the CPU, each in memory of its own."""
    return {name: value.cpu().contiguous().clone() for name, value in subject.opened.model.state_dict().items()}
