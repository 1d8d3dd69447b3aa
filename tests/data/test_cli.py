"""`python -m data` as a user meets it."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[2]


def _data(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command, environment = [sys.executable, "-m", "data", *arguments], {**os.environ, **variables}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)


def test_sample_reports_where_and_how_many(tmp_path: Path) -> None:
    sizes = ["--train", "30", "--clean-train", "5", "--val", "4", "--test", "6", "--image-size", "16", "--seed", "3"]
    done = _data("sample", "--out", str(tmp_path / "s"), *sizes)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 's'}: 30 noisy train, 5 clean train, 4 val, 6 test images.\n"
    lists = {"noisy_train": 30, "clean_train": 5, "clean_val": 4, "clean_test": 6}
    for split, count in lists.items():
        assert len((tmp_path / "s" / f"{split}_key_list.txt").read_text().split("\n")) == count

    again = _data("sample", "--out", str(tmp_path / "s"), *sizes)
    assert again.returncode == 1
    assert again.stderr.startswith("python -m data: ")
    assert "exists already" in again.stderr
    assert again.stderr.count("\n") == 1


def test_import_reports_where_and_how_many(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(10):
            Image.new("RGB", (8, 8), (20 * index, 0, 0)).save(tmp_path / "photos" / name / f"{index}.png")
    done = _data("import", str(tmp_path / "photos"), "--out", str(tmp_path / "out"), "--noise-rate", "0.1")
    assert done.returncode == 0, done.stderr
    assert "12 noisy_train, 2 clean_train, 2 clean_val, 4 clean_test images." in done.stdout

    assert done.stderr == ""
    drawn = _data("show", str(tmp_path / "out"), "--plot", str(tmp_path / "noise.png"))
    assert drawn.returncode == 0, drawn.stderr
    assert re.search(r"12 images of noisy train have a known true label; \d+\.\d% of their", drawn.stdout)
    assert (tmp_path / "noise.png").exists()

    (tmp_path / "photos" / "a" / "notes.txt").write_text("no image")
    again = _data("import", str(tmp_path / "photos"), "--out", str(tmp_path / "again"))
    assert again.stderr == f"Left out: 1 file (1 .txt), named in {tmp_path / 'again' / 'left-out.txt'}\n"

    missing = _data("import", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out2"))
    assert missing.returncode == 1
    assert "Traceback" not in missing.stderr
    assert "nowhere is not a folder" in missing.stderr


def test_import_turns_photos_and_names_what_it_leaves_out(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(8):
            kind = (".jpg", ".jfif", ".webp", ".avif")[index % 4]
            Image.new("RGB", (12, 8), (20 * index, 0, 0)).save(
                tmp_path / "photos" / name / f"{index}{kind}", exif=exif.tobytes()
            )
    (tmp_path / "photos" / "a" / "notes.txt").write_text("no image")
    (tmp_path / "photos" / "b" / "x.HEIC").write_bytes(b"\0\0\0\x1cftypheic")
    blocked = tmp_path / "without" / "pillow_heif.py"  # as where it is not installed
    blocked.parent.mkdir()
    blocked.write_text("raise ImportError")
    first = os.pathsep.join([str(blocked.parent), os.environ.get("PYTHONPATH", "")])
    done = _data("import", str(tmp_path / "photos"), "--out", str(tmp_path / "out"), PYTHONPATH=first)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        "Left out: 2 files (1 .txt, 1 .heic, which needs `pip install pillow-heif`), named in "
        f"{tmp_path / 'out' / 'left-out.txt'}"
    ]
    photos = list((tmp_path / "out" / "images").rglob("*.jpg"))
    assert len(photos) == 16
    for path in photos:
        with Image.open(path) as image:
            assert (image.size, image.format) == ((8, 12), "JPEG")


def test_check_hears_what_decoders_say(tiny_sample: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_sample, tmp_path / "release")
    path = sorted((tmp_path / "release" / "images").rglob("*.jpg"))[0]
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 4] + bytes(60) + data[len(data) * 3 // 4 + 60 :])
    arguments = ("check", str(tmp_path / "release"), "--out", str(tmp_path / "findings.tsv"))
    done = _data(*arguments)
    assert done.returncode == 0, done.stderr
    verdict = "complete, and all images can be decoded, but the pixels of 1 may be damaged."
    assert (
        done.stdout.splitlines()[-1] == f"{tmp_path / 'release'}: {verdict} All findings: {tmp_path / 'findings.tsv'}"
    )
    assert path.name in (tmp_path / "findings.tsv").read_text()
    strict = _data(*arguments, "--strict")
    assert strict.returncode == 1
    assert "PROBLEM  suspect image: 1" in strict.stdout
    assert "1 problems." in strict.stdout.splitlines()[-1]


def test_show_counts_labels_and_draws_the_noise_matrix(tiny_sample: Path, tmp_path: Path) -> None:
    done = _data("show", str(tiny_sample), "--plot", str(tmp_path / "noise.png"))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split("\n")
    assert lines[0].split() == ["class", "noisy_train", "clean_train", "clean_val", "clean_test", "noisy", "=", "clean"]
    assert lines[15].split()[:5] == ["all", "120", "20", "12", "40"]
    assert "carry a noisy label as well." in lines[16]
    with Image.open(tmp_path / "noise.png") as image:
        assert min(image.size) > 400

    broken = _data("show", str(tiny_sample), "--plot", str(tmp_path / "noise.png"), MPLBACKEND="none")
    assert broken.returncode == 1
    assert "noise.png, which cannot be drawn (ValueError: " in broken.stderr
    assert broken.stderr.count("\n") == 1

    wrong = _data("show", str(tiny_sample), "--plot", str(tmp_path / "noise.txt"))
    assert wrong.returncode == 1
    assert "must end in .png, .svg or .pdf" in wrong.stderr
    nothing = _data("show", str(tmp_path / "nowhere"))
    assert nothing.returncode == 1
    assert "does not exist" in nothing.stderr
    assert "Traceback" not in nothing.stderr


def test_forty_thousand_classes_are_refused_at_once(tiny_sample: Path, tmp_path: Path) -> None:
    root = tmp_path / "many"
    shutil.copytree(tiny_sample, root)
    (root / "category_names_eng.txt").write_text("\n".join(map(str, range(40_000))))
    for arguments in (["show", str(root)], ["partition", str(root), "--clients", "3"]):
        done = _data(*arguments)
        assert done.returncode == 1
        assert done.stderr == (
            f"python -m data: {root / 'category_names_eng.txt'} has 40,000 lines; it must have at most 32,767.\n"
        )
    (root / "category_names_eng.txt").write_text("\n".join(map(str, range(32_767))))
    shown = _data("show", str(root), "--plot", str(tmp_path / "noise.png"))
    assert shown.stdout.count("\n") > 32_767, shown.stderr
    assert (tmp_path / "noise.png").stat().st_size < 500_000
    scheme = ["--partition", "dirichlet", "--partition-args", "alpha=0.3"]
    dealt = _data("partition", str(root), "--clients", "3", *scheme, "--plot", str(tmp_path / "clients.png"))
    assert dealt.stdout.startswith("3 clients hold 120 of 120 images: "), dealt.stderr
    assert (tmp_path / "clients.png").stat().st_size < 500_000


def test_a_copy_with_other_names_is_matched(tiny_sample: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_sample, tmp_path / "release")
    for path in sorted((tmp_path / "release" / "images").rglob("*.jpg")):
        path.rename(path.with_suffix(".JPG"))
    assert "`python -m data match`" in _data("show", str(tmp_path / "release")).stderr
    done = _data("match", str(tmp_path / "release"), "--out", str(tmp_path / "matched"))
    assert done.stdout == (
        f"{tmp_path / 'matched'}: 192 links into {tmp_path / 'release'}, 192 of them to another name.\n"
    ), done.stderr
    assert _data("show", str(tmp_path / "matched")).stdout == _data("show", str(tiny_sample)).stdout


def test_partition_shows_who_holds_what(tiny_sample: Path, tmp_path: Path) -> None:
    arguments = ["partition", str(tiny_sample), "--clients", "6", "--partition", "dirichlet"]
    done = _data(*arguments, "--partition-args", "alpha=0.3 min-size=4", "--plot", str(tmp_path / "clients.png"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("6 clients hold 120 of 120 images: ")
    with Image.open(tmp_path / "clients.png") as image:
        assert min(image.size) > 400

    for bad, sentence in (
        ("alpha=x", "must be key=value pairs"),
        ("alpha=-1", "'alpha' of dirichlet is -1"),
        ("", "needs the argument 'alpha'"),
    ):
        refused = _data(*arguments, "--partition-args", bad)
        assert refused.returncode == 1
        assert sentence in refused.stderr
        assert "Traceback" not in refused.stderr


def test_check_reports_problems_by_its_exit_code(tiny_sample: Path, tmp_path: Path) -> None:
    out = tmp_path / "findings.tsv"
    sound = _data("check", str(tiny_sample), "--out", str(out))
    assert sound.returncode == 0, sound.stderr
    assert sound.stdout.startswith("192 images found; reading each of them.\n")
    assert sound.stdout.endswith(f"{tiny_sample}: complete and sound. All findings: {out}\n")

    root = tmp_path / "damaged"
    shutil.copytree(tiny_sample, root)
    key = (root / "clean_test_key_list.txt").read_text().split()[0]
    (root / key).write_bytes(b"")
    damaged = _data("check", str(root), "--out", str(out))
    assert damaged.returncode == 1
    assert "PROBLEM  zero-byte image: 1" in damaged.stdout
    assert f"{root}: 1 problems." in damaged.stdout
    assert damaged.stderr == ""
    assert f"zero-byte image\t{key}\tat {root / key}\n" in out.read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged", "findings.tsv"]

    nothing = _data("check", str(tmp_path / "absent"))
    assert nothing.returncode == 1
    assert nothing.stderr.count("\n") == 1


def test_ctrl_c_stops_a_check_in_one_sentence_and_the_next_one_resumes(tiny_sample: Path, tmp_path: Path) -> None:
    slow = (  # a background job of a shell ignores SIGINT
        "import runpy, signal, time; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from data.check import images as c; look = c._look_at; c.CHUNK = 2\n"
        "seen = []\n"
        "def slowly(*args):\n    seen.append(1); time.sleep(0.05 if len(seen) < 20 else 5)\n    return look(*args)\n"
        "c._look_at = slowly; runpy.run_module('data', run_name='__main__')"
    )
    out = tmp_path / "findings.tsv"
    command = [sys.executable, "-c", slow, "check", str(tiny_sample), "--out", str(out)]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    journal = tmp_path / "findings.tsv.progress"
    while not (journal.exists() and journal.stat().st_size > 200):
        assert child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    _, printed = child.communicate(timeout=600)
    assert child.returncode == 1
    assert re.fullmatch(
        r"python -m data: stopped after \d+ of 192 images; to resume, repeat the same `check` command\.\n", printed
    )
    done = _data("check", str(tiny_sample), "--out", str(out))
    assert done.returncode == 0
    assert not journal.exists()


def test_pack_partition_and_show_work_together(tiny_sample: Path, tmp_path: Path) -> None:
    pack = tmp_path / "tiny.pack"
    first = _data("pack", str(tiny_sample), "--out", str(pack))
    assert first.returncode == 0, first.stderr
    assert re.fullmatch(rf"{pack}: 192 images, 0\.\d MiB\.\n", first.stdout)
    assert _data("pack", str(tiny_sample), "--out", str(pack)).stdout.endswith("it already existed.\n")
    shown = [_data("show", str(place)).stdout for place in (tiny_sample, pack)]
    assert shown[0] == shown[1] != ""

    file = str(tmp_path / "parts.safetensors")
    options = ["--clients", "7", "--partition", "dirichlet", "--partition-args", "alpha=0.3"]
    saved = _data("partition", str(tiny_sample), *options, "--out", file)
    assert re.search(rf"{file}: sha256 [0-9a-f]{{64}}\n$", saved.stdout)
    loaded = _data(
        "partition", str(pack), "--clients", "7", "--partition", "file", "--partition-args", f"path='{file}'"
    )
    assert loaded.stdout == saved.stdout.splitlines(keepends=True)[0]

    decoded = _data("pack", str(tiny_sample), "--out", str(tmp_path / "pixels.pack"), "--decoded")
    assert decoded.returncode == 1
    assert decoded.stderr == "python -m data: --decoded needs --image-size, the side of the pixels to keep.\n"


def test_a_pack_killed_at_ten_random_moments_is_the_same_byte_for_byte(tiny_sample: Path, tmp_path: Path) -> None:
    _data("pack", str(tiny_sample), "--out", str(tmp_path / "undisturbed"))
    slow = (
        "import os, runpy, sys, threading; from data import pack_writer as p; p.CHUNK, p.SYNC_BYTES = 2, 1\n"
        "left, convert = int(sys.argv.pop(1)), p.Packing.convert\n"
        "def some(*args):\n"
        "    global left\n"
        "    left -= 1\n"
        "    if left < 0:\n        os.write(1, b'stuck\\n')\n        threading.Event().wait()\n"
        "    return convert(*args)\n"
        "p.Packing.convert = some; runpy.run_module('data', run_name='__main__')"
    )
    rows, moments = tmp_path / "killed.partial.rows", random.Random(7)

    def command(images: int) -> list[str]:
        """One that converts no more than that."""
        return [sys.executable, "-c", slow, str(images), "pack", str(tiny_sample), "--out", str(tmp_path / "killed")]

    for start in range(10):
        with subprocess.Popen(command(moments.randint(4, 18)), cwd=ROOT, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"stuck\n"
            time.sleep(moments.uniform(0, 0.12))
            while start == 9 and rows.stat().st_size <= 32:  # the start of the file
                time.sleep(0.01)
            child.kill()
        assert not (tmp_path / "killed").exists()
    last = subprocess.run(command(192), cwd=ROOT, capture_output=True, check=True)
    assert b"192 images" in last.stdout
    assert (tmp_path / "killed").read_bytes() == (tmp_path / "undisturbed").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "undisturbed"]
