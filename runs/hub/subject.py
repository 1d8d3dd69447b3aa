"""The model that a folder is about, with what its run's folder says of it."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from config.architectures import ARCHITECTURES, TIMM
from config.run_config import Value
from data.arguments import parse_pairs
from data.text import label
from models.outside import lines_that_build
from runs.model.opened import OpenedModel
from runs.run import Run
from server_app.files import BEST
from server_app.run_record import RunRecord
from task import networks_of

NO_RECORD = RunRecord("", "", "")


@dataclass(frozen=True)
class Subject:
    """A model and its run.

    Attributes:
        opened: The model.
        run: None if nothing is known but the file.
    """

    opened: OpenedModel
    run: Run | None

    @property
    def name(self) -> str:
        return self.run.name if self.run else self.opened.path.stem

    @property
    def architecture(self) -> str:
        return self.opened.facts.architecture

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.opened.facts.class_names

    @property
    def round(self) -> int:
        return self.opened.facts.round

    @property
    def is_best(self) -> bool:
        """Whether it was picked among the rounds of its run."""
        return self.opened.path.name == BEST

    @property
    def config(self) -> dict[str, Value]:
        """The run's; empty if unknown."""
        return self.run.config if self.run else {}

    @property
    def record(self) -> RunRecord:
        """The run's; its texts are empty if unknown."""
        return (self.run.record if self.run else None) or NO_RECORD

    def line(self, lag: int = 0) -> dict[str, Any]:
        """What metrics.jsonl says of the model's round, or of one that is so much later; empty if nothing."""
        lines = self.run.rounds if self.run else []
        return next((line for line in lines if line["round"] == self.round + lag), {})

    @property
    def is_timms(self) -> bool:
        """Whether timm alone can load it: two networks are no model of its."""
        return self.architecture.startswith(TIMM) and self.opened.facts.networks == 1

    @property
    def library(self) -> str:
        """That builds the network."""
        if self.architecture.startswith(TIMM):
            return "timm"
        return "torch" if self.architecture not in ARCHITECTURES or self.architecture == "cnn" else "torchvision"

    @cached_property
    def lines_that_build(self) -> str:
        """Python that builds one network: this version's, since a file may say anything."""
        sized = any(getattr(network, "takes_size", False) for network in networks_of(self.opened.model))
        facts = self.opened.facts
        return lines_that_build(
            self.architecture, len(self.class_names), facts.image_size, takes_size=sized, small_stem=facts.small_stem
        )

    def setting(self, key: str) -> str:
        """A setting with its parameters, ``dirichlet (alpha=0.5)``, as plain text; empty if unknown.

        Paths of the machine that it ran on are left out.
        """
        if key not in self.config:
            return ""
        value = self.config[key]
        chosen = ("true" if value else "false") if isinstance(value, bool) else _without_path(str(value))
        args = _without_paths(str(self.config.get(f"{key}-args", "")))
        return f"{chosen} ({args})" if args else chosen


def _without_path(value: str) -> str:
    return "a file" if value.startswith(("/", "~")) else label(value)


def _without_paths(args: str) -> str:
    """Pairs in one order, with "a file" for each path."""
    try:
        pairs = sorted(parse_pairs(args).items())
    except ValueError:
        return ""
    return ", ".join(
        f"{key.replace('_', '-')}={'a file' if key == 'path' else _without_path(str(value))}" for key, value in pairs
    )
