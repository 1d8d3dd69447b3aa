"""A method whose server half tells each client numbers, which depend on what the clients have reported."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from learning.method import Batch, Method, Visit
from learning.schema import Number, Numbers, Schema
from learning.server_half import ServerHalf, Told
from methods import METHODS
from tests.fakes import CutOffError, cut_off_in, rounds_of, run_in_process


@dataclass(frozen=True)
class Telling(Method):
    """Sends a number and a list with the weights, which depend on what the server told."""

    def reports(self, told: Mapping[str, Told], classes: int) -> Schema:
        return {"heard": Number(low=0), "counts": Numbers(Number(low=0, whole=True), classes)}

    def begin(self, visit: Visit) -> None:
        visit.metrics["heard"] = float(visit.told["number"])  # type: ignore[arg-type]
        visit.metrics["counts"] = torch.bincount(visit.labels, minlength=visit.num_classes).double().tolist()

    def loss(self, batch: Batch, visit: Visit) -> Tensor:
        return cross_entropy(batch.logits, batch.labels)

    def on_server(self) -> "Adding":
        return Adding()


class Adding(ServerHalf):
    """Tells each client how many labels it has heard of so far, and remembers it."""

    total = 0.0

    def tell(self, partition: int) -> dict[str, Told]:
        return {"number": 100 * partition + self.total}

    def heard(self, server_round: int, replies: Mapping[int, Mapping[str, Any]]) -> None:
        self.total += sum(sum(reply["counts"]) for reply in replies.values())
        self.told = {partition: reply["heard"] for partition, reply in replies.items()}

    def metrics(self, server_round: int) -> dict[str, float]:
        return {f"told-{partition}": value for partition, value in self.told.items()}

    def state(self) -> dict[str, np.ndarray]:
        return {"total": np.array(self.total)}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        self.total = float(state["total"])


@pytest.mark.parametrize("cut", [False, True])
def test_both_halves_of_a_method_talk_to_each_other(
    tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch, cut: bool
) -> None:
    """Four clients with 30 images each, all of which train in each of three rounds."""
    monkeypatch.setitem(METHODS, "ce", Telling)
    settings: dict[str, Any] = {
        "data_dir": str(tiny_sample), "method": "ce", "image_size": 16, "fraction_train": 1.0, "num_server_rounds": 3,
        "resume": "auto",
    }  # fmt: skip
    if cut:
        with pytest.raises(CutOffError):
            run_in_process(tmp_path, handler=cut_off_in(6, after=True), **settings)
    run_dir = run_in_process(tmp_path, **settings)
    for line, before in zip(rounds_of(run_dir), (0, 120, 240), strict=True):
        assert [line[f"told-{client}"] for client in range(4)] == [100 * client + before for client in range(4)]
