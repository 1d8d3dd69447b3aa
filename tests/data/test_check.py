"""Every kind of damage is found and described, and hides no other."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from data import check as check_module
from data.check import PUBLISHED, begin_check
from data.check.findings import PROBLEMS, Findings
from data.layout.finding import LIST_FILES, SPLITS, WRONG_LABELS
from data.pack_writer import Packing, write_pack
from data.release import open_release

Found = dict[str, list[tuple[str, str]]]
Damage = Callable[[Path], tuple[str, str]]  # returns a part of the subject, and a part of the detail


@pytest.fixture
def root(tiny_sample: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_sample, tmp_path / "release")
    return tmp_path / "release"


def check(root: Path, threads: int = 2) -> Findings:
    begun = begin_check(root)
    begun.images(root.parent / "progress", threads)
    assert not (root.parent / "progress").exists()
    return begun.findings


def key(root: Path, split: str = "noisy_train", row: int = 3) -> str:
    return (root / LIST_FILES[split]).read_text().splitlines()[row]


def edit(path: Path, change: Callable[[list[str]], object]) -> None:
    """Change the lines of a text file but not how it ends."""
    text = path.read_text()
    lines = text.splitlines()
    change(lines)
    path.write_text("\n".join(lines) + ("\n" if text.endswith("\n") else ""))


def test_a_sound_release(root: Path) -> None:
    findings = check(root)
    assert findings.num_problems == 0
    assert set(findings.found) <= {"other data", "non-RGB image"}


def test_a_sound_pack(root: Path, tmp_path: Path) -> None:
    write_pack(open_release(root), tmp_path / "sound.pack", Packing())
    write_pack(open_release(root), tmp_path / "pixels.pack", Packing(image_size=16, decoded=True))
    assert check(tmp_path / "sound.pack").found == check(root).found
    assert check(tmp_path / "pixels.pack").num_problems == 0


def test_a_damaged_pack(root: Path, tmp_path: Path) -> None:
    pack = tmp_path / "damaged.pack"
    write_pack(open_release(root), pack, Packing())
    data = bytearray(pack.read_bytes())
    data[5000] ^= 4
    pack.write_bytes(data)
    findings = check(pack)
    assert findings.num_problems == 1
    [(subject, detail)] = findings.found["unreadable image"]
    assert subject == open_release(root).split("noisy_train").keys[0].decode()
    assert "has changed since it was packed" in detail


def missing(root: Path) -> tuple[str, str]:
    (root / key(root)).unlink()
    return key(root), f"must be at {root / key(root)}"


def zero_bytes(root: Path) -> tuple[str, str]:
    (root / key(root)).write_bytes(b"")
    return key(root), f"at {root / key(root)}"


def truncated(root: Path) -> tuple[str, str]:
    (root / key(root)).write_bytes((root / key(root)).read_bytes()[:-300])
    return key(root), "truncated"


def unreadable(root: Path) -> tuple[str, str]:
    (root / key(root)).write_bytes(b"<html>404</html>")
    return key(root), "it begins with"


def a_folder(root: Path) -> tuple[str, str]:
    (root / key(root)).unlink()
    (root / key(root)).mkdir()
    return key(root), "must be at"


def a_level_too_high(root: Path) -> tuple[str, str]:
    path = root / key(root)
    path.rename(root / "images" / path.name)
    return key(root), f"found at {root / 'images' / path.name}"


def beside_images(root: Path) -> tuple[str, str]:
    path = root / key(root)
    place = root / key(root).removeprefix("images/")
    place.parent.mkdir(parents=True)
    path.rename(place)
    return key(root), "found at"


def grey(root: Path) -> tuple[str, str]:
    with Image.open(root / key(root, "clean_val")) as image:
        image.convert("CMYK").save(root / key(root, "clean_val"), "JPEG")
    return key(root, "clean_val"), "is CMYK; it is converted"


def malformed(root: Path) -> tuple[str, str]:
    edit(root / "clean_label_kv.txt", lambda lines: lines.insert(4, "images/1/11/1,1111.jpg  3"))
    return "clean_label_kv.txt, line 5", "is not a key, one space and a label"


def malformed_list(root: Path) -> tuple[str, str]:
    edit(root / LIST_FILES["noisy_train"], lambda lines: lines.insert(7, "1/11/1,1111.jpg"))
    return "noisy_train_key_list.txt, line 8", "is not a key that starts with images/"


def climbing(root: Path) -> tuple[str, str]:
    edit(root / LIST_FILES["noisy_train"], lambda lines: lines.insert(0, "images/../../secret.jpg"))
    return "noisy_train_key_list.txt, line 1", "leads out of the release"


def of_no_training_image(root: Path) -> tuple[str, str]:
    (root / WRONG_LABELS).write_text(key(root, "clean_test"))
    return key(root, "clean_test"), "in wrong_label_key_list.txt, not in noisy_train_key_list.txt"


def of_a_known_class(root: Path) -> tuple[str, str]:
    (root / WRONG_LABELS).write_text(key(root))
    return key(root), "in wrong_label_key_list.txt, and has a label in true_label_kv.txt"


def malformed_wrong_list(root: Path) -> tuple[str, str]:
    (root / WRONG_LABELS).write_text("images/1/11/1,1111.jpg 3")
    return "wrong_label_key_list.txt, line 1", "is not a key that starts with images/"


def out_of_range(root: Path) -> tuple[str, str]:
    edit(root / "noisy_label_kv.txt", lambda lines: lines.append("images/1/11/1,1111.jpg 14"))
    return f"noisy_label_kv.txt, line {len((root / 'noisy_label_kv.txt').read_text().splitlines())}", "has 14; 0 to 13"


def duplicate(root: Path) -> tuple[str, str]:
    edit(root / LIST_FILES["clean_val"], lambda lines: lines.append(lines[2]))
    return key(root, "clean_val", 2), "2 times in clean_val_key_list.txt"


def duplicate_label(root: Path) -> tuple[str, str]:
    edit(root / "noisy_label_kv.txt", lambda lines: lines.append(f"{key(root)} 1"))
    return key(root), "2 times in noisy_label_kv.txt"


def in_two_lists(root: Path) -> tuple[str, str]:
    edit(root / LIST_FILES["clean_val"], lambda lines: lines.append(key(root, "clean_test")))
    return key(root, "clean_test"), "clean_val_key_list.txt and clean_test_key_list.txt"


def without_label(root: Path) -> tuple[str, str]:
    wanted = key(root, "clean_val", 0)
    edit(root / "clean_label_kv.txt", lambda lines: lines.remove(next(x for x in lines if x.startswith(wanted))))
    return wanted, "listed in clean_val_key_list.txt, not in clean_label_kv.txt"


def stray(root: Path) -> tuple[str, str]:
    path = root / key(root)
    (path.parent / f"._{path.name}").write_bytes(b"mac")
    return f"._{path.name}", "left by macOS; ignored"


def unlisted(root: Path) -> tuple[str, str]:
    shutil.copy(root / key(root), root / "images" / "3" / "1,2.jpg")
    return "3/1,2.jpg", "in no list"


def leaked(root: Path) -> tuple[str, str]:
    shutil.copy(root / key(root, "clean_test", 1), root / key(root))
    return key(root), f"in noisy_train, as {key(root, 'clean_test', 1)} in clean_test"


def copied(root: Path) -> tuple[str, str]:
    shutil.copy(root / key(root, row=0), root / key(root, row=5))
    return key(root, row=5), f"in noisy_train, as {key(root, row=0)} in noisy_train"


def suspect(root: Path) -> tuple[str, str]:
    data = (root / key(root)).read_bytes()
    middle = len(data) * 3 // 4
    (root / key(root)).write_bytes(data[:middle] + bytes(60) + data[middle + 60 :])
    return key(root), "Corrupt JPEG data: "


def odd(root: Path) -> tuple[str, str]:
    data = (root / key(root)).read_bytes()
    (root / key(root)).write_bytes(data.replace(b"JFIF\x00\x01", b"JFIF\x00\x05"))
    return key(root), "unknown JFIF revision number 5.01"


def postscript(root: Path) -> tuple[str, str]:
    (root / key(root)).write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n")
    return key(root), "it begins with '%!PS-Adobe-3.0 EPSF-3.0', like none of JPEG, PNG"


DAMAGES: list[tuple[str, Damage]] = [
    ("missing image", missing), ("zero-byte image", zero_bytes), ("truncated image", truncated),
    ("unreadable image", unreadable), ("missing image", a_folder), ("wrong folder level", a_level_too_high),
    ("wrong folder level", beside_images), ("non-RGB image", grey), ("malformed line", malformed),
    ("malformed line", malformed_list), ("malformed line", climbing), ("label out of range", out_of_range),
    ("duplicate key", duplicate), ("duplicate key", duplicate_label), ("key in two lists", in_two_lists),
    ("key without label", without_label), ("stray file", stray), ("unlisted file", unlisted),
    ("suspect image", suspect), ("odd metadata", odd), ("unreadable image", postscript),
    ("unlisted key", of_no_training_image), ("true label of a wrong one", of_a_known_class),
    ("malformed line", malformed_wrong_list), ("same bytes as a test image", leaked), ("same bytes", copied),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "damage"), DAMAGES, ids=lambda value: getattr(value, "__name__", None))
def test_each_damage_is_found_alone(root: Path, kind: str, damage: Damage) -> None:
    before = check(root).found
    subject, detail = damage(root)
    after = check(root)
    new = {name: [entry for entry in after.found[name] if entry not in before.get(name, [])] for name in after.found}
    new = {name: entries for name, entries in new.items() if entries and name != "other data"}
    assert list(new) == [kind]
    [(found_subject, found_detail)] = new[kind]
    assert found_subject.endswith(subject)
    assert detail in found_detail
    assert after.num_problems == (1 if kind in PROBLEMS else 0)


def test_a_strict_check_counts_suspect_images(root: Path) -> None:
    for damage in (suspect, grey):
        damage(root)
    findings = check(root)
    assert (findings.num_problems, findings.num_suspects) == (0, 1)
    assert "note  suspect image: 1" in findings.summary()
    findings.strict = True
    assert findings.num_problems == 1
    assert findings.summary()[0] == "PROBLEM  suspect image: 1"


def test_all_damages_at_once(root: Path) -> None:
    damages = [malformed, out_of_range, duplicate, without_label, unlisted, zero_bytes]
    for damage in damages:
        damage(root)
    found = check(root).found
    for kind in ("malformed line", "label out of range", "duplicate key", "key without label", "unlisted file"):
        assert len(found[kind]) == 1
    assert len(found["zero-byte image"]) == 1


def test_text_files_in_the_root_with_the_image_folders(root: Path) -> None:
    for leaf in (root / "images").iterdir():
        leaf.rename(root / leaf.name)
    (root / "images").rmdir()
    assert check(root).num_problems == 0


def test_published_counts_are_expected_of_clothing1m_only(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = dict(zip(SPLITS, (120, 20, 12, 40), strict=True))
    monkeypatch.setattr(check_module, "PUBLISHED", counts)
    assert set(check(root).found) <= {"non-RGB image"}
    monkeypatch.setattr(check_module, "PUBLISHED", {**counts, "clean_val": 13})
    assert check(root).found["count"] == [("clean_val", "12 good keys; Clothing1M has 13")]
    assert sum(PUBLISHED.values()) == 1_072_409
