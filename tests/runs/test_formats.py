"""Every format read back, with labels that would break it."""

import csv
import html
import io
import json
import re

import pytest

from runs.cells import number, with_spread
from runs.entries import Entry
from runs.errors import RunsError
from runs.formats import FORMATS, render
from runs.table import Table, table_of
from tests.runs.made import line, made

LABELS = (
    "ce", "a|b", "a & b", "50 %", "a_b*c*", 'say "hi"', "<script>alert(1)</script>", "噪声标签", "😀 é",
    '=cmd|"/c calc"!A0', "+1", "-1", "@x", r"a\b", r"a\|b", "[red]x[/red]", "$x^2$ #1 ~ {y}", "`code`", "\t=1", "a, b",
    "a\nb", "\x1b[31mred", "\ud800", "x" * 300, "",
)  # fmt: skip


def table(labels: tuple[str, ...] = LABELS, seeds: int = 2) -> Table:
    """Label by label one point better."""
    entries = []
    for place, label in enumerate(labels):
        for seed in range(1, seeds + 1):
            lines = [line(n, 0.3 + place / 100 + seed / 1000, val_accuracy=0.5) for n in range(1, 5)]
            config = {"method-args": f"x={place}"}
            run = made(lines=lines, name=f"{place}-{seed}", seed=seed, config=config)
            entries.append(Entry(label, run, setting="noise | 40 % & <more> _"))
    return table_of(entries, baseline=labels[0])


def test_every_format_names_the_accuracy_the_seeds_and_what_test_picked() -> None:
    for format in FORMATS:
        text = render(table(("ce", "gce")), format)
        for words in ("last round", "round picked on", "validation", "picked on test", "seeds", "clean test"):
            assert words in text, (format, words)
        assert text.endswith("\n"), format


def test_csv_is_read_back_in_full() -> None:
    text = render(table(), "csv")
    assert text.count("\r\n") == len(LABELS) + 1
    head, *rows = csv.reader(io.StringIO(text, newline=""))
    assert {len(row) for row in rows} == {len(head)}
    place = head.index("accuracy on clean test, last round, %: mean")
    for label, row, own in zip(LABELS, rows, table().sections[0].lines, strict=True):
        stat = own.stats["last"]
        assert row[1].removeprefix("'") == label.encode("utf-8", "replace").decode()
        assert not row[1].startswith(("=", "+", "-", "@", "\t", "\r"))
        assert float(row[place]) == stat.mean
        assert float(row[place + 1]) == stat.sd
        assert row[place + 2] == row[3] == "2"
    last = dict(zip(head, rows[-1], strict=True))
    assert float(last["accuracy on clean test, last round, %: difference"]) == pytest.approx(24)
    assert float(last["accuracy on clean test, last round, %: low"]) == pytest.approx(24)
    assert last["accuracy on clean test, last round, %: pairs"] == "2"
    assert last["accuracy on clean test, best round (picked on test), %: difference"] == ""


def test_csv_keeps_notes_and_targets_that_were_missed() -> None:
    runs = [Entry("ce", made([0.5, 0.7])), Entry("gce", made([0.5, 0.5], record={"held": "x"}))]
    text = render(table_of(runs, ["last"], baseline="ce", target=0.6), "csv")
    found = list(csv.DictReader(io.StringIO(text, newline="")))
    assert found[1]["rounds to 60 %: mean"] == ""
    assert found[1]["note"].startswith("Not compared with ce. The split of images between clients differs")
    assert found[1]["note"].endswith("rounds to 60 %: 0 of 1 reached it.")


def cells_of(markdown_line: str) -> list[str]:
    """The cells of a table's line as GitHub reads them: pipes end a cell unless a backslash is before them."""
    assert markdown_line.startswith("| ")
    parts = re.split(r"(?<!\\)(?:\\\\)*\|", markdown_line)[1:-1]
    return [html.unescape(re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", part.strip())) for part in parts]


def test_markdown_is_read_back() -> None:
    lines = [text for text in render(table(), "markdown").splitlines() if text.startswith("| ")]
    head, rule, *rows = map(cells_of, lines)
    assert {len(row) for row in (rule, *rows)} == {len(head)}
    assert set(rule) == {"---", "---:"}
    assert head[2:4] == ["last round, %", "minus ce"]
    assert head[-1].startswith("best round (picked on test)†")
    shown = [row[0] for row in rows]
    assert shown[:8] == list(LABELS[:8])
    assert shown[9] == LABELS[9]
    assert shown[-1] == "all runs"
    assert shown[20] == "a?b"  # lines stay lines
    assert rows[1][2:4] == ["31.15 ± 0.07", "+1.00 ± 0.00"]
    assert "<" not in render(table(), "markdown")  # no HTML


def test_latex_is_balanced_and_escaped() -> None:
    text = render(table(), "latex")
    for name in ("table", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == 1
    plain = re.sub(r"\\[{}]", "", text)  # braces that are shown
    depth = 0
    for character in plain:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    plain = re.sub(r"\\[\\&%_#$]", "", text)
    assert not set('%_#~^|<>"') & set(re.sub(r"\\[a-z]+", "", plain))
    assert plain.count("$") % 2 == 0
    rows = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert len(rows) == len(LABELS)
    columns = len(re.findall("[lr]", re.findall(r"\\begin\{tabular\}\{([lr]+)\}", text)[0]))
    for row in rows:
        assert row.endswith(r" \\")
        assert len(re.split(r"(?<!\\)&", row)) == columns
    assert r"{a \& b} & {$2$} & {$32.15 \pm 0.07$} & {$+2.00 \pm 0.00$}" in rows[2]
    assert "{噪声标签}" in rows[7]
    assert r"$\dagger$" in text.split(r"\caption")[1].split(r"\begin")[0]


def test_json_has_everything() -> None:
    found = json.loads(render(table(), "json"))
    assert [column["key"] for column in found["columns"]] == ["last", "last10", "picked", "best-on-test"]
    assert [column["picked-on-test"] for column in found["columns"]] == [False, False, False, True]
    lines = found["sections"][0]["lines"]
    assert [line["label"] for line in lines] == list(LABELS)
    stat = lines[1]["stats"]["last"]
    assert stat["mean"] == pytest.approx(31.15)
    assert stat["by-seed"] == pytest.approx({"1": 31.1, "2": 31.2})
    assert (stat["difference"], stat["low"], stat["high"]) == pytest.approx((1, 1, 1))
    assert lines[1]["runs"] == [{"seed": seed, "folder": f"/runs/1-{seed}"} for seed in (1, 2)]
    assert found["sections"][0]["baseline"] == "ce"
    assert found["problems"] == found["notes"] == []
    assert "picked on test" in found["about"][-1]


def test_text_fits_into_80_columns() -> None:
    text = render(table(tuple(label for label in LABELS if label != "噪声标签")), "text")
    assert max(map(len, text.splitlines())) <= 80
    assert "[red]x[/red]" in text  # no markup of rich's
    assert "\x1b" not in text
    assert "31.15 ± 0.07" in text
    assert "+1.00 ± 0.00" in text


def test_text_has_more_columns_in_more_blocks() -> None:
    columns = ["last", "images", "minutes", "macro-f1", "worst-class", "last-loss", "rounds", "bytes", "best-on-test"]
    runs = [Entry("ce", made([0.5] * 4, seed=seed, lines=[line(1, 0.5, macro_f1=0.25)])) for seed in (1, 2)]
    text = render(table_of(runs, columns), "text")
    assert max(map(len, text.splitlines())) <= 80
    assert "25.00 ± 0.00" in text
    assert text.count("ce  ") >= 2


def test_one_seed_has_no_deviation() -> None:
    for format in ("text", "markdown", "latex"):
        numbers = render(table(("ce", "gce"), seeds=1), format).replace("Mean ±", "").replace("; ± is", "")
        assert "31.10" in numbers
        assert "+1.00" in numbers
        assert "± 0" not in numbers
        assert r"\pm 0" not in numbers


def test_seeds_that_a_column_or_a_pair_lacks_are_counted() -> None:
    runs = [Entry("ce", made([0.5], seed=1)), *(Entry("gce", made([0.6], seed=seed)) for seed in (1, 2))]
    text = render(table_of(runs, ["last"], baseline="ce"), "markdown")
    assert "| gce | 2 | 60.00 ± 0.00 | +10.00 (1 seed) |" in text
    some = [
        Entry("ce", made(lines=[line(1, 0.5, **more)], seed=seed)) for seed, more in ((1, {}), (2, {"macro_f1": 0.5}))
    ]
    assert "| ce | 2 | 50.00 (1 seed) |" in render(table_of(some, ["macro-f1"]), "markdown")


def test_targets_that_were_missed_stand_in_place_of_a_number() -> None:
    runs = [Entry("ce", made([accuracy], seed=seed)) for seed, accuracy in ((1, 0.5), (2, 0.7))]
    found = table_of(runs, ["last"], target=0.6)
    for format in FORMATS:
        assert "1 of 2 reached it" in render(found, format), format


def test_what_has_no_runs_is_still_said() -> None:
    found = table_of([Entry("a|b", made([0.5], record={"how": ""}, config={"num-server-rounds": 2}))])
    for format in set(FORMATS) - {"csv"}:
        assert "interrupted after round 1 of 2" in render(found, format), format
    for format in FORMATS:
        assert render(table_of([]), format).endswith("\n")


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(
        RunsError, match="there is no format 'html'; it must be one of text, markdown, latex, csv, json"
    ):
        render(table(("ce",)), "html")


def test_numbers() -> None:
    assert number(1234567.0, 0) == "1,234,567"
    assert number(-0.001, 2, "+") == number(-0.001, 2) == "0.00"
    assert number(0.5, 1, "+") == "+0.5"
    assert with_spread(1.0, float("nan"), 1) == "1.0"
