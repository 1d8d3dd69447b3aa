"""How findings are summed up and written, and which images have the same bytes."""

from pathlib import Path

import numpy as np
import pytest

from data.check import images as check_images
from data.check.findings import NOTES, PROBLEMS, Findings
from data.layout.finding import SPLITS


def test_summary_and_file_list_problems_first(tmp_path: Path) -> None:
    findings = Findings()
    for number in range(5):
        findings.add("stray file", f"images/{number}", "ignored")
    findings.add("missing image", "images/x", "must be there")
    assert findings.num_problems == 1
    assert findings.summary() == [
        "PROBLEM  missing image: 1", "    images/x: must be there",
        "note  stray file: 5", "    images/0: ignored", "    images/1: ignored", "    images/2: ignored", "    ...",
    ]  # fmt: skip
    findings.write(tmp_path / "findings.tsv")
    lines = (tmp_path / "findings.tsv").read_text().splitlines()
    assert lines[0] == "missing image\timages/x\tmust be there"
    assert len(lines) == 6
    with pytest.raises(ValueError, match="there is no kind"):
        findings.add("whatever", "", "")
    assert not set(PROBLEMS) & set(NOTES)


def test_same_bytes_by_brute_force() -> None:
    rng = np.random.default_rng(5)
    keys = np.array([f"images/{number:03}".encode() for number in range(200)])
    digests = rng.integers(0, 40, (200, 1), dtype=np.uint8).repeat(16, axis=1)
    cut = dict(zip(SPLITS, np.split(keys, (90, 130, 160)), strict=True))
    findings = Findings()
    check_images._same_bytes(keys, digests, cut, findings)
    held = {name: split for split, names in cut.items() for name in names.tolist()}
    groups: dict[int, list[bytes]] = {}
    for name, digest in zip(keys.tolist(), digests[:, 0].tolist(), strict=True):
        groups.setdefault(digest, []).append(name)
    leaked_keys, other = 0, 0
    for names in groups.values():
        tests = [name for name in names if held[name] == "clean_test"]
        leaked_keys += len(names) - len(tests) if tests else 0
        other += (len(tests) or len(names)) - 1
    assert len(findings.found["same bytes as a test image"]) == leaked_keys
    assert len(findings.found["same bytes"]) == other
