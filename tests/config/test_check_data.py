"""Only lists that a run needs must be there."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import typer

from config.__main__ import check
from config.check import examine
from config.check_data import problems_of_data
from config.run_config import RunConfig
from data.layout.finding import LIST_FILES

NO_TEST, NO_VAL, NO_TRAIN = (
    "has no clean_test_key_list.txt; without it", "has no clean_val_key_list.txt; without it",
    "has no noisy_train_key_list.txt; without it",
)  # fmt: skip
OWN = {"fraction_evaluate": 1.0, "eval_split": "own", "holdout_fraction": 0.2}


@pytest.mark.parametrize(
    ("missing", "clients", "values", "told"),
    [
        (["clean_test", "clean_val", "clean_train"], 4, {}, [NO_TEST, NO_VAL]),  # all at once
        (["clean_test", "clean_val", "clean_train"], 4, {"test_split": "none"}, [NO_VAL]),
        (["clean_test", "clean_val", "clean_train"], 4, {"test_split": "none", "val_split": "none"}, []),
        (["clean_test", "clean_val"], 4, {"test_split": "none", "val_split": "clean_train"}, []),
        (["clean_val"], 4, {"val_split": "none", "fraction_evaluate": 1.0}, [NO_VAL]),
        (["clean_val"], None, {"val_split": "none", "fraction_evaluate": 1.0}, []),  # sites may have one
        (["clean_val"], 4, {"val_split": "none", **OWN}, []),
        (["clean_val"], 4, {"val_split": "noisy", **OWN}, []),
        (["clean_val"], 4, {"fraction_evaluate": 1.0}, [NO_VAL]),  # once
        (["noisy_train"], 4, {}, [NO_TRAIN]),
        (["noisy_train"], None, {}, []),  # a server whose sites hold the images that are trained on
        (["noisy_train"], 4, {"train_split": "clean", "batch_size": 2}, []),
        (["clean_train"], 4, {"train_split": "clean"}, ["has no clean_train_key_list.txt; without it"]),
    ],
)
def test_what_is_missing_matters_only_where_it_is_needed(
    tiny_sample: Path,
    tmp_path: Path,
    missing: list[str],
    clients: int | None,
    values: dict[str, object],
    told: list[str],
) -> None:
    root = tmp_path / "release"
    shutil.copytree(tiny_sample, root)
    for split in missing:
        (root / LIST_FILES[split]).unlink()
    config = RunConfig(data_dir=str(root), **{"batch_size": 8, **values})  # type: ignore[arg-type]
    problems = problems_of_data(config, clients)
    assert len(problems) == len(told), problems
    assert all(words in problem for words, problem in zip(told, problems, strict=True)), problems


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"method": "xiao"}, "0; there must be at least 2"),
        ({"method": "forward"}, "carries both labels; transition must be clothing1m or the path of a matrix"),
        ({"method": "forward", "method_args": "transition='clothing1m'"}, None),
        ({"method": "forward", "method_args": "transition='/t.txt'"}, None),
        ({"method": "ce"}, None),
    ],
)
def test_a_method_that_needs_clean_lists_says_so(
    tiny_sample: Path, tmp_path: Path, values: dict[str, str], told: str | None
) -> None:
    root = tmp_path / "release"
    shutil.copytree(tiny_sample, root)
    for split in ("clean_train", "clean_val", "clean_test"):
        (root / LIST_FILES[split]).unlink()
    config = RunConfig(data_dir=str(root), batch_size=8, test_split="none", val_split="none", **values)  # type: ignore[arg-type]
    for clients in (None, 4):
        problems = problems_of_data(config, clients)
        assert len(problems) == (told is not None), problems
        assert told is None or told in problems[0]


def test_a_folder_that_only_nodes_have_is_no_fault_of_a_server_without_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = str(tmp_path / "gone")
    values: dict[str, Any] = {"data-dir": gone, "test-split": "none", "val-split": "none"}
    assert examine(values)[1] == []
    assert len(examine({**values, "method": "xiao"})[1]) == 1
    assert len(examine({**values, "method": "forward"})[1]) == 1
    assert examine({**values, "method": "forward", "method-args": "transition='clothing1m'"})[1] == []
    assert len(examine({"data-dir": gone})[1]) == 1
    config = RunConfig(data_dir=gone, test_split="none", val_split="none")
    assert gone in problems_of_data(config, 4)[0]  # in a simulation
    pairs = f"data-dir='{gone}' test-split='none' val-split='none'"
    check([pairs])
    assert "No fault found, for real nodes: 'data-dir' is not on this machine" in capsys.readouterr().out
    with pytest.raises(typer.Exit):
        check([pairs], clients=4)
