"""What a check finds: problems, which make a release unfit for use, and notes, which are worth knowing."""

from dataclasses import dataclass, field
from pathlib import Path

from data.outputs import check_output

# In the order of reports. Notes do not fail a check: loaders cope with them, or the release itself is like that.
PROBLEMS = (
    "count",
    "malformed line",
    "label out of range",
    "key without label",
    "duplicate key",
    "key in two lists",
    "true label of a wrong one",
    "empty list",
    "missing image",
    "other case or suffix",
    "wrong folder level",
    "zero-byte image",
    "truncated image",
    "unreadable image",
    "refused",
)
SUSPECT = "suspect image"  # a problem in a strict check, else a note
NOTES = (
    SUSPECT,
    "missing list",
    "other data",
    "odd metadata",
    "non-RGB image",
    "stray file",
    "unlisted file",
    "unlisted key",
    "same bytes as a test image",
    "same bytes",
)
SHOWN = 3  # of each kind in a summary; the file has all


@dataclass
class Findings:
    """Findings by kind, each a subject (a key, a file and line) and a detail.

    Attributes:
        found: By kind.
        strict: Whether suspect images are problems.
    """

    found: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    strict: bool = False

    def add(self, kind: str, subject: str, detail: str) -> None:
        if kind not in PROBLEMS + NOTES:
            raise ValueError(f"there is no kind {kind!r}")
        self.found.setdefault(kind, []).append((subject, detail))

    @property
    def num_problems(self) -> int:
        return sum(len(entries) for kind, entries in self.found.items() if not self._is_note(kind))

    @property
    def num_suspects(self) -> int:
        return len(self.found.get(SUSPECT, []))

    def summary(self) -> list[str]:
        """Lines to print: each kind with its count and its first few findings."""
        lines = []
        for kind in (*PROBLEMS, *NOTES):
            entries = self.found.get(kind, [])
            if not entries:
                continue
            lines.append(f"{'note' if self._is_note(kind) else 'PROBLEM'}  {kind}: {len(entries):,}")
            lines += [f"    {subject}: {detail}" for subject, detail in entries[:SHOWN]]
            if len(entries) > SHOWN:
                lines.append("    ...")
        return lines

    def write(self, path: Path) -> None:
        """One finding a line: kind, subject, detail, separated by tabs; problems first."""
        check_output(path)
        with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
            for kind in (*PROBLEMS, *NOTES):
                for subject, detail in sorted(self.found.get(kind, [])):
                    file.write(f"{kind}\t{subject}\t{detail}\n")

    def _is_note(self, kind: str) -> bool:
        return kind in NOTES and not (self.strict and kind == SUSPECT)
