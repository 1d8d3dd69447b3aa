"""Optimisers, schedules and layers that draw, over a whole run: its metrics, and the same end after a cut."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Context, Message
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from client_app.app import app as client_app
from config.run_config import ConfigError
from learning.replica import kept_replica
from models import small_cnn
from tests.fakes import CutOffError, cut_off_in, rounds_of, run_in_process
from tests.server_app.test_resume import assert_same_run, settings

RECIPE: dict[str, Any] = {
    "optimizer": "adamw", "lr_schedule": "cosine", "lr_warm_up": 1, "gradient_clipping": 1.0, "learning_rate": 0.001,
}  # fmt: skip
RATES = [0.0005, 0.001, 0.00075, 0.00025]


class Drawing(nn.Module):
    """A tiny network that draws in training."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 8, 3, 2)
        self.depth = StochasticDepth(0.3, "row")
        self.dropout = nn.Dropout(0.3)
        self.fc = nn.Linear(8, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        features = self.body(inputs).relu().mean(dim=(2, 3))
        answer: Tensor = self.fc(self.dropout(features + self.depth(features)))
        return answer


@pytest.fixture
def _drawing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    kept_replica.cache_clear()
    monkeypatch.setattr(small_cnn, "cnn", Drawing)
    yield
    kept_replica.cache_clear()


def _disturbed(message: Message, context: Context) -> Message:
    """A client whose process has drawn before, as after another client's visit."""
    torch.rand(int(context.node_id) % 7 + 1)
    return client_app(message, context)


@pytest.mark.usefixtures("_drawing")
def test_a_recipe_ends_the_same_after_a_cut_and_in_processes_that_have_drawn_before(
    tmp_path: Path, tiny_sample: Path
) -> None:
    undisturbed = run_in_process(tmp_path / "undisturbed", **settings(tiny_sample, **RECIPE))
    assert [line["learning-rate"] for line in rounds_of(undisturbed)] == pytest.approx(RATES)
    with pytest.raises(CutOffError):  # in round 3
        run_in_process(tmp_path / "cut", handler=cut_off_in(5), **settings(tiny_sample, **RECIPE))
    torch.manual_seed(99)
    run_in_process(tmp_path / "cut", handler=_disturbed, **settings(tiny_sample, **RECIPE, resume="auto"))
    assert_same_run(tmp_path / "cut" / "run", undisturbed)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_more_rounds_are_refused_where_rates_depend_on_their_number(
    tmp_path: Path, tiny_sample: Path, schedule: str
) -> None:
    run_dir = run_in_process(tmp_path, **settings(tiny_sample, lr_schedule=schedule, num_server_rounds=2))
    before = (run_dir / "metrics.jsonl").read_bytes()
    sentence = (
        f"run config: 'num-server-rounds' is 4, but the 'lr-schedule' of the resumed run is {schedule}, whose rates"
        " depend on that number; it must be 2, as before (runs with constant or step can have more)."
    )
    for resume in ("auto", str(run_dir)):
        with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}$"):
            run_in_process(tmp_path, **settings(tiny_sample, lr_schedule=schedule, resume=resume))
    assert (run_dir / "metrics.jsonl").read_bytes() == before
    # Without a name, `auto` looks for a run with the same config: there is none, so a new one begins.
    run_in_process(tmp_path, **settings(tiny_sample, lr_schedule=schedule, resume="auto", run_name=""))
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 2


def test_a_run_with_steps_can_be_given_more_rounds(tmp_path: Path, tiny_sample: Path) -> None:
    recipe = {"lr_schedule": "step", "lr_schedule_args": "every=1 gamma=0.5", "lr_warm_up": 1}
    whole = run_in_process(tmp_path / "whole", **settings(tiny_sample, **recipe))
    assert [line["learning-rate"] for line in rounds_of(whole)] == pytest.approx([0.002, 0.004, 0.002, 0.001])
    run_in_process(tmp_path / "two", **settings(tiny_sample, **recipe, num_server_rounds=2))
    run_in_process(tmp_path / "two", **settings(tiny_sample, **recipe, resume=str(tmp_path / "two" / "run")))
    assert_same_run(tmp_path / "two" / "run", whole)
