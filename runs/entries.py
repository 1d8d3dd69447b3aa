"""What a table or a page is made of: runs, each under the label of its line."""

from dataclasses import dataclass

from runs.run import Run


@dataclass(frozen=True)
class Entry:
    """A run in a table.

    Attributes:
        label: Of its line. Runs of one label are the same experiment, each with another seed.
        run: What it left behind.
        setting: Title of the part of the table that it belongs to; empty: derived from its data and partition.
        reference: Whether it is shown beside the others although it is not comparable by design, such as training on
            true labels.
        trials: How many settings were tried before this one was chosen; None if nobody said.
    """

    label: str
    run: Run
    setting: str = ""
    reference: bool = False
    trials: int | None = None
