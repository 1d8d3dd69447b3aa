"""What is said below a table."""

from typing import Any

import pytest

from runs.table import table_of
from tests.runs.made import entry, lines_of


@pytest.mark.parametrize(
    ("trials", "notes"),
    [
        ((1, 1), ("Tuning: 1 setting tried for each line.",)),
        ((3, 3), ("Tuning: 3 settings tried for each line.",)),
        ((1, 5), ("Tuning budgets differ (settings tried): ce: 1; gce: 5.",)),
        ((1, None), ("Tuning budgets differ (settings tried): ce: 1; gce: unknown.",)),
        ((None, None), ()),
    ],
)
def test_tuning_budgets(trials: tuple[int | None, int | None], notes: tuple[str, ...]) -> None:
    table = table_of([entry("ce", 1, trials=trials[0]), entry("gce", 1, trials=trials[1])])
    assert table.sections[0].notes == notes
    assert table.problems == ()


def test_rounds_that_rules_left_out_are_named() -> None:
    rule = {"num-server-rounds": 40, "patience": 2}
    record = {"reason": "Stopped after round 4 of 40: no better validation accuracy for 2 rounds ('patience')."}
    runs = [entry(label, 1, config=rule, record=record) for label in ("ce", "gce")]
    table = table_of(runs, baseline="ce")
    assert table.sections[0].notes == ("Stopping rules ended runs early, so rounds differ: ce: 4 of 40; gce: 4 of 40.",)
    assert lines_of(table)["gce"].stats["last"].difference == pytest.approx(0)


def test_other_machines_and_versions_are_a_note() -> None:
    here: dict[str, Any] = {"versions": {"torch": "2.14"}, "machine": {"cpu": "A", "gpu": "", "system": "x"}}
    there: dict[str, Any] = {"versions": {"torch": "2.11"}, "machine": {"cpu": "A", "gpu": "H100", "system": "y"}}
    alike = table_of([entry("ce", seed, record=here) for seed in (1, 2)])
    assert alike.sections[0].notes == ()
    differ = table_of([entry("ce", 1, record=here), entry("ce", 2, record=there)])
    assert differ.sections[0].notes == (
        "Not all runs had the same torch (2.11; 2.14), gpu (H100; none): numbers may differ a little for that reason"
        " alone.",
    )
    assert differ.sections[0].lines[0].stats["last"].seeds == 2
