"""Which room of the app imports which, read from the code without running it.

    python -m tests.import_graph

A room is a folder at the top, or task.py. The command prints one line for each, from the top layer down.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
# From the bottom up: a room may import those before it. A new room needs a place here.
LAYERS = (
    "data", "deploy", "config", "task", "messages", "simulation", "learning", "methods", "client_app", "server_app",
    "probe", "benchmarks",
)  # fmt: skip
OUTSIDE = frozenset({"tests", "docs"})  # may import all; what is measured or documented is no part of the app


@dataclass(frozen=True, order=True)
class Arrow:
    """One import statement that names a module.

    Attributes:
        room: The room that it stands in.
        target: The first part of what it imports: a room, or a package from elsewhere.
        file: Below the top folder.
        line: From 1.
        module: The dotted name in full.
    """

    room: str
    target: str
    file: str
    line: int
    module: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def rooms(root: Path = ROOT) -> list[str]:
    """The top folders that hold Python files, and the modules beside them; those that are outside are left out."""
    folders = {path.parent.name for path in root.glob("*/*.py")} | {path.stem for path in root.glob("*.py")}
    return sorted(name for name in folders - OUTSIDE if name.isidentifier() and name != "build")


def arrows(root: Path = ROOT) -> list[Arrow]:
    """Every absolute import of every room, also those inside functions; relative ones stay in their room."""
    found = []
    for room in rooms(root):
        files = [root / f"{room}.py"] if (root / f"{room}.py").is_file() else sorted((root / room).rglob("*.py"))
        for file in files:
            name = file.relative_to(root).as_posix()
            for line, module in imported(file.read_text(encoding="utf-8")):
                if (target := module.split(".")[0]) != room:
                    found.append(Arrow(room, target, name, line, module))
    return found


def imported(source: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of what each import statement of a file names."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module


def main() -> None:
    found, known = arrows(), rooms()
    for room in sorted(known, key=lambda room: LAYERS.index(room) if room in LAYERS else len(LAYERS), reverse=True):
        targets = {arrow.target for arrow in found if arrow.room == room} & {*known}
        print(f"{room:<11}", " ".join(sorted(targets)) or "-")


if __name__ == "__main__":
    main()
