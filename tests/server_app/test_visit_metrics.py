"""What a server takes from clients that look at their models, and what it refuses."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client_app.app import app as client_app
from config.run_config import ConfigError, RunConfig
from data.release import open_release
from learning.schema import Schema, problem_of
from learning.server_half import ServerHalf
from messages import keys
from methods import build_method
from server_app.cache_lines import cache_lines
from server_app.clean_sets import data_digests
from server_app.expected import Expected, shared_metrics
from server_app.may_differ import decides
from server_app.members import Member, identity, known_members, roll_of
from server_app.roll_call import call_roll
from tests.fakes import InProcessGrid, partitions, run_in_process
from tests.server_app.test_cache_lines import NOTEBOOK, release

MEMBER = Member(1, 0, 24, np.full(4, 6), "cpu float32", eval_examples=6, held_out=6)
USUAL = {
    keys.NUM_EXAMPLES: 24, keys.TRAIN_LOSS: 0.5, keys.EPOCH_LOSSES: [0.5], keys.IMAGES_SEEN: 24,
    keys.TRAIN_SECONDS: 1.0, keys.VISIT_SECONDS: 2.0,
}  # fmt: skip
BEFORE = {keys.LOSS_BEFORE: 1.5, keys.AGREEMENT_BEFORE: 0.25, keys.STATE_LOST: 0}
AFTER = {keys.LOSS_AFTER: 0.75, keys.AGREEMENT_AFTER: 0.5}
OWN = {
    keys.OWN_EXAMPLES: 6, keys.OWN_LOSS_BEFORE: 1.5, keys.OWN_ACCURACY_BEFORE: 0.5, keys.OWN_LOSS_AFTER: 1.0,
    keys.OWN_ACCURACY_AFTER: 1.0,
}  # fmt: skip


def _schema(**values: Any) -> Schema:
    config = RunConfig(**values)
    return Expected(config, build_method(config), 4).in_training(MEMBER, {})[keys.METRICS]


@pytest.mark.parametrize(
    ("values", "more"),
    [
        ({}, {}),
        ({"inspection": "before"}, BEFORE),
        ({"inspection": "both"}, {**BEFORE, **AFTER}),
        ({"holdout_fraction": 0.2}, OWN),
        ({"inspection": "both", "holdout_fraction": 0.2}, {**BEFORE, **AFTER, **OWN}),
    ],
)
def test_a_reply_holds_what_was_asked_for_and_nothing_else(values: dict[str, Any], more: dict[str, Any]) -> None:
    schema = _schema(**values)
    assert problem_of({**USUAL, **more}, schema) is None
    for name in more:
        assert (
            problem_of({**USUAL, **{one: more[one] for one in more if one != name}}, schema) == f"{name!r} is missing"
        )
    for name, value in {**BEFORE, **AFTER, **OWN, keys.CHANGED: 0.5}.items():
        optional = name == keys.CHANGED and "inspection" in values
        if name not in more:
            found = problem_of({**USUAL, **more, name: value}, schema)
            assert found == (None if optional else f"{name!r} is not among the values that are expected")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (keys.LOSS_BEFORE, math.nan), (keys.LOSS_BEFORE, -0.1), (keys.LOSS_AFTER, math.inf),
        (keys.AGREEMENT_BEFORE, 1.01), (keys.AGREEMENT_AFTER, -0.01), (keys.CHANGED, 1.5), (keys.CHANGED, math.nan),
        (keys.CHANGED, [0.5]), (keys.OWN_EXAMPLES, 7), (keys.OWN_EXAMPLES, 5), (keys.OWN_EXAMPLES, 10**9),
        (keys.OWN_LOSS_BEFORE, "0"), (keys.OWN_LOSS_AFTER, 1e31), (keys.OWN_ACCURACY_BEFORE, True),
        (keys.OWN_ACCURACY_AFTER, 2), (keys.STATE_LOST, 0.5),
    ],
)  # fmt: skip
def test_impossible_values_are_refused(name: str, value: Any) -> None:
    """Above all a client cannot claim more images of its own than the roll call counted: they are its weight."""
    schema = _schema(inspection="both", holdout_fraction=0.2)
    problem = problem_of({**USUAL, **BEFORE, **AFTER, **OWN, name: value}, schema)
    assert problem is not None
    assert problem.startswith(f"{name!r} is ")


def test_a_client_that_can_read_nothing_of_what_it_holds_out_reports_nothing_of_it() -> None:
    config = RunConfig(holdout_fraction=0.2)
    schema = Expected(config, build_method(config), 4).in_training(replace(MEMBER, held_out=0), {})[keys.METRICS]
    assert problem_of({**USUAL, keys.OWN_EXAMPLES: 0}, schema) is None
    assert problem_of({**USUAL, keys.OWN_EXAMPLES: 6}, schema) == "'own-examples' is 6; it must be 0"
    assert problem_of({**USUAL, **OWN, keys.OWN_EXAMPLES: 0}, schema) is not None


def test_only_what_every_client_reports_reaches_the_strategy() -> None:
    """At its first visit a client has nothing to compare predictions with, and Flower wants the same names of all."""
    shared = shared_metrics([{keys.METRICS: _schema(inspection="both", holdout_fraction=0.2)}] * 2)
    assert {*BEFORE, *AFTER, *OWN} <= shared
    assert keys.CHANGED not in shared


def test_the_roll_call_counts_what_clients_hold_out(tiny_sample: Path) -> None:
    def members(**values: Any) -> list[Member]:
        config = RunConfig(data_dir=str(tiny_sample), image_size=16, batch_size=4, **values)
        return call_roll(InProcessGrid(client_app, partitions(3)), config, open_release(tiny_sample).class_names, 3)

    plain, own = members(), members(holdout_fraction=0.1, eval_split="own", fraction_evaluate=1.0)
    assert [(one.num_examples, one.held_out, one.eval_examples) for one in plain] == [(40, 0, 0)] * 3
    assert [(one.num_examples, one.held_out, one.eval_examples) for one in own] == [(36, 4, 4)] * 3
    silent = members(holdout_fraction=0.1)
    assert [(one.num_examples, one.held_out, one.eval_examples) for one in silent] == [(36, 4, 0)] * 3
    assert len({identity(one) for one in (*plain, *own, *silent)}) == 9  # a resumed run has other clients
    assert [identity(one) for one in known_members(roll_of(own))] == [identity(one) for one in own]


def test_the_cache_must_hold_what_is_held_out_once() -> None:
    """Ten clients of 9,000 + 1,000 images of 224 pixels take 14.0 GiB, whatever the last are for."""
    ten = [Member(n, n, 9_000, np.zeros(14, np.int64), "cpu float32", held_out=1_000) for n in range(10)]
    both = [replace(one, eval_examples=1_000) for one in ten]
    config = replace(NOTEBOOK, test_split="none", holdout_fraction=0.1)
    own = replace(config, fraction_evaluate=1.0, eval_split="own")
    clean = replace(own, eval_split="clean_val")
    for kept, members, gib in ((config, ten, 14.02), (own, both, 14.02), (clean, both, 15.43)):
        assert cache_lines(replace(kept, cache_gib=gib), release(0), members, 5) == []
        assert cache_lines(replace(kept, cache_gib=gib - 0.1), release(0), members, 5) != []


def test_clean_val_may_change_if_nobody_evaluates_on_it(tiny_sample: Path) -> None:
    opened = open_release(tiny_sample)
    config = RunConfig(fraction_evaluate=1.0, val_split="none")
    assert "clean_val" in data_digests(opened, config, ServerHalf())
    own = replace(config, eval_split="own", holdout_fraction=0.1)
    assert "clean_val" not in data_digests(opened, own, ServerHalf())


@pytest.mark.parametrize("key", ["test-split", "val-split", "eval-split", "inspection", "holdout-fraction"])
def test_what_is_looked_at_stays_when_a_run_is_resumed(key: str) -> None:
    assert decides(key, RunConfig().to_flat())


def test_a_run_is_not_resumed_with_other_looks(tmp_path: Path, tiny_sample: Path) -> None:
    usual: dict[str, Any] = {"model": "cnn", "image_size": 16, "num_server_rounds": 1, "data_dir": str(tiny_sample)}
    run_dir = run_in_process(tmp_path, **usual)
    with pytest.raises(ConfigError, match=r"'inspection' was 'none' and is now 'before'"):
        run_in_process(tmp_path, **usual, inspection="before", resume=str(run_dir))
