"""The client half of xiao."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from config.named import build_named
from config.run_config import ConfigError, RunConfig
from learning.method import Batch, Visit
from learning.training import train_locally
from methods import METHODS
from methods.noise_types import log_table
from methods.xiao import Xiao
from task import Compute, build_model, derived_generator
from tests.batches_of import Z, batch_of, visit_of
from tests.client_app.test_counted_work import CountedOperations

CPU = Compute(torch.device("cpu"), torch.float32)
CM = [[0.0, 0.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]  # rows given labels, columns classes
TYPES = [0.5, 0.2, 0.3]  # p(z | x)
LAST = {"server_round": 10, "num_rounds": 10}  # of stage 2


class Headed(nn.Module):
    """A network whose head of noise types answers `TYPES` to features of 0."""

    def __init__(self, types: list[float]) -> None:
        super().__init__()
        head = nn.Linear(2, 3, dtype=torch.float64)
        with torch.no_grad():
            head.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
            head.bias.copy_(torch.tensor(types, dtype=torch.float64).log())
        self.further_heads = nn.ModuleDict({"noise_types": head})


def _begun(labels: Tensor, matrix: list[list[float]] = CM, types: list[float] = TYPES, **values: Any) -> Visit:
    told = {"confusion": [value for row in matrix for value in row]}
    return visit_of(labels, len(matrix), told=told, networks=[Headed(types)], **{**LAST, **values})


def _loss(method: Xiao, visit: Visit, logits: Tensor, features: Tensor | None = None) -> Tensor:
    method.begin(visit)
    features = torch.zeros(len(logits), 2, dtype=torch.float64) if features is None else features
    return method.loss(batch_of(visit.labels, logits, features=features), visit)


def _head(visit: Visit) -> nn.Linear:
    head = visit.networks[0].get_submodule("further_heads.noise_types")
    assert isinstance(head, nn.Linear)
    return head


def test_worked_numbers() -> None:
    logits, visit = Z[:1].clone().requires_grad_(), _begun(torch.tensor([1]))
    loss = _loss(Xiao(type_rate=1.0), visit, logits)
    assert loss.item() == pytest.approx(0.873401, abs=1e-5)
    assert loss.neg().exp().item() == pytest.approx(0.417529, abs=1e-5)
    loss.backward()
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad[0], [0.032982, -0.034624, 0.001642], atol=1e-5)
    bias = _head(visit).bias.grad
    assert bias is not None
    np.testing.assert_allclose(bias, [0.290086, 0.002479, -0.292565], atol=1e-5)
    posterior = logits.detach().softmax(dim=1)[0] - logits.grad[0]
    np.testing.assert_allclose(posterior, [0.752615, 0.209914, 0.037471], atol=1e-5)
    np.testing.assert_allclose(torch.tensor(TYPES) - bias, [0.209914, 0.197521, 0.592564], atol=1e-5)


def test_defaults_are_the_papers() -> None:
    method = Xiao()
    assert (method.clean_weight, method.later_clean_weight, method.type_weight, method.type_rate) == (0.1, 1, 0.1, 0.1)
    assert (method.clean_epochs, method.type_epochs) == (round(15_000 * 128 / 47_570), round(5_000 * 128 / 24_637))
    assert method.first_stage == 100_000 / 160_000


@pytest.mark.parametrize("trunk", ["classes", "both"])
def test_the_gradient_of_types_has_its_own_rate_in_stage_2_and_reaches_the_trunk_if_asked_to(trunk: str) -> None:
    gradients = []
    for rate in (1.0, 0.1):
        visit, features = _begun(torch.tensor([1])), torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
        _loss(Xiao(type_rate=rate, trunk=trunk), visit, Z[:1], features).backward()
        gradients.append((_head(visit).bias.grad, features.grad))
    (whole, body), (tenth, tenth_body) = gradients
    assert whole is not None
    assert tenth is not None
    torch.testing.assert_close(tenth, 0.1 * whole)
    if trunk == "classes":
        assert body is tenth_body is None
    else:
        assert body is not None
        torch.testing.assert_close(tenth_body, 0.1 * body)


@pytest.mark.parametrize("method", [Xiao(), Xiao(type_rate=0.0, first_stage=0.0)])
def test_in_stage_1_or_without_a_rate_types_have_no_gradient(method: Xiao) -> None:
    visit, logits = _begun(torch.tensor([1]), server_round=6), Z[:1].clone().requires_grad_()
    features = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    loss = _loss(method, visit, logits, features)
    assert loss.item() == pytest.approx(0.873401, abs=1e-5)
    loss.backward()
    assert _head(visit).bias.grad is None
    assert features.grad is None
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad[0], [0.032982, -0.034624, 0.001642], atol=1e-5)


def test_the_stages_are_a_share_of_the_run_or_rounds() -> None:
    assert [Xiao().in_first_stage(number, 40) for number in (25, 26)] == [True, False]
    assert [Xiao(first_stage_rounds=3).in_first_stage(number, 40) for number in (3, 4)] == [True, False]
    assert not Xiao(first_stage_rounds=0).in_first_stage(1, 40)
    assert Xiao(first_stage=1.0).in_first_stage(40, 40)


def _by_sums(p: np.ndarray, q: np.ndarray, label: int, matrix: np.ndarray) -> float:
    """The evidence as the formula has it, class by class and type by type."""
    total = 0.0
    for y in range(len(p)):
        free, random = float(label == y), float(label != y) / (len(p) - 1)
        total += p[y] * (q[0] * free + q[1] * random + q[2] * matrix[label, y])
    return float(-np.log(total))


@given(st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_the_loss_is_the_formula_and_the_gradient_that_of_em(classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.random((classes, classes)) * (1 - np.eye(classes))
    matrix /= matrix.sum(axis=0)
    logits, labels = torch.tensor(rng.normal(0, 3, (4, classes))), torch.tensor(rng.integers(0, classes, 4))
    types = rng.dirichlet(np.ones(3)).clip(1e-6)
    types /= types.sum()
    visit, plain = _begun(labels, matrix.tolist(), types.tolist()), logits.clone().requires_grad_()
    loss = _loss(Xiao(type_rate=1.0), visit, plain)
    p = logits.softmax(dim=1).numpy()
    assert loss.item() == pytest.approx(
        np.mean([_by_sums(row, types, int(label), matrix) for row, label in zip(p, labels, strict=True)]), abs=1e-5
    )
    loss.backward()
    joint = np.exp(log_table(matrix))[labels] * p[:, :, None] * types[None, None]
    joint /= joint.sum(axis=(1, 2), keepdims=True)
    assert plain.grad is not None
    np.testing.assert_allclose(plain.grad, (p - joint.sum(axis=2)) / 4, atol=1e-5)
    bias = _head(visit).bias.grad
    assert bias is not None
    np.testing.assert_allclose(bias, types - joint.sum(axis=1).mean(axis=0), atol=1e-5)


def test_without_noise_it_is_cross_entropy() -> None:
    sure = _begun(torch.tensor([0, 2]), types=[1 - 2e-12, 1e-12, 1e-12])
    assert _loss(Xiao(), sure, Z).item() == pytest.approx(0.847437, abs=1e-5)


@pytest.mark.parametrize("label", [0, 1, 2])
def test_labels_and_classes_that_are_never_confused_leave_it_finite(label: int) -> None:
    """A column of zeros, a row of zeros, logits that leave no probability in float32."""
    nothing = [[0.0] * 3 for _ in range(3)]
    for matrix in (CM, nothing, [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]):
        for scale in (1.0, 300.0, -300.0):
            logits = (scale * torch.tensor([[1.0, 0.0, -1.0]])).requires_grad_()
            visit = _begun(torch.tensor([label]), matrix)
            with torch.no_grad():
                _head(visit).bias.mul_(100)
            loss = _loss(Xiao(trunk="both"), visit, logits)
            loss.backward()
            assert loss.isfinite()
            assert logits.grad is not None
            assert logits.grad.isfinite().all()
            bias = _head(visit).bias.grad
            assert bias is not None
            assert bias.isfinite().all()


def test_a_matrix_of_another_size_or_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="sent 4 numbers of confused classes; for 3 classes there must be 9"):
        Xiao().begin(visit_of(torch.tensor([0]), 3, told={"confusion": [0.0] * 4}))
    with pytest.raises(ConfigError, match="sent 0 numbers"):
        Xiao().begin(visit_of(torch.tensor([0]), 3))


@pytest.mark.parametrize(("server_round", "moves"), [(6, False), (7, True)])
def test_a_visit_moves_the_head_in_stage_2_alone_and_never_waits(server_round: int, moves: bool) -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8))
    labels = torch.arange(24) % 3
    config = RunConfig(image_size=16, batch_size=4, local_epochs=3, num_server_rounds=10, weight_decay=0.1)
    network = build_model("cnn", 3, seed=1, heads=Xiao.heads)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    told = {"confusion": [value for row in CM for value in row]}
    with CountedOperations() as operations:
        train_locally(
            network, images, labels, Xiao(), config, CPU, derived_generator(1, "t"), server_round=server_round,
            told=told,
        )  # fmt: skip
    counts: Counter[str] = operations.counts
    assert counts["aten::_local_scalar_dense"] == 3  # 18 steps
    assert counts["aten::nonzero"] == 0
    after = network.state_dict()
    for name in ("further_heads.noise_types.weight", "further_heads.noise_types.bias"):
        assert torch.equal(before[name], after[name]) != moves
    assert not torch.equal(before["fc.weight"], after["fc.weight"])


def test_no_loss_reads_a_tensor_or_selects_rows_with_a_mask() -> None:
    told = {"confusion": [value for row in CM for value in row]}
    network = build_model("cnn", 3, seed=1, heads=Xiao.heads).to("meta")
    visit = visit_of(torch.zeros(9, dtype=torch.int64, device="meta"), 3, told=told, networks=[network], **LAST)
    method = Xiao()
    method.begin(visit)
    logits = torch.zeros(4, 3, device="meta", requires_grad=True)
    rows = torch.zeros(4, dtype=torch.int64, device="meta")
    features = torch.zeros(4, 64, device="meta")
    batch: Batch = batch_of(visit.labels[rows], logits, rows=rows, features=features)
    method.loss(batch, visit).backward()
    assert logits.grad is not None


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ("trunk='none'", "trunk must be one of classes, both"),
        ("first-stage=1.5", "first-stage must be a number at least 0 and at most 1"),
        ("clean-epochs=-1", "clean-epochs must be a whole number of at least 0"),
        ("server-steps=-2", "server-steps must be a whole number from 0 to .*, or -1 for the share that server-share"),
        ("type-rate=-0.1", "type-rate must be a number at least 0"),
    ],
)
def test_bad_parameters(args: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=f"'method-args' is .*; xiao refuses it: {sentence}"):
        build_named("method", METHODS, "xiao", args)
