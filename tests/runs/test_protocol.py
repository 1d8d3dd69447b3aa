"""Which runs may be compared and averaged, and the sentences on those that may not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runs.averaging import averaged
from runs.protocol import clients, differences, facts, setting, why_not_averaged
from runs.run import Run
from tests.odd_values import is_a_sentence
from tests.runs.made import DATA, line, made, without_record

DIRICHLET = {"partition": "dirichlet", "partition-args": "alpha=0.3"}
PATIENT = {"num-server-rounds": 100, "patience": 3}
STOPPED = {"reason": "Stopped after round 2 of 100: no better validation accuracy for 3 rounds ('patience')."}


def b(**more: Any) -> Run:
    return made(**{"name": "b", **more})


def test_runs_that_differ_in_what_is_compared_are_comparable() -> None:
    other = {"method": "gce", "strategy": "fedadam", "learning-rate": 0.5, "model": "cnn", "output-dir": "/elsewhere"}
    assert differences(made(), b(config=other)) == []
    assert differences(made(), b(config={"data-dir": "/elsewhere"})) == []  # digests say that it is the same


# What differs: the other run, and the sentence about it.
DIFFERENT: dict[str, tuple[Callable[[], Run], str]] = {
    "partition": (
        lambda: b(config=DIRICHLET, record={"held": "x"}),
        "The partition differs: iid in run, dirichlet (alpha=0.3) in b.",
    ),
    "dealt otherwise": (
        lambda: b(record={"held": "x"}),
        "The split of images between clients differs: held-1 in run, x in b.",
    ),
    "noise": (
        lambda: b(config={"label-noise": "symmetric", "label-noise-args": "rate=0.4"}),
        "The label noise differs: none in run, symmetric (rate=0.4) in b.",
    ),
    "train list": (lambda: b(config={"train-split": "clean"}), "The train list differs: noisy in run, clean in b."),
    "damaged": (
        lambda: b(config={"bad-images": "skip"}),
        "The treatment of damaged images differs: refuse in run, skip in b.",
    ),
    "clients": (lambda: b(record={"clients": 20}), "The number of clients differs: 10 in run, 20 in b."),
    "test": (
        lambda: b(record={"data": {**DATA, "clean_test": "ff" * 32}}),
        "The clean test list differs: 7e57 in run, ffffffffffff in b.",
    ),
    "training images": (
        lambda: b(record={"data": {**DATA, "train": "x"}}),
        "The list of training images differs: 77a1 in run, x in b.",
    ),
    "code": (lambda: b(record={"code": ["c0de", "n3w"]}), "The code differs: c0de in run, c0de+n3w in b."),
    "budget": (
        lambda: b(lines=[line(1, 0.5), line(2, 0.5, images_seen=103)]),
        "The number of images seen in training differs: 200 in run, 203 in b.",
    ),
    "validation": (
        lambda: b(config={"val-split": "clean_train"}, record={"data": {**DATA, "clean_train": "x"}}),
        "The list that picks the best round differs: clean_val (7a1) in run, clean_train (x) in b.",
    ),
    "evaluation": (
        lambda: b(config={"evaluate-every": 2}),
        "The schedule of evaluation differs: every round in run, every 2 rounds in b.",
    ),
    "not complete": (
        lambda: b(record={"how": ""}, config={"num-server-rounds": 5}),
        "b is not complete: interrupted after round 2 of 5.",
    ),
    "code unknown": (lambda: b(record={"code": []}), "The code is unknown for b."),
    "held unknown": (lambda: b(record={"held": ""}), "The split of images between clients is unknown for b."),
    "images unknown": (
        lambda: b(lines=[line(1, 0.5, images_seen=None)]),
        "The number of images seen in training is unknown for b.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DIFFERENT)
def test_each_difference_is_one_sentence(name: str) -> None:
    other, sentence = DIFFERENT[name]
    assert differences(made(), other()) == [sentence]
    assert len(differences(other(), made())) == 1  # the other way round as well
    assert is_a_sentence(sentence)


def test_nothing_is_equal_because_nobody_wrote_it_down() -> None:
    old = without_record(made(name="old")), without_record(made(name="older"))
    assert differences(*old) == [
        "The split of images between clients is unknown for old and for older.",
        "The clean test list is unknown for old and for older.",
        "The list of training images is unknown for old and for older.",
        "The code is unknown for old and for older.",
    ]
    assert why_not_averaged(*old) == differences(*old)[1:]


def test_a_config_that_cannot_be_read_is_unknown() -> None:
    broken = Run(Path("/runs/broken"), {}, [line(1, 0.5)], made().record, in_use=False)
    assert differences(made(), broken) == ["The config is unknown for broken."]
    assert why_not_averaged(made(), broken) == ["The config is unknown for broken."]
    assert setting(broken) == "settings unknown"


def test_runs_of_one_name_are_told_apart_by_their_parents() -> None:
    first, second = made(folder=Path("/one")), made(folder=Path("/two"), record={"code": ["x"]})
    assert differences(first, second) == ["The code differs: c0de in one/run, x in two/run."]


def test_other_seeds_hold_other_images() -> None:
    assert differences(made(), b(seed=2)) == []


def test_sites_with_lists_of_their_own_are_known_by_what_they_hold() -> None:
    alone = {"data": {"clean_test": "7e57"}}
    assert differences(made(record=alone), b(record=alone)) == []
    assert differences(made(), b(record=alone)) == []
    assert differences(made(record=alone), b(record={**alone, "held": "x"})) == [
        "The split of images between clients differs: held-1 in run, x in b.",
        "The list of training images is unknown for run and for b.",
    ]


def test_parameters_are_the_same_however_they_are_written() -> None:
    first, second = (
        {"partition": "dirichlet", "partition-args": args} for args in ("alpha=0.3 min-size=5", "min-size=5, alpha=0.3")
    )
    assert differences(made(config=first), b(config=second)) == []


def test_partitions_from_files_are_known_by_who_holds_what() -> None:
    first, second = ({"partition": "file", "partition-args": f"path='/{name}'"} for name in "xy")
    assert differences(made(config=first), b(config=second)) == []
    assert len(differences(made(config=first), b(config=second, record={"held": "x"}))) == 1


def test_budgets_may_differ_by_one_percent() -> None:
    first = made(lines=[line(1, 0.5, images_seen=1000)])
    assert differences(first, b(lines=[line(1, 0.5, images_seen=990)])) == []
    assert differences(first, b(lines=[line(1, 0.5, images_seen=989)])) != []


def test_a_run_without_validation_is_comparable() -> None:
    assert differences(made(), b(config={"val-split": "none"})) == []


def test_equal_rules_make_equal_budgets() -> None:
    short, long = ([line(n, 0.5) for n in range(1, rounds + 1)] for rounds in (2, 7))
    first = made(lines=short, config=PATIENT, record=STOPPED)
    assert differences(first, b(lines=long, config=PATIENT, record=STOPPED)) == []
    assert "images seen in training differs: 200 in run, 700 in b." in differences(first, b(lines=long))[0]
    other = differences(first, b(lines=long, config={**PATIENT, "patience": 4}, record=STOPPED))
    assert other == ["The number of images seen in training differs: 200 in run, 700 in b."]
    longer = b(lines=long, config={**PATIENT, "num-server-rounds": 50}, record=STOPPED)
    assert differences(first, longer) == other


def test_equal_rules_need_equal_rounds() -> None:
    slow = [line(n, 0.5, images_seen=500) for n in (1, 2)]
    found = differences(made(config=PATIENT, record=STOPPED), b(lines=slow, config=PATIENT, record=STOPPED))
    assert found == ["The number of images seen in a round differs: 100 in run, 500 in b."]


def test_hours_never_make_equal_budgets() -> None:
    reason = {"reason": "Stopped after round 2 of 100: its rounds have taken 2 hours ('max-hours')."}
    rule = {"num-server-rounds": 100, "max-hours": 2.0}
    long = [line(n, 0.5) for n in range(1, 8)]
    found = differences(made(config=rule, record=reason), b(lines=long, config=rule, record=reason))
    assert found == ["The number of images seen in training differs: 200 in run, 700 in b."]


def test_settings_in_words() -> None:
    noisy = {"label-noise": "symmetric", "label-noise-args": "rate=0.4"}
    assert setting(made(config=noisy)) == "symmetric noise (rate=0.4), iid, 10 clients"
    assert setting(made(config=DIRICHLET)) == "labels as released, dirichlet (alpha=0.3), 10 clients"
    mini = {"train-split": "noisy-mini", "bad-images": "skip"}
    assert setting(made(config=mini)) == (
        "labels as released, train list noisy-mini, iid, damaged images left out, 10 clients"
    )
    assert facts(made()) != facts(made(record={"data": {**DATA, "train": "x"}}))


def test_clients_are_counted_by_the_record_the_metrics_or_the_config() -> None:
    old = without_record(made())
    assert clients(old) == 10
    bare = Run(old.folder, {**old.config, "num-clients": 7}, [], None, in_use=False)
    assert clients(bare) == 7
    assert "unknown number" in setting(Run(old.folder, old.config, [], None, in_use=False))


def test_seeds_of_one_experiment_are_averaged() -> None:
    first, second = made(), b(seed=2, config={"data-dir": "/elsewhere", "output-dir": "/x", "num-clients": 10})
    assert why_not_averaged(first, second) == []
    third = b(seed=3, config={"learning-rate": 0.5, "momentum": 0.5}, record={"code": ["x"]})
    assert why_not_averaged(first, third) == [
        "'learning-rate' differs: 0.004 in run, 0.5 in b.",
        "'momentum' differs: 0.9 in run, 0.5 in b.",
        "The code differs: c0de in run, x in b.",
    ]


def test_the_largest_group_is_averaged() -> None:
    runs = [made(name=f"r{seed}", seed=seed, record={"code": ["x"] if seed == 2 else ["y"]}) for seed in (1, 2, 3)]
    kept, left = averaged(runs)
    assert [run.name for run in kept.values()] == ["r1", "r3"]
    assert left == ["r2 is not averaged with r1: The code differs: y in r1, x in r2."]


def test_of_groups_of_one_size_the_newest_is_averaged() -> None:
    runs = [made(name=f"r{seed}", seed=seed, record={"code": [f"c{seed}"]}) for seed in (1, 3, 2)]
    kept, left = averaged(runs)
    assert [run.name for run in kept.values()] == ["r3"]
    assert len(left) == 2


def test_a_seed_counts_once() -> None:
    """Also when groups are compared: three runs of one seed are no larger group than two of two."""
    twice = [made(name=f"old-{n}", seed=1, record={"code": ["x"]}) for n in (1, 2, 3)]
    kept, left = averaged([*twice, made(name="a", seed=1), made(name="b", seed=2)])
    assert [run.name for run in kept.values()] == ["a", "b"]
    assert len(left) == 3
    started = [
        made(name=name, record={"started": f"2026-01-0{day}T00:00:00+00:00"}) for name, day in (("a", 2), ("b", 1))
    ]
    kept, left = averaged(started)
    assert [run.name for run in kept.values()] == ["a"]
    assert left == ["b is left out: a is the same experiment with the same seed."]
