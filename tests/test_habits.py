"""The files around the code: Makefile, GitHub's own, citation."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TARGETS = ["help", "setup", "fast", "test", "lint", "docs", "run"]
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(*arguments: str) -> str:
    done = subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def readme_line(mark: str) -> str:
    """The shell line that follows a mark in the README, as .ci/run finds it."""
    return README.split(f"<!-- {mark} -->\n```bash\n")[1].split("\n")[0]


@needs_make
def test_make_alone_lists_every_target() -> None:
    assert re.findall(r"^  (\w+) +\w", make(), re.MULTILINE) == TARGETS


@needs_make
@pytest.mark.parametrize("target", TARGETS)
def test_make_knows_what_each_target_does(target: str) -> None:
    assert make("-n", target)


@needs_make
def test_make_test_is_the_readmes_line_without_installing() -> None:
    install, rest = readme_line("tests").split(" && ", 1)
    assert install == 'pip install -e ".[dev]"'
    assert rest in make("-n", "test").splitlines()
    assert install in make("-n", "setup").splitlines()


@needs_make
def test_make_run_is_the_readmes_first_run() -> None:
    assert readme_line("run").rsplit(" && ", 1)[1] in make("-n", "run").splitlines()


@needs_make
def test_make_says_what_to_do_without_an_environment(tmp_path: Path) -> None:
    command = ["make", f"VENV={tmp_path}", "fast"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode != 0
    assert "run 'make setup' first" in done.stderr


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("github-workflows", [*GITHUB.glob("workflows/*.yml")]),
        ("github-issue-forms", [*GITHUB.glob("ISSUE_TEMPLATE/*_*.yml")]),
        ("github-issue-config", [GITHUB / "ISSUE_TEMPLATE" / "config.yml"]),
        ("citation-file-format", [ROOT / "CITATION.cff"]),
    ],
)
def test_files_are_valid_by_their_schema(schema: str, files: list[Path]) -> None:
    """Schemas that come with check-jsonschema, so that no network is needed."""
    assert files
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    done = subprocess.run([*command, *map(str, files)], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ci_runs_on_every_python_that_pyproject_names() -> None:
    workflow = yaml.safe_load((GITHUB / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    job = workflow["jobs"]["test"]
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert job["strategy"]["matrix"]["python"] == named
    assert job["steps"][-1]["run"].endswith(".ci/run")


def test_the_version_is_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["title"] == PROJECT["name"]
    assert citation["license"] == PROJECT["license"]
    assert citation["version"] == PROJECT["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\n## {PROJECT['version']} - {citation['date-released']}\n" in changelog


def test_contributing_says_what_each_dependency_is_for() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.split("## Dependencies")[1].split("\n## ")[0]
    rows = [row.split(",") for row in re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)[1:]]
    listed = {name.strip() for row in rows for name in row}
    wanted = [
        *PROJECT["dependencies"],
        *(line for extra in PROJECT["optional-dependencies"].values() for line in extra),
    ]
    assert listed >= {line.split(">")[0] for line in wanted}
