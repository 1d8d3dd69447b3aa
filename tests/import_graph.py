"""Which package of the app imports which, read from the code without running it.

    python -m tests.import_graph [--mermaid]

A package is a folder at the top, or task.py. The command prints one line for each, from the top layer down, or the
arrows of the picture in docs/architecture.md.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
# From the bottom up: a package may import those before it. A new package needs a place here.
LAYERS = (
    "data", "deploy", "config", "models", "task", "messages", "simulation", "learning", "methods", "client_app",
    "server_app", "runs", "experiments", "probe", "benchmarks",
)  # fmt: skip
OUTSIDE = frozenset({"tests", "docs", "custom"})  # may import all; none of the app imports them by name


@dataclass(frozen=True, order=True)
class Arrow:
    """One import statement that names a module.

    Attributes:
        package: The package that it stands in.
        target: The first part of what it imports: a package of ours, or one from elsewhere.
        file: Below the top folder.
        line: From 1.
        module: The dotted name in full.
    """

    package: str
    target: str
    file: str
    line: int
    module: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def packages(root: Path = ROOT) -> list[str]:
    """The top folders that hold Python files, and the modules beside them; those that are outside are left out."""
    folders = {path.parent.name for path in root.glob("*/*.py")} | {path.stem for path in root.glob("*.py")}
    return sorted(name for name in folders - OUTSIDE if name.isidentifier() and name != "build")


def arrows(root: Path = ROOT) -> list[Arrow]:
    """Every absolute import of every package, also those inside functions; relative ones stay in their package."""
    found = []
    for package in packages(root):
        files = (
            [root / f"{package}.py"] if (root / f"{package}.py").is_file() else sorted((root / package).rglob("*.py"))
        )
        for file in files:
            name = file.relative_to(root).as_posix()
            for line, module in imported(file.read_text(encoding="utf-8")):
                if (target := module.split(".")[0]) != package:
                    found.append(Arrow(package, target, name, line, module))
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
    """What each package imports of the others, from the top layer down; one without a layer comes first."""
    found, known = arrows(root), packages(root)
    order = sorted(known, key=lambda package: LAYERS.index(package) if package in LAYERS else len(LAYERS), reverse=True)
    return {package: {arrow.target for arrow in found if arrow.package == package} & {*known} for package in order}


def picture(imports: dict[str, set[str]]) -> list[str]:
    """The arrows that do not follow from others, as lines of a Mermaid flowchart."""

    def below(package: str) -> set[str]:
        return imports[package].union(*map(below, imports[package]))

    lines = []
    for package, targets in imports.items():
        direct = targets - {far for target in targets for far in below(target)}
        if direct:
            lines.append(f"{package} --> {' & '.join(sorted(direct))}")
    return lines


def main() -> None:
    if sys.argv[1:] == ["--mermaid"]:
        print("\n".join(picture(graph())))
        return
    for package, targets in graph().items():
        print(f"{package:<11}", " ".join(sorted(targets)) or "-")


if __name__ == "__main__":
    main()
