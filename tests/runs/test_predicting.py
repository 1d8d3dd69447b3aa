"""`python -m runs predict`: each photo as training would have it, whatever its format; what cannot be read is named."""

import csv
import io
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image, features
from safetensors import safe_open

from data.images.decode import resize
from data.images.formats import readable
from data.images.loading import load_images
from data.images.photo import read_photo
from data.images.pixels import StoredPixels
from data.release import open_release
from data.sources.folder import Shares, import_folder
from learning.images import Images
from learning.inference import Inference
from runs.__main__ import main
from runs.model.opened import OpenedModel, open_model
from runs.model.predicting import classify
from tests.odd_values import is_a_sentence
from tests.runs.folders import Said
from tests.runs.models import make_run

Runs = Callable[..., Said]
EXIF = 0x0112


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_sample: Path) -> Path:
    return make_run(tmp_path_factory.mktemp("runs"), tiny_sample, "run", learning_rate=0.1)


def picture(mode: str = "RGB") -> Image.Image:
    """No two corners are alike, and neither are its sides."""
    values = np.random.default_rng(3).integers(0, 256, (6, 9, 3), np.uint8)
    return Image.fromarray(values).resize((45, 30), Image.Resampling.BICUBIC).convert(mode)


def write_photos(folder: Path) -> list[Path]:
    """One of each kind."""
    folder.mkdir(parents=True)
    turned = Image.Exif()
    turned[EXIF] = 6
    picture().save(folder / "turned.jpg", exif=turned)
    picture("CMYK").save(folder / "cmyk.jpg")
    picture("L").save(folder / "grey.jpg")
    transparent = picture("RGBA")
    transparent.putalpha(Image.linear_gradient("L").resize(transparent.size))
    transparent.save(folder / "transparent.png")
    deep = np.arange(30 * 45, dtype=np.uint16).reshape(30, 45) * 48
    Image.fromarray(deep).save(folder / "16 bits.png")
    picture("P").save(folder / "palette.gif")
    picture().save(folder / "photo.webp", exif=turned)
    picture().save(folder / "scan.tiff", tiffinfo={EXIF: 3})
    if "AVIF" in readable():
        picture().save(folder / "photo.avif")
    if "HEIF" in readable():
        picture().save(folder / "phone.heic")
    return sorted(folder.iterdir())


def in_training(opened: OpenedModel, root: Path, split: str) -> dict[str, np.ndarray]:
    """Probabilities, by a photo's name, from what a client computes on its own images."""
    release = open_release(root)
    listed, size = release.split(split), opened.facts.image_size
    pixels = StoredPixels(load_images(release, listed.keys, size))
    inference = Inference(Images(pixels, opened.compute.device), size, opened.compute, opened.facts.numbers)
    found = inference.on_all(opened.model).softmax(dim=1).numpy()
    names = [Path(release.store.place(bytes(key))).name for key in listed.keys]
    return dict(zip(names, found, strict=True))


def test_a_photo_of_each_format_is_treated_as_training_would(run: Path, tmp_path: Path) -> None:
    opened = open_model(run)
    photos = write_photos(tmp_path / "photos" / "a")
    (tmp_path / "photos" / "b").mkdir()
    assert features.check("webp")
    assert len(photos) >= 8
    expected = in_training(opened, tmp_path / "photos", "noisy_train")
    found, problems = classify(opened, sorted(photos), top=14)
    assert not problems
    assert [one.path for one in found] == photos
    for one in found:
        assert one.probabilities.tolist() == expected[one.path.name][one.classes].tolist(), one.path.name
        assert one.probabilities.tolist() == sorted(one.probabilities.tolist(), reverse=True)
    assert len({tuple(one.probabilities.tolist()) for one in found}) == len(found)


def test_jpegs_are_those_of_an_import_as_well(tmp_path: Path) -> None:
    """Which stores other formats as JPEG, so that their pixels are a little others."""
    turned = Image.Exif()
    turned[EXIF] = 8
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(4):
            path = tmp_path / "photos" / name / f"{number}.jpg"
            picture("CMYK" if number == 3 else "RGB").rotate(40 * number).save(path, exif=turned)
    import_folder(tmp_path / "photos", tmp_path / "release", Shares(), 0.0, 1)
    release = open_release(tmp_path / "release")
    imported = {load_images(release, release.index.keys[[row]], 16).tobytes() for row in range(8)}
    photos = sorted((tmp_path / "photos").rglob("*.jpg"))
    assert {resize(read_photo(path), 16, 16).tobytes() for path in photos} == imported


def test_a_photo_is_turned_upright(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos")
    picture().save(tmp_path / "plain.jpg")
    upright = read_photo(tmp_path / "photos" / "turned.jpg").astype(int)
    plain = np.rot90(read_photo(tmp_path / "plain.jpg"), 3).astype(int)
    assert upright.shape == (45, 30, 3)
    assert np.abs(upright - plain).mean() < 6


def test_damaged_files_are_named_and_do_not_stop_it(run: Path, tmp_path: Path, runs: Runs) -> None:
    good = tmp_path / "good.jpg"
    picture().save(good)
    (tmp_path / "cut.jpg").write_bytes(good.read_bytes()[:300])
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.webp").touch()
    os.mkfifo(tmp_path / "pipe.jpg")
    bad = [tmp_path / name for name in ("cut.jpg", "text.png", "empty.webp", "pipe.jpg", "absent.jpg")]
    said = runs("predict", run, good, *bad)
    assert said.code == 0
    assert "good.jpg" in said.out
    lines = said.err.strip().splitlines()
    assert [line.split(" ")[4] for line in lines] == [str(path) for path in bad]
    assert all(map(is_a_sentence, lines))
    found = runs("predict", run, good, *bad, "--json").json
    assert [one["photo"] for one in found["not-read"]] == [str(path) for path in bad]
    assert all(is_a_sentence(one["reason"]) for one in found["not-read"])
    assert [one["photo"] for one in found["photos"]] == [str(good)]
    said = runs("predict", run, *bad, "--json")
    assert said.code == 1
    assert json.loads(said.out)["photos"] == []
    assert len(json.loads(said.out)["not-read"]) == 5
    assert said.err.endswith("python -m runs: none of 5 photos can be read.\n")
    said = runs("predict", run, bad[0])
    assert (said.code, said.out) == (1, "")
    assert said.err.endswith("python -m runs: the photo cannot be read.\n")


def test_a_folder_means_its_images_and_those_below(run: Path, tmp_path: Path, runs: Runs) -> None:
    photos = write_photos(tmp_path / "photos" / "inner")
    (tmp_path / "photos" / ".hidden.jpg").touch()
    (tmp_path / "photos" / "notes.txt").touch()
    (tmp_path / "photos" / "link").symlink_to(tmp_path)
    (tmp_path / "photos" / "nothing.jpg").symlink_to(tmp_path / "absent")
    (tmp_path / "photos" / "nothing.png").symlink_to(tmp_path / "absent")
    said = runs("predict", run, tmp_path / "photos", photos[0], "--csv")
    assert said.out.startswith("\ufeff")  # or Excel takes it for another encoding
    rows = list(csv.DictReader(io.StringIO(said.out[1:])))
    assert [row["photo"] for row in rows] == [str(path) for path in photos]  # each once
    why = "2 links that lead nowhere, 1 hidden, 1 link to a folder, not followed, 1 .txt"
    assert said.err == f"python -m runs predict: {tmp_path / 'photos'}: 5 files left out ({why}).\n"
    for suffix in ("doc", "xls"):
        (tmp_path / "photos" / f"a.{suffix}").touch()
    assert ", 2 others).\n" in runs("predict", run, tmp_path / "photos").err
    (tmp_path / "none").mkdir()
    said = runs("predict", run, tmp_path / "none")
    assert (said.code, said.err) == (1, f"python -m runs: there are no photos in {tmp_path / 'none'}.\n")
    said = runs("predict", run, tmp_path / "photos", "")
    assert (said.code, said.err) == (
        1,
        "python -m runs: PHOTO is empty; it must be an image file, or a folder of them.\n",
    )


def test_table_csv_and_json_say_the_same(run: Path, tmp_path: Path, runs: Runs) -> None:
    photos = write_photos(tmp_path / "photos")
    found = runs("predict", run, *photos, "--top", 3, "--json").json
    assert (found["round"], found["model"]) == (2, str(run / "model.safetensors"))
    rows = list(csv.DictReader(io.StringIO(runs("predict", run, *photos, "--top", 3, "--csv").out[1:])))
    table = runs("predict", run, *photos, "--top", 3).out
    assert len(rows) == len(found["photos"]) == len(photos)
    for row, one in zip(rows, found["photos"], strict=True):
        assert row["photo"] == one["photo"]
        for place, named in zip(("", " 2", " 3"), one["classes"], strict=True):
            assert row[f"class{place}"] == named["class"]
            assert math.isclose(float(row[f"probability{place}"]), named["probability"], rel_tol=1e-6)
        first, share = one["classes"][0]["class"], 100 * one["classes"][0]["probability"]
        assert any(
            one["photo"] in line and f"{first}" in line and f"{share:.1f} %" in line for line in table.split("\n")
        )
    assert len(runs("predict", run, photos[0], "--top", 99, "--json").json["photos"][0]["classes"]) == 14
    assert runs("predict", run, photos[0], "--csv", "--json").code == 1


def test_names_of_others_change_nothing(run: Path, tmp_path: Path, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    odd = ["=1+1.jpg", "[bold]x.jpg", "a\nb.jpg", "\x1b[31m.jpg"]
    for name in odd:
        picture().save(tmp_path / name)
    bytes_only = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    os.rename(tmp_path / "a\nb.jpg", bytes_only)  # noqa: PTH104
    out = runs("predict", run, "=1+1.jpg", "[bold]x.jpg", "\x1b[31m.jpg", ".", "--csv").out
    assert next(csv.DictReader(io.StringIO(out[1:])))["photo"] == "'=1+1.jpg"
    table = runs("predict", run, "[bold]x.jpg", ".").out
    assert "[bold]x.jpg" in table
    assert "\x1b" not in table
    Path(os.fsdecode(b"caf\xe8.jpg")).touch()
    found = runs("predict", run, ".", "--json").json
    assert r"caf\xe9.jpg" in [one["photo"] for one in found["photos"]]
    assert [one["photo"] for one in found["not-read"]] == [r"caf\xe8.jpg"]
    monkeypatch.setattr("sys.argv", ["x", "predict", str(run), os.fsdecode(b"caf\xe9.jpg")])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    monkeypatch.setattr("sys.argv", ["x", "show", os.fsdecode(b"caf\xe9.jpg")])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1


def test_a_contact_sheet(run: Path, tmp_path: Path, runs: Runs) -> None:
    write_photos(tmp_path / "photos")
    assert runs("predict", run, tmp_path / "photos", "--contact-sheet", tmp_path / "sheet.png").code == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert min(sheet.size) > 300


def test_a_contact_sheet_keeps_small_pictures_of_as_many_as_it_shows(run: Path, tmp_path: Path) -> None:
    Image.new("RGB", (800, 400)).save(tmp_path / "large.png")
    (tmp_path / "broken.png").touch()
    paths = [tmp_path / "broken.png", *[tmp_path / "large.png"] * 400]
    found, _ = classify(open_model(run), paths, tiles=3)
    assert all(one.tile is not None and one.tile.shape == (80, 160, 3) for one in found[:3])
    assert found[-1].tile is None
    assert classify(open_model(run), paths[1:2])[0][0].tile is None


def test_a_model_of_numbers_that_are_none(run: Path, tmp_path: Path, runs: Runs) -> None:
    weights: dict[str, Any] = safetensors.torch.load_file(run / "model.safetensors")
    with safe_open(run / "model.safetensors", "pt") as file:
        about = file.metadata()
    weights["fc.bias"] = torch.full_like(weights["fc.bias"], math.nan)
    safetensors.torch.save_file(weights, tmp_path / "nan.safetensors", about)
    picture().save(tmp_path / "a.jpg")
    said = runs("predict", tmp_path / "nan.safetensors", tmp_path / "a.jpg", "--json")
    assert (said.code, said.out) == (1, "")
    assert said.err == (
        f"python -m runs: {tmp_path / 'nan.safetensors'} cannot be used: its weights are no finite numbers, 'fc.bias'"
        " for one.\n"
    )
