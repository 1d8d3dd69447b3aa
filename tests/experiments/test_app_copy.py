"""The copy of the app that rows are started from."""

import shutil
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk

from experiments.app_copy import FOLDER, ROOT, app_copy, bundled, drop_outdated
from experiments.errors import ExperimentError
from messages.fingerprint import code_fingerprint


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The app's files, to be edited."""
    root = tmp_path / "checkout"
    for name in bundled(ROOT):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, root / name)
    return root


def test_flower_bundles_the_same_from_the_copy(tmp_path: Path) -> None:
    copy = app_copy(tmp_path, code_fingerprint())
    assert copy == tmp_path / FOLDER
    assert build_fab_from_disk(copy) == build_fab_from_disk(ROOT)
    assert [path.name for path in tmp_path.iterdir()] == [FOLDER]


def test_what_is_edited_later_does_not_reach_it(checkout: Path, tmp_path: Path) -> None:
    code = code_fingerprint(checkout)
    copy = app_copy(tmp_path, code, checkout)
    (checkout / "task.py").write_text("# edited\n", encoding="utf-8")
    (checkout / "custom" / "own.py").write_text("# new\n", encoding="utf-8")
    assert app_copy(tmp_path, code, checkout) == copy
    assert code_fingerprint(copy) == code


def test_a_start_with_other_code_replaces_it(checkout: Path, tmp_path: Path) -> None:
    app_copy(tmp_path, code_fingerprint(checkout), checkout)
    (checkout / "custom" / "own.py").write_text("# new\n", encoding="utf-8")
    copy = app_copy(tmp_path, code_fingerprint(checkout), checkout)
    assert code_fingerprint(copy) == code_fingerprint(checkout)
    assert (copy / "custom" / "own.py").is_file()


def test_code_that_changes_while_a_start_begins_is_refused(checkout: Path, tmp_path: Path) -> None:
    code = code_fingerprint(checkout)
    (checkout / "task.py").write_text("# edited\n", encoding="utf-8")
    with pytest.raises(ExperimentError, match="was changed while this start began; start again"):
        app_copy(tmp_path, code, checkout)
    assert not (tmp_path / FOLDER).exists()


def test_a_start_after_an_edited_default_replaces_it(checkout: Path, tmp_path: Path) -> None:
    """Rows take their defaults from the copy's pyproject.toml, which no fingerprint covers."""
    code = code_fingerprint(checkout)
    copy = app_copy(tmp_path, code, checkout)
    drop_outdated(tmp_path, checkout)
    assert copy.is_dir()
    edited = (checkout / "pyproject.toml").read_text(encoding="utf-8").replace("learning-rate = ", "learning-rate = 1")
    (checkout / "pyproject.toml").write_text(edited, encoding="utf-8")
    assert app_copy(tmp_path, code, checkout) == copy  # as when a SuperLink is started again in the middle
    assert (copy / "pyproject.toml").read_text(encoding="utf-8") != edited
    drop_outdated(tmp_path, checkout)
    assert (app_copy(tmp_path, code, checkout) / "pyproject.toml").read_text(encoding="utf-8") == edited


def test_what_is_not_bundled_is_no_code(checkout: Path, tmp_path: Path) -> None:
    """A script in the checkout would otherwise be a change of the code, and no copy would ever be like it."""
    code = code_fingerprint(checkout)
    (checkout / "my_plots.py").write_text("# mine\n", encoding="utf-8")
    assert code_fingerprint(checkout) == code
    assert code_fingerprint(app_copy(tmp_path, code, checkout)) == code
