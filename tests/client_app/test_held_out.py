"""What a client trains on and what it holds out, as the holder of a slice and at a site."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message

from client_app import local_data
from client_app.app import app as client_app
from client_app.local_data import Site
from config.run_config import RunConfig
from data.errors import DataError
from data.release import CLEAN_LABELS, LIST_FILES, Split, open_release
from messages import keys
from server_app.roll_call import call_roll
from tests.fakes import InProcessGrid, rounds_of, run_in_process

NODES: list[dict[str, Any]] = [{"partition-id": client, "num-partitions": 4} for client in range(4)]
SITE: dict[str, Any] = {}


def _config(folder: Path, **values: Any) -> RunConfig:
    usual = {"data_dir": str(folder), "batch_size": 8, "image_size": 16, "holdout_fraction": 0.2}
    return RunConfig(**{**usual, **values})


def _parts(node: dict[str, Any], config: RunConfig) -> tuple[Split, Split]:
    site = Site.resolve(node, config)
    return local_data.training_data(site, config), local_data.held_out_data(site, config)


@pytest.mark.parametrize("node", [*NODES, SITE])
def test_together_they_are_what_the_client_has(node: dict[str, Any], tiny_sample: Path) -> None:
    noise: dict[str, Any] = {"label_noise": "symmetric", "label_noise_args": "rate=0.5"}
    training, own = _parts(node, _config(tiny_sample, **noise))
    whole = _config(tiny_sample, holdout_fraction=0.0, **noise)
    everything = local_data.training_data(Site.resolve(node, whole), whole)
    assert len(own.keys) == len(everything.keys) // 5
    assert not set(own.keys.tolist()) & set(training.keys.tolist())
    facts = {key: (label, true) for key, label, true in _rows(everything)}
    assert {key: (label, true) for part in (training, own) for key, label, true in _rows(part)} == facts
    order = everything.keys.tolist()
    for part in (training, own):
        assert [key for key, _, _ in _rows(part)] == [key for key in order if key in set(part.keys.tolist())]


def _rows(split: Split) -> list[tuple[bytes, int, int]]:
    return list(zip(split.keys.tolist(), split.labels.tolist(), split.true.tolist(), strict=True))


@pytest.mark.parametrize(
    "values",
    [
        {"label_noise": "symmetric", "label_noise_args": "rate=0.9"},
        {"augmentation": "crop-flip", "image_size": 32, "method": "elr"},
    ],
)
@pytest.mark.parametrize("node", [NODES[0], SITE])
def test_only_the_seed_and_the_images_have_a_say(
    node: dict[str, Any], values: dict[str, Any], tiny_sample: Path
) -> None:
    _, own = _parts(node, _config(tiny_sample))
    _, same = _parts(node, _config(tiny_sample, **values))
    assert same.keys.tolist() == own.keys.tolist()
    site = Site.resolve(SITE, _config(tiny_sample))
    others = [local_data.held_out_data(site, _config(tiny_sample, seed=seed)).keys.tolist() for seed in (1, 2)]
    assert others[0] != others[1]


def test_evaluation_is_on_the_own_images_or_on_clean_val(tiny_sample: Path) -> None:
    own = _config(tiny_sample, eval_split="own", fraction_evaluate=1.0)
    site = Site.resolve(NODES[2], own)
    held_out = local_data.held_out_data(site, own)
    assert local_data.evaluation_data(site, own).digest == held_out.digest
    clean = _config(tiny_sample, fraction_evaluate=1.0)
    assert local_data.evaluation_data(site, clean).name == "clean_val"


def test_no_clean_val_is_needed_for_the_own_images(tiny_sample: Path, tmp_path: Path) -> None:
    root = shutil.copytree(tiny_sample, tmp_path / "release")
    (root / LIST_FILES["clean_val"]).write_text("")
    config = _config(root, eval_split="own", fraction_evaluate=1.0)
    (member, *_) = call_roll(InProcessGrid(client_app, NODES), config, open_release(root).class_names, 4)
    assert (member.num_examples, member.eval_examples, member.held_out) == (24, 6, 6)
    assert member.histogram.sum() == 24
    clean = _config(root, fraction_evaluate=1.0)
    with pytest.raises(DataError, match=r"clean_val.* is empty"):
        local_data.evaluation_data(Site.resolve(NODES[0], clean), clean)


def test_without_a_holdout_the_roll_call_says_nothing_of_it(tiny_sample: Path) -> None:
    replies: list[Message] = []

    def handler(message: Message, context: Any) -> Message:
        replies.append(client_app(message, context))
        return replies[-1]

    config = _config(tiny_sample, holdout_fraction=0.0)
    members = call_roll(InProcessGrid(handler, NODES), config, open_release(tiny_sample).class_names, 4)
    assert {member.held_out for member in members} == {0}
    assert not [one for one in replies if keys.OWN_EXAMPLES in one.content[keys.FACTS]]


@pytest.mark.parametrize("node", [{"partition-id": 1, "num-partitions": 120}, SITE])
def test_a_single_image_cannot_be_divided(node: dict[str, Any], tiny_sample: Path, tmp_path: Path) -> None:
    root = shutil.copytree(tiny_sample, tmp_path / "release")
    if node is SITE:
        path = root / LIST_FILES["noisy_train"]
        path.write_text(path.read_text().splitlines(keepends=True)[0])
    holder = f"'{root}'" if node is SITE else "partition 1"
    with pytest.raises(DataError) as caught:
        _parts(node, _config(root, batch_size=1))
    assert str(caught.value) == (
        f"run config: 'holdout-fraction' is 0.2, but {holder} holds only 1 image; it must be 0, or each client must"
        " hold at least 2."
    )


def test_a_batch_must_fit_what_is_left_to_train_on(tiny_sample: Path) -> None:
    with pytest.raises(DataError) as caught:
        _parts(NODES[3], _config(tiny_sample, batch_size=25))
    assert str(caught.value) == (
        "run config: 'batch-size' is 25, but partition 3 holds only 24 images to train on and 'drop-last' leaves"
        " incomplete batches out; it must be at most 24."
    )
    _parts(NODES[3], _config(tiny_sample, batch_size=24))
    one = {"partition-id": 1, "num-partitions": 120}
    with pytest.raises(DataError, match=r"but partition 1 holds only 1 image and 'drop-last' leaves .* at most 1\.$"):
        _parts(one, _config(tiny_sample, batch_size=2, holdout_fraction=0.0))


def test_bad_images_are_left_out_of_both_parts_and_change_neither(tiny_sample: Path, tmp_path: Path) -> None:
    root = shutil.copytree(tiny_sample, tmp_path / "release")
    config = _config(
        root, bad_images="skip", eval_split="own", fraction_evaluate=1.0, cache_dir=str(tmp_path / "cache")
    )
    site = Site.resolve(NODES[1], config)
    training, own = _parts(NODES[1], config)
    for part in (training, own):
        (root / part.keys[1].decode()).write_bytes(b"")
    local_data._cache.cache_clear()
    left, held_out = _parts(NODES[1], config)
    rows = [row for row in range(24) if row != 1]
    assert left.keys.tolist() == training.keys[rows].tolist()
    assert held_out.keys.tolist() == own.keys[[0, 2, 3, 4, 5]].tolist()
    assert local_data.evaluation_data(site, config).digest == held_out.digest
    bad = local_data.bad_images(site, config)
    assert [part.keys[1].decode() in said for part, said in zip((training, own), bad, strict=True)] == [True, True]
    local_data.look_at_images(site, config)


def test_nobody_stays_away_because_what_it_holds_out_cannot_be_read(tiny_sample: Path, tmp_path: Path) -> None:
    root = shutil.copytree(tiny_sample, tmp_path / "release")
    values: dict[str, Any] = {"bad_images": "skip", "model": "cnn", "cache_dir": str(tmp_path / "cache")}
    _, own = _parts(NODES[1], _config(root, **values))
    for key in own.keys:
        (root / key.decode()).write_bytes(b"")
    local_data._cache.cache_clear()
    done = run_in_process(
        tmp_path / "runs", nodes=NODES, data_dir=str(root), image_size=16, batch_size=8, fraction_train=1.0,
        holdout_fraction=0.2, **values,
    )  # fmt: skip
    visits = [json.loads(line) for line in (done / "clients.jsonl").read_text().splitlines()]
    assert {(one["client"], one["own-examples"], "own-accuracy-after" in one) for one in visits} == {
        (client, 0 if client == 1 else 6, client != 1) for client in range(4)
    }
    assert "own-accuracy-before" in rounds_of(done)[-1]
    config = _config(root, eval_split="own", fraction_evaluate=1.0, **values)
    with pytest.raises(DataError, match=r"none of 6 held-out images of partition 1 can be read; the first: image"):
        local_data.evaluation_data(Site.resolve(NODES[1], config), config)


def test_the_roll_call_looks_at_what_is_held_out(tiny_sample: Path, tmp_path: Path) -> None:
    root = shutil.copytree(tiny_sample, tmp_path / "release")
    config = _config(root, cache_dir=str(tmp_path / "cache"))
    _, own = _parts(NODES[1], config)
    (root / own.keys[0].decode()).write_bytes(b"")
    with pytest.raises(DataError, match=r"\(it is empty\); it must be a whole image file; with 'bad-images' as 'skip'"):
        local_data.look_at_images(Site.resolve(NODES[1], config), config)


def test_the_deal_is_the_same_for_all_fractions(tiny_sample: Path) -> None:
    digests = set()
    for fraction in (0.0, 0.1, 0.5):
        config = _config(tiny_sample, holdout_fraction=fraction)
        digests.add(local_data.deal_digest(Site.resolve(NODES[0], config), config))
    assert len(digests) == 1


def test_clean_labels_are_not_needed(tiny_sample: Path, tmp_path: Path) -> None:
    root = shutil.copytree(tiny_sample, tmp_path / "release")
    (root / CLEAN_LABELS).write_text("")
    for name in ("clean_train", "clean_val", "clean_test"):
        (root / LIST_FILES[name]).write_text("")
    training, own = _parts(SITE, _config(root))
    assert (len(training.keys), len(own.keys)) == (96, 24)
