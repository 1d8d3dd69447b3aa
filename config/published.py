"""What was published under a preset's protocol: accuracies on a dataset's clean test, each with its source.

``config/presets/<preset>-published.json`` has a row for each published method, and says what the dataset and the
protocol were. A preset without numbers to compare with has no file, or one without rows.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.run_config import PRESETS

BASELINE = "ce"  # the method whose row a run gets if its own method has none


@dataclass(frozen=True)
class Published:
    """A published accuracy.

    Attributes:
        name: Of the method, as its source calls it.
        method: The app's name for it; empty if the app does not have it.
        statistic: Which accuracy of a run this is.
        source: The publication.
        table: Where in it.
        percent: One number, or that of each round from the first.
        dataset: On whose clean test.
        plus_minus: How far apart the source's runs are, in points; None if it does not say.
        plus_minus_is: By which measure.
    """

    name: str
    method: str
    statistic: str
    source: str
    table: str
    percent: tuple[float, ...]
    dataset: str
    plus_minus: float | None = None
    plus_minus_is: str = ""

    @property
    def by_round(self) -> bool:
        """Whether this is a curve."""
        return len(self.percent) > 1

    @property
    def label(self) -> str:
        """For the legend of a picture."""
        of = f"published on {self.dataset} ({self.name}, {self.statistic})"
        spread = "" if self.plus_minus is None else f" ± {self.plus_minus:.2f}"
        return of if self.by_round else f"{of}: {self.percent[0]:.2f}{spread}"

    def at(self, server_round: int) -> float:
        """What the accuracy after a round, from 1, is compared with, in percent."""
        return self.percent[min(server_round, len(self.percent)) - 1]


def published_rows(preset: str, presets: Path = PRESETS) -> list[Published]:
    """All that was published under a preset's protocol; nothing without a preset."""
    path = presets / f"{preset}-published.json"
    if not preset or not path.is_file():
        return []
    content = json.loads(path.read_text(encoding="utf-8"))
    return [_row(row, content["dataset"]) for row in content["rows"]]


def published_for(preset: str, method: str, presets: Path = PRESETS) -> Published | None:
    """What a run is compared with: its own method's row, else that of plain FedAvg, if the preset has either.

    Args:
        preset: The run's; may be empty.
        method: The run's, by name or as a class of the user's.
        presets: The folder of the files.
    """
    by_method = {row.method: row for row in published_rows(preset, presets) if row.method}
    return by_method.get(method, by_method.get(BASELINE))


def _row(row: Mapping[str, Any], dataset: str) -> Published:
    """A row under the names of `Published`."""
    values = {key.replace("-", "_"): value for key, value in row.items()}
    percent = values.pop("percent")
    percents = tuple(percent) if isinstance(percent, list) else (percent,)
    return Published(**values, percent=percents, dataset=dataset)
