"""What is in an experiment's folder is read as it was written, or is one sentence."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.errors import ExperimentError
from experiments.plan import FILE, Experiment, Plan, Row, load, save
from tests.odd_values import is_a_sentence

ROW = Row("ce-s1-00000000", "ce", "", 1, {"seed": 1, "learning-rate": 0.1, "drop-last": True}, {}, "00000000")
TEXT = st.text(max_size=8)
VALUES = st.dictionaries(TEXT, st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT, max_size=3)


@given(
    TEXT, TEXT, VALUES, VALUES, st.booleans(), st.none() | st.integers(1, 9), st.dictionaries(TEXT, TEXT, max_size=2)
)
def test_an_experiment_is_read_as_it_was_saved(
    tmp_path_factory: pytest.TempPathFactory, text: str, label: str, config: Any, federation: Any, flag: bool,
    trials: int | None, failures: dict[str, str],
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("experiment")
    row = Row("a-s1", label, text, 2, config, federation, "01234567", flag, trials)
    experiment = Experiment(folder, Plan(text, (row, ROW), label, "c0de", "results"), failures)
    save(experiment)
    assert load(folder) == experiment


def test_places_follow_from_the_name(tmp_path: Path) -> None:
    experiment = Experiment(tmp_path, Plan("t", (ROW,)))
    assert experiment.run_dir(ROW) == tmp_path / "runs" / ROW.name
    assert experiment.log(ROW) == tmp_path / "logs" / f"{ROW.name}.log"


def test_another_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path, tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(ExperimentError, match=r"is no experiment's folder: it has no experiment.json") as error:
            load(folder)
        assert is_a_sentence(str(error.value))
    (tmp_path / FILE).mkdir()
    with pytest.raises(ExperimentError, match=r"experiment.json cannot be read: Is a directory\.$"):
        load(tmp_path)


def test_any_damage_is_one_sentence(tmp_path: Path) -> None:
    save(Experiment(tmp_path, Plan("t", (ROW,)), {"a": "b"}))
    whole = json.loads((tmp_path / FILE).read_text())
    damaged: list[Any] = [3, [], {}, {**whole, "more": 1}]
    damaged += [{key: value for key, value in whole.items() if key != left} for left in ("rows", "failures", "title")]
    damaged += [{**whole, key: 3} for key in whole]
    damaged += [{**whole, "keep": "some"}, {**whole, "failures": {"a": 3}}, {**whole, "rows": whole["rows"] * 2}]
    for key in whole["rows"][0]:
        damaged.append({**whole, "rows": [{**whole["rows"][0], key: [3]}]})
    for name in ("", "..", "a/b", "../../x"):
        damaged.append({**whole, "rows": [{**whole["rows"][0], "name": name}]})
    damaged.append({**whole, "rows": [{**whole["rows"][0], "config": {"seed": None}}]})
    texts = [json.dumps(one).encode() for one in damaged]
    for content in [*texts, b"", b"{", b"\xff", b"[" * 10**5, json.dumps(whole).encode()[:-5]]:
        (tmp_path / FILE).write_bytes(content)
        with pytest.raises(ExperimentError) as error:
            load(tmp_path)
        assert is_a_sentence(str(error.value)), content
        assert f"{FILE} is damaged; move it away" in str(error.value)
