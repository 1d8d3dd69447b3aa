"""Lines of metrics.jsonl and failures.jsonl: each valid one is kept, whatever stands before it."""

from pathlib import Path

import pytest

from config.run_config import ConfigError
from server_app.round_lines import FAILURES, METRICS, Kind, keep_lines, read_lines

ONE, TWO, THREE = (b'{"round": %d, "test-accuracy": 0.%d}' % (number, number) for number in (1, 2, 3))
FAILED = b'{"round": 2, "partition": 0, "reason": "\xc3\xa9"}'


def _kept(path: Path, kind: Kind, last_round: int = 3) -> list[bytes]:
    expected = [line for line, _ in read_lines(path, last_round, kind).kept]
    keep_lines(path, last_round, kind)
    assert path.read_bytes() == b"".join(line + b"\n" for line in expected)
    return expected


@pytest.mark.parametrize(
    "damaged",
    [
        b"nonsense", b'{"round": 2, "test-acc', b"\xff\xfe\x00", b"\x00" * 5000, b"[1]", b"null", b"3", b'"round"',
        b"{}", b"[" * 100_000, b'{"round": 1}', b'{"round": "1", "test-accuracy": 0.5}',
        b'{"round": 0, "test-accuracy": 0.5}',
        b'{"round": 1.0, "test-accuracy": 0.5}', b'{"round": true, "test-accuracy": 0.5}',
        b'{"round": 1, "test-accuracy": "0.5"}', b'{"round": 1, "test-accuracy": NaN}',
        b'{"round": 1, "test-accuracy": 1.01}', b'{"round": 1, "test-accuracy": -1e999}',
        b'{"round": 1, "test-accuracy": true}', b'{"round": 1, "test-accuracy": [0.5]}',
        b'{"round": 1, "test-accuracy": 1' + b"0" * 400 + b"}",
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_damaged_line_costs_no_other(tmp_path: Path, damaged: bytes, place: int) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [ONE, TWO, THREE]
    lines.insert(place, damaged)
    path.write_bytes(b"\n".join(lines))
    assert _kept(path, METRICS) == [ONE, TWO, THREE]
    assert (tmp_path / "set-aside" / "metrics.jsonl.1").read_bytes() == b"\n".join(lines)


@pytest.mark.parametrize(
    "damaged",
    [b"x", b'{"round": 1}', b'{"round": 1, "partition": 0}', b'{"round": 1, "partition": "0", "reason": "r"}'],
)
def test_failures_have_lines_of_another_kind(tmp_path: Path, damaged: bytes) -> None:
    path = tmp_path / "failures.jsonl"
    path.write_bytes(b"\n".join([FAILED, damaged, FAILED, b""]))
    assert _kept(path, FAILURES) == [FAILED, FAILED]  # two attempts may fail alike


def test_a_round_that_was_not_evaluated_has_a_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"round": 1, "test-accuracy": null}\n' + TWO)
    assert _kept(path, METRICS) == [b'{"round": 1, "test-accuracy": null}', TWO]


def test_what_is_left_out_is_said_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "metrics.jsonl"
    again = b'{"round": 1, "test-accuracy": 0.9}'
    path.write_bytes(b"\n".join([ONE, TWO, b"x", again, THREE, b"y"]))
    with caplog.at_level("INFO", "flwr"):
        assert _kept(path, METRICS, last_round=2) == [again, TWO]
    assert caplog.messages == [
        f"{path}: left out 4 lines (2 damaged, 1 of rounds that are repeated, 1 written twice); all of them are in"
        f" {tmp_path / 'set-aside' / 'metrics.jsonl.1'}."
    ]


def test_each_original_is_kept_under_a_name_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for number in (1, 2, 3):
        path.write_bytes(b"%d damaged" % number)
        _kept(path, METRICS)
        assert (tmp_path / "set-aside" / f"metrics.jsonl.{number}").read_bytes() == b"%d damaged" % number


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\n\n"])
def test_nothing_is_set_aside_if_no_line_is_left_out(tmp_path: Path, end: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(ONE + b"\n" + TWO + end)
    assert _kept(path, METRICS) == [ONE, TWO]
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_file_that_is_not_there_has_no_lines(tmp_path: Path) -> None:
    keep_lines(tmp_path / "failures.jsonl", 3, FAILURES)
    assert list(tmp_path.iterdir()) == []
    assert read_lines(tmp_path, 3, FAILURES).kept == []


def test_a_file_or_folder_in_the_way_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"x")
    (tmp_path / "set-aside").write_text("a file")
    with pytest.raises(
        ConfigError, match=r"/set-aside cannot be made \(File exists\); it must be a folder, or absent\."
    ):
        keep_lines(path, 3, METRICS)
    assert path.read_bytes() == b"x"

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ConfigError, match=r"metrics.jsonl cannot be read \(Permission denied\); it must be readable"):
        read_lines(path, 3, METRICS)
