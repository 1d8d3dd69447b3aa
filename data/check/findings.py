"""What a check finds: problems, which make a release unfit as it is, and notes, which one should know."""

from dataclasses import dataclass, field
from pathlib import Path

# In the order in which they are told. Notes are no reason to fail: loaders cope with them, or the release is so.
PROBLEMS = (
    "count",
    "malformed line",
    "label out of range",
    "key without label",
    "duplicate key",
    "key in two lists",
    "missing image",
    "wrong folder level",
    "zero-byte image",
    "truncated image",
    "unreadable image",
)
NOTES = (
    "other data",
    "non-RGB image",
    "stray file",
    "unlisted file",
    "same bytes as a test image",
    "same bytes",
)
SHOWN = 3  # of each kind in a summary; the file has all


@dataclass
class Findings:
    """Findings by kind, each a subject (a key, a file and line) and a detail."""

    found: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    def add(self, kind: str, subject: str, detail: str) -> None:
        if kind not in PROBLEMS + NOTES:
            raise ValueError(f"there is no kind {kind!r}")
        self.found.setdefault(kind, []).append((subject, detail))

    @property
    def num_problems(self) -> int:
        return sum(len(self.found.get(kind, [])) for kind in PROBLEMS)

    def summary(self) -> list[str]:
        """Lines for people: every kind with its number and the first few of it."""
        lines = []
        for kind in (*PROBLEMS, *NOTES):
            entries = self.found.get(kind, [])
            if not entries:
                continue
            lines.append(f"{'note' if kind in NOTES else 'PROBLEM'}  {kind}: {len(entries):,}")
            lines += [f"    {subject}: {detail}" for subject, detail in entries[:SHOWN]]
            if len(entries) > SHOWN:
                lines.append("    ...")
        return lines

    def write(self, path: Path) -> None:
        """One finding a line: kind, subject, detail, separated by tabs; problems first."""
        with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
            for kind in (*PROBLEMS, *NOTES):
                for subject, detail in sorted(self.found.get(kind, [])):
                    file.write(f"{kind}\t{subject}\t{detail}\n")
