"""Single clients on a page: who comes first, what is drawn, and that nothing in the files is taken for markup."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from runs.report.figures import ACROSS, charts_across_clients, curve_across_clients
from runs.report.page import write_page
from runs.report.visits import HEIGHT, MOST, MOST_POINTS, WIDTH, clients_of
from runs.run import Run
from runs.table import Line
from tests.runs.folders import write_run
from tests.runs.made import line, made


def _visit(server_round: int, client: int, **more: Any) -> dict[str, Any]:
    return {
        "round": server_round, "client": client, "images": 10 + client,
        **{name.replace("_", "-"): one for name, one in more.items()},
    }  # fmt: skip


def _run(folder: Path, lines: Sequence[dict[str, Any]]) -> Run:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "clients.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in lines), encoding="utf-8")
    return made(folder=folder.parent, name=folder.name)


def test_the_worst_are_those_below_the_median_of_their_own_rounds(tmp_path: Path) -> None:
    """Client 2 has the lowest number of all, in round 1, where nobody had more; 0 is the worst of round 2."""
    visits = [
        _visit(1, 2, agreement_before=0.10, train_loss=3.0), _visit(1, 1, agreement_before=0.10, train_loss=3.0),
        _visit(2, 0, agreement_before=0.40, train_loss=1.0), _visit(2, 1, agreement_before=0.60, train_loss=1.0),
        _visit(2, 3, agreement_before=0.70, train_loss=1.0),
    ]  # fmt: skip
    found = clients_of(_run(tmp_path / "run", visits))
    assert found is not None
    assert [client.number for client in found.rows] == [0, 1, 2, 3]
    assert [client.gap for client in found.rows] == pytest.approx([-20, 0, 0, 10])
    assert [client.visits for client in found.rows] == [1, 2, 1, 1]
    assert [client.images for client in found.rows] == [10, 11, 12, 13]
    assert [kind.key for kind in found.kinds] == ["train-loss", "agreement-before"]
    assert found.ranked.key == "agreement-before"
    assert [cell.text for cell in found.rows[1].cells] == ["1.000", "60.0"]
    assert not found.judged
    assert not found.known


def test_without_anything_better_a_high_loss_is_bad(tmp_path: Path) -> None:
    visits = [_visit(1, client, train_loss=loss) for client, loss in ((0, 0.5), (1, 2.0), (2, None), (3, 1.0))]
    found = clients_of(_run(tmp_path / "run", visits))
    assert found is not None
    assert [client.number for client in found.rows] == [1, 3, 0, 2]
    assert [client.gap for client in found.rows] == [1.0, 0.0, -0.5, None]
    assert found.rows[-1].cells[0].text == found.rows[-1].cells[0].line == ""


def test_of_many_clients_the_worst_are_shown_and_of_many_visits_some(tmp_path: Path) -> None:
    visits = [_visit(r, client, train_loss=client + r / 100) for r in range(1, 96) for client in range(MOST + 5)]
    found = clients_of(_run(tmp_path / "run", visits))
    assert found is not None
    assert (len(found.rows), found.of) == (MOST, MOST + 5)
    assert found.rows[0].number == MOST + 4
    points = [tuple(map(float, point.split(","))) for point in found.rows[0].cells[0].line.split()]
    assert len(points) <= MOST_POINTS
    assert points[-1] == found.rows[0].cells[0].end
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points)
    assert points[-1][1] < points[0][1]  # higher losses are higher up
    assert [x for x, _ in points] == sorted(x for x, _ in points)


@pytest.mark.parametrize("content", [None, b"", b"x", b'{"round": 1}', b'{"round": 1, "client": 0, "train-loss": "x"}'])
def test_a_run_without_usable_lines_has_no_clients(tmp_path: Path, content: bytes | None) -> None:
    run = _run(tmp_path / "run", [])
    (run.folder / "clients.jsonl").unlink()
    if content is not None:
        (run.folder / "clients.jsonl").write_bytes(content)
    assert clients_of(run) is None


def test_what_a_method_says_and_what_is_true_stand_beside_it(tmp_path: Path) -> None:
    run = _run(tmp_path / "run", [_visit(1, client, train_loss=1.0) for client in range(4)])
    told = [
        {"client": 0, "node": "a", "noisy": True, "really-noisy": False, "wrong-labels": 0.25},
        {"client": 1, "node": None, "noisy": None, "really-noisy": None, "wrong-labels": None},
        {"client": 2, "node": 7, "noisy": "yes", "really-noisy": 1, "wrong-labels": "x"},
    ]
    (run.folder / "noisy-clients.json").write_text(json.dumps({"round": 1, "clients": told}))
    found = clients_of(run)
    assert found is not None
    assert found.judged
    assert found.known
    assert [(one.node, one.facts) for one in found.rows] == [
        ("a", ("noisy", "clean", "25.0")),
        *[("", ("", "", ""))] * 3,
    ]


def _across(server_round: int, low: float, worst: float) -> dict[str, Any]:
    return line(server_round, 0.5, **{
        "train-loss-percentiles": [low, low + 0.1, low + 0.2, low + 0.3, low + 0.4], "train-loss-worst-tenth": worst,
    })  # fmt: skip


def test_bands_are_percentiles_as_means_over_seeds() -> None:
    runs = (made(lines=[_across(1, 1.0, 5.0), _across(2, 0.5, 4.0)]), made(lines=[_across(1, 2.0, 7.0)], seed=2))
    assert curve_across_clients(Line("ce", runs, {}), "train-loss") == {
        "label": "ce", "rounds": [1, 2], "low": [1.5, 0.5], "mean": [1.7, 0.7], "high": [1.9, 0.9], "worst": [6.0, 4.0],
        "seeds": [2, 1],
    }  # fmt: skip
    assert [chart["key"] for chart in charts_across_clients([Line("ce", runs, {})])] == ["train-loss"]
    assert {key for key, *_ in ACROSS} >= {"train-loss", "agreement-before"}


@pytest.mark.parametrize("damaged", [None, [], [1.0], ["x"] * 5, [1.0] * 4 + [None], {"a": 1}])
def test_damaged_percentiles_are_no_point(damaged: Any) -> None:
    entry = {**_across(1, 1.0, 5.0), "train-loss-percentiles": damaged}
    assert curve_across_clients(Line("ce", (made(lines=[entry]),), {}), "train-loss") is None
    entry = {**_across(1, 1.0, 5.0), "train-loss-worst-tenth": None}
    assert curve_across_clients(Line("ce", (made(lines=[entry]),), {}), "train-loss") is None


def test_names_of_nodes_are_never_markup(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", record={"how": "finished"})
    run = _run(folder, [_visit(1, 3, train_loss=1.0)])
    told = {"round": 1, "clients": [{"client": 3, "node": "<script>alert(1)</script>\u202e", "noisy": True}]}
    (run.folder / "noisy-clients.json").write_text(json.dumps(told))
    write_page([str(folder)], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;?" in page
    assert "<script>alert(1)" not in page
    assert '<section id="visits"' in page


def test_a_page_without_such_files_has_no_such_section(tmp_path: Path) -> None:
    write_page([str(write_run(tmp_path / "run", record={"how": "finished"}))], tmp_path / "page.html")
    assert '<section id="visits"' not in (tmp_path / "page.html").read_text(encoding="utf-8")
