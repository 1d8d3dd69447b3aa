"""Which room of the app imports which, read from the code without running it.

    python -m tests.import_graph [--mermaid]

A room is a folder at the top, or task.py. The command prints one line for each, from the top layer down, or the arrows
of the picture in docs/architecture.md.
"""

import ast
import sys
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


def graph(root: Path = ROOT) -> dict[str, set[str]]:
    """What each room imports of the others, from the top layer down; one without a layer comes first."""
    found, known = arrows(root), rooms(root)
    order = sorted(known, key=lambda room: LAYERS.index(room) if room in LAYERS else len(LAYERS), reverse=True)
    return {room: {arrow.target for arrow in found if arrow.room == room} & {*known} for room in order}


def picture(imports: dict[str, set[str]]) -> list[str]:
    """The arrows that do not follow from others, as lines of a Mermaid flowchart."""

    def below(room: str) -> set[str]:
        return imports[room].union(*map(below, imports[room]))

    lines = []
    for room, targets in imports.items():
        direct = targets - {far for target in targets for far in below(target)}
        if direct:
            lines.append(f"{room} --> {' & '.join(sorted(direct))}")
    return lines


def main() -> None:
    if sys.argv[1:] == ["--mermaid"]:
        print("\n".join(picture(graph())))
        return
    for room, targets in graph().items():
        print(f"{room:<11}", " ".join(sorted(targets)) or "-")


if __name__ == "__main__":
    main()
