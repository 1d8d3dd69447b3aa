"""`python -m runs compare`: what differs, what was reached, whether it can be compared, and a picture."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from config.run_config import Value
from runs.curves import draw_curves
from tests.runs.folders import Said, write_run

RECORD = {"how": "finished", "clients": 10, "data": {"clean_test": "a", "train": "b", "clean_val": "c"}, "held": "d"}


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    base = write_run(tmp_path / "base", [0.25, 0.5], {"output-dir": "/a", "tracking": "none"}, RECORD)
    changed: dict[str, Value] = {
        "method": "elr",
        "learning-rate": 0.02,
        "drop-last": False,
        "output-dir": "/b",
        "tracking": "trackio",
    }
    return base, write_run(tmp_path / "other", [0.75, 0.625], changed, RECORD)


def test_only_settings_that_differ_and_decide_are_shown(pair: tuple[Path, Path], runs: Callable[..., Said]) -> None:
    found = runs("compare", *pair, "--json").json
    assert found["settings"] == {
        "method": ["ce", "elr"], "drop-last": [True, False], "learning-rate": [0.004, 0.02],
    }  # fmt: skip
    assert found["warnings"] == []
    assert [(one["name"], one["status"], one["rounds"]) for one in found["runs"]] == [
        ("base", "finished", 2), ("other", "finished", 2),
    ]  # fmt: skip
    assert found["runs"][1]["scores"] == {"last": 0.625, "last10": 0.625, "picked": None, "best-on-test": 0.75}


def test_people_see_a_table_of_each(pair: tuple[Path, Path], runs: Callable[..., Said]) -> None:
    rows = [line.split() for line in runs("compare", *pair).out.splitlines()]
    assert rows[:4] == [
        ["key", "base", "other"], ["method", "'ce'", "'elr'"], ["drop-last", "true", "false"],
        ["learning-rate", "0.004", "0.02"],
    ]  # fmt: skip
    assert ["other", "2/2", "62.5", "%", "62.5", "%", "-", "75.0", "%"] in rows
    assert not any("compared" in row for row in rows)


def test_a_narrow_terminal_keeps_the_names(
    pair: tuple[Path, Path], tmp_path: Path, runs: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    third = write_run(tmp_path / "third-of-a-longer-name", [0.5, 0.5], {}, RECORD)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # rich takes the pipe for a terminal
    monkeypatch.setenv("NO_COLOR", "1")
    lines = "".join(part.split("m", 1)[-1] for part in runs("compare", *pair, third).out.split("\x1b[")).splitlines()
    assert any(
        line.startswith("third-of-a-longer-name") and line.split()[1:4] == ["2/2", "50.0", "%"] for line in lines
    )
    assert max(map(len, lines)) <= 80
    assert {"validation", "(picked", "test)", "rounds,"} <= {word for line in lines for word in line.split()}


def test_what_cannot_be_compared_is_said(pair: tuple[Path, Path], tmp_path: Path, runs: Callable[..., Said]) -> None:
    record = {**RECORD, "how": "", "code": ["other"]}
    third = write_run(tmp_path / "third", [0.5], {"partition": "shards", "num-server-rounds": 9}, record)
    said = runs("compare", *pair, third).out.split("They cannot be compared as they are:\n")[1].splitlines()
    assert "- third is not complete: interrupted after round 1 of 9." in said
    assert "- The partition differs: iid in base, shards in third." in said
    assert "- The code differs: c0de in base, other in third." in said
    assert len(said) == len(set(said))


def test_runs_with_one_name_are_told_apart_by_their_paths(tmp_path: Path, runs: Callable[..., Said]) -> None:
    pair = [write_run(tmp_path / parent / "run", record=RECORD) for parent in "ab"]
    said = runs("compare", *pair).out
    assert "They have the same settings." in said
    assert all(str(folder) in said for folder in pair)


def test_one_run_is_not_enough(pair: tuple[Path, Path], runs: Callable[..., Said]) -> None:
    for words in (pair[:1], (pair[0], pair[0])):
        said = runs("compare", *words)
        assert (said.code, said.out) == (1, "")
        assert "RUN must be named at least twice" in said.err


def test_a_damaged_run_differs_in_everything_unknown(pair: tuple[Path, Path], runs: Callable[..., Said]) -> None:
    (pair[1] / "config.toml").write_text("# Flower's run 1, code c0de,\nseed")
    found = runs("compare", *pair, "--json").json
    assert found["settings"]["method"] == ["ce", None]
    assert found["warnings"]
    assert runs("compare", *pair).code == 0


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_a_picture_of_odd_names(kind: str, tmp_path: Path, runs: Callable[..., Said]) -> None:
    names = ["$\\frac{x$", "_hidden", "<b>衣服🧥", "a\nb", "n" * 200, "{0}%s"]
    folders = [write_run(tmp_path / name, [0.1 * number, 0.5], {"seed": number}) for number, name in enumerate(names)]
    folders.append(write_run(tmp_path / "none evaluated", [None, None]))
    picture = tmp_path / f"curves.{kind}"
    said = runs("compare", *folders, "--plot", picture)
    assert said.code == 0, said.err
    assert said.out.endswith(f"{picture}\n")
    if kind == "png":
        with Image.open(picture) as image:
            assert image.size > (900, 500)
    assert runs("compare", *folders, "--plot", picture, "--json").json["warnings"]  # and nothing but JSON


def test_a_picture_that_cannot_be_written_is_one_sentence(pair: tuple[Path, Path], runs: Callable[..., Said]) -> None:
    for path in ("/proc/none/x.png", "x.jpg"):
        said = runs("compare", *pair, "--plot", path)
        assert said.code == 1
        assert said.err.startswith(f"python -m runs: --plot is {path}")
        assert said.err.count("\n") == 1


def test_curves_have_their_points_and_names() -> None:
    curves = [{1: 10.0, 2: 20.0}, {2: 60.0, 4: 50.0}, {}]
    figure = draw_curves(curves, ["a", "_b", "$c$"])
    (axes,) = figure.axes
    assert [dict(line.get_xydata().tolist()) for line in axes.lines] == curves  # type: ignore[union-attr]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "_b", "$c$"]
    assert not any(text.get_parse_math() for text in legend.get_texts())
    low, high = axes.get_ylim()
    assert 0 <= low < 10
    assert 60 < high < 70
    flat = draw_curves([{1: 50.0}], ["a"]).axes[0].get_ylim()
    assert flat == (47.5, 52.5)  # no noise enlarged


def test_fifteen_runs_look_different() -> None:
    axes = draw_curves([{1: 1.0}] * 15, [str(number) for number in range(15)]).axes[0]
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 15
