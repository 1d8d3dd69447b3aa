"""docs/settings.md and pyproject.toml say of the keys what `RunConfig` has, and a command writes it there."""

import dataclasses
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from config.named import parse_args
from config.resolve import resolve
from config.run_config import RunConfig
from config.settings import GROUPS, ROOT, WIDTH, WRITTEN, Key, differences, keys_of, main

PAGE = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
DEFAULTS = tomllib.loads(PYPROJECT)["tool"]["flwr"]["app"]["config"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with copies of the two files."""
    (tmp_path / "docs").mkdir()
    for name in WRITTEN:
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def _change(checkout: Path, name: str, old: str, new: str) -> None:
    text = (checkout / name).read_text(encoding="utf-8")
    assert text.count(old) == 1
    (checkout / name).write_text(text.replace(old, new), encoding="utf-8")


def test_both_files_are_what_the_command_writes() -> None:
    """`python -m config.settings --write` makes it so."""
    assert differences() == []


def test_keys_and_defaults_equal_pyproject() -> None:
    assert RunConfig().to_flat() == DEFAULTS
    assert list(RunConfig().to_flat()) == list(DEFAULTS)


def test_the_settings_page_lists_every_key_once_with_its_default_and_the_readme_ten_of_them() -> None:
    def rows(text: str) -> list[tuple[str, str]]:
        return re.findall(r"^\| `([a-z-]+)` \| `([^`]*)` \|", text, re.MULTILINE)

    groups = re.findall(r"^<!-- settings:(\w+) -->\n(.*?)^<!-- /settings:\1 -->$", PAGE, re.MULTILINE | re.DOTALL)
    assert [name for name, _ in groups] == list(GROUPS)
    listed = [row for _, table in groups for row in rows(table)]
    assert listed == [(key, _shown(value)) for key, value in DEFAULTS.items()]
    ten = rows((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(ten) == 10
    assert set(ten) <= set(listed)


def _shown(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


def test_what_the_settings_page_sets_is_allowed() -> None:
    examples = re.findall(r"^\| [a-z][^|]* \| `([a-z-]+=[^`]*)` \|$", PAGE, re.MULTILINE)
    assert len(examples) == 11
    for example in examples:
        assert resolve({key.replace("_", "-"): value for key, value in parse_args("-c", example).items()})


@pytest.mark.parametrize("key", keys_of(), ids=lambda key: key.name)
def test_a_meaning_is_one_sentence_that_fits_a_cell_of_a_table(key: Key) -> None:
    for text in (key.meaning, key.allowed):
        assert text
        assert not re.search(r"[|\n]|[.!?] [A-Z]|\.$", text)
        assert text.count("`") % 2 == 0


def test_comments_in_pyproject_have_neither_links_nor_long_lines() -> None:
    table = PYPROJECT.split("[tool.flwr.app.config]\n")[1].split("\n[")[0]
    assert re.findall(r"^# (\w+)\. ", table, re.MULTILINE) == [group.capitalize() for group in GROUPS]
    assert not re.search(r"\]\(|`", table)
    assert max(map(len, table.splitlines())) <= WIDTH


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("docs/settings.md", "| `momentum` | `0.9` |", "| `momentum` | `0.8` |"),
        (
            "docs/settings.md",
            "\n| `seed` | `1` | every random draw derives from it | a whole number of at least 0 |",
            "",
        ),
        ("pyproject.toml", "momentum = 0.9 ", "momentum = 0.8 "),
        ("pyproject.toml", "momentum of SGD", "impetus of SGD"),
    ],
)
def test_check_names_what_differs_and_write_puts_it_right(
    checkout: Path, capsys: pytest.CaptureFixture[str], name: str, old: str, new: str
) -> None:
    _change(checkout, name, old, new)
    changed = (checkout / name).read_text(encoding="utf-8")
    assert main(["--check"], checkout) == 1
    said = capsys.readouterr()
    assert name in said.out
    assert ("seed" if "seed" in old else "momentum") in said.out
    assert "--write" in said.err
    assert (checkout / name).read_text(encoding="utf-8") == changed
    for _ in range(2):
        assert main(["--write"], checkout) == 0
        for file in WRITTEN:
            assert (checkout / file).read_bytes() == (ROOT / file).read_bytes()
    assert main(["--check"], checkout) == 0


def test_the_rest_of_both_files_stays(checkout: Path) -> None:
    _change(checkout, "docs/settings.md", "# Settings\n", "# Settings\n\nOurs.\n")
    _change(checkout, "pyproject.toml", "[tool.ruff]\n", "[tool.ours]\nkey = [\n    1,\n]\n\n[tool.ruff]\n")
    before = [(checkout / name).read_bytes() for name in WRITTEN]
    assert main(["--write"], checkout) == 0
    assert [(checkout / name).read_bytes() for name in WRITTEN] == before


@pytest.mark.parametrize(
    ("name", "old", "sentence"),
    [
        ("docs/settings.md", "<!-- /settings:run -->", r"docs/settings\.md: it must have lines <!-- settings:run -->"),
        ("pyproject.toml", "[tool.flwr.app.config]", r"pyproject\.toml: it must have \[tool\.flwr\.app\.config\] once"),
    ],
)
def test_a_file_without_a_place_is_named(
    checkout: Path, capsys: pytest.CaptureFixture[str], name: str, old: str, sentence: str
) -> None:
    _change(checkout, name, old, "")
    assert main(["--write"], checkout) == 1
    assert re.match(sentence, capsys.readouterr().err)


def test_a_group_that_there_is_not_is_named() -> None:
    field = dataclasses.field(default=1, metadata={**RunConfig.__dataclass_fields__["seed"].metadata, "group": "luck"})
    odd = dataclasses.make_dataclass("Odd", [("dice", int, field)], bases=(RunConfig,), frozen=True)
    with pytest.raises(ValueError, match=r"the group of 'dice' is 'luck'; it must be one of run, data, "):
        keys_of(odd)


def test_the_config_needs_neither_pytorch_nor_numpy() -> None:
    script = "import sys, config.settings; print(*(name.split('.')[0] for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "flwr", "ray"} & set(done.stdout.split())
