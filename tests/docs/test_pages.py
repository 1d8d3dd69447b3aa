"""Links lead somewhere, the index names every page, and quoted code is what the files have."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, quotes

PAGES = [
    *sorted((ROOT / "docs").rglob("*.md")),
    *(
        ROOT / name
        for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "data/README.md", "benchmarks/RESULTS.md")
    ),
]
IDS = [str(page.relative_to(ROOT)) for page in PAGES]


def _prose(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def _anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", _prose(page), re.MULTILINE)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", _prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = page
        if file:
            named = (page.parent / file).resolve().relative_to(ROOT)
            path = ROOT / named
            assert path.exists(), target
        assert not anchor or anchor in _anchors(path), target


@pytest.mark.parametrize("page", [page for page in PAGES if quotes(page)], ids=lambda page: page.name)
def test_quoted_code_is_what_the_file_has(page: Path) -> None:
    for source, code in quotes(page):
        lines = [line.strip() for line in (ROOT / source).read_text(encoding="utf-8").splitlines()]
        for line in code.strip().splitlines():
            assert line.strip() in lines, f"{source}: {line}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_name_the_number_of_clients(page: Path) -> None:
    """Flower's default of two clients trains one of them a round; a named connection has its own nodes."""
    commands = re.findall(r"^ *(?:\S+=\S+ )?flwr run \. --stream.*$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert [command for command in commands if "num-supernodes=" not in command] == []


@pytest.mark.parametrize("folder", ["docs", "docs/decisions"])
def test_the_index_names_every_page(folder: str) -> None:
    index = (ROOT / folder / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\]\(([a-z-]+\.md)\)", index))
    assert named == {page.name for page in (ROOT / folder).glob("*.md")} - {"README.md"}


def test_the_readme_fits_on_a_few_screens_and_keeps_its_two_lines() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) < 200
    for marker in ("run", "tests"):
        assert re.search(rf"^<!-- {marker} -->\n```bash\n[^\n]+\n```$", readme, re.MULTILINE)
