"""``batchnorm = "local"``: each client trains with its own, and the server keeps it out of what it aggregates."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from learning.method import Visit as LocalVisit
from methods.ce import CE
from server_app.model_check import ModelCheck
from tests.fakes import record, rounds_of
from tests.server_app.test_what_travels import Visit, run, watching


def test_each_client_trains_with_its_own_batchnorm(tmp_path: Path, tiny_sample: Path) -> None:
    """Weights hardly move, so each visit of n steps turns statistics s into about ``0.9^n s + (1 - 0.9^n) m_k``.

    Those of two clients then differ by ``(1 - 0.9^n) (m_1 - m_2)`` after each visit that begins with the mean of all.
    From their own, they differ by ``1 + 0.9^n + 0.81^n`` times as much after the third: 1.71 for the seven steps here.
    """
    gaps = {}
    for batchnorm in ("local", "average"):
        visits: list[Visit] = []
        run_dir = run(
            tmp_path / batchnorm, tiny_sample, handler=watching(visits), batchnorm=batchnorm, fraction_evaluate=1.0,
            clients=2, partition="shards", partition_args="shards-per-client=1", learning_rate=1e-9, momentum=0.0,
            weight_decay=0.0, num_server_rounds=3,
        )  # fmt: skip
        sent: dict[int, list[np.ndarray]] = {}
        for visit in visits:
            sent.setdefault(visit.node_id, []).append(visit.sent["bn1.running_mean"])
        one, other = sent.values()
        gaps[batchnorm] = [np.linalg.norm(mine - its) for mine, its in zip(one, other, strict=True)]
        # The server evaluates with the clients' mean, and clients with their own.
        whole = safetensors.numpy.load_file(run_dir / "model.safetensors")["bn1.running_mean"]
        low, high = np.minimum(one[2], other[2]), np.maximum(one[2], other[2])
        assert ((low - 1e-6 <= whole) & (whole <= high + 1e-6)).all()
        assert 0 <= rounds_of(run_dir)[2]["eval-accuracy"] <= 1
    assert gaps["local"][0] == gaps["average"][0]
    assert 1.4 < gaps["local"][2] / gaps["average"][2] < 2.0


def test_a_strategy_of_the_server_does_not_step_a_clients_own_batchnorm(tmp_path: Path, tiny_sample: Path) -> None:
    """FedAdam would move every weight by its learning rate; the mean of BatchNorm's is left as it is."""
    visits: list[Visit] = []
    run_dir = run(
        tmp_path, tiny_sample, handler=watching(visits), batchnorm="local", strategy="fedadam",
        strategy_args="eta=0.5", num_server_rounds=1,
    )  # fmt: skip
    replies = [visit.sent for visit in visits]
    whole = safetensors.numpy.load_file(run_dir / "model.safetensors")
    mean = np.mean([one["bn1.weight"] for one in replies], axis=0)
    np.testing.assert_allclose(whole["bn1.weight"], mean, rtol=1e-4)
    assert np.abs(whole["conv1.weight"] - np.mean([one["conv1.weight"] for one in replies], axis=0)).max() > 0.1


def test_a_clients_own_batchnorm_is_no_update() -> None:
    sent = {"bn.weight": np.zeros(4, np.float32), "fc.weight": np.zeros(4, np.float32)}
    own = {"bn.weight": np.full(4, 8.0, np.float32), "fc.weight": np.full(4, 1.0, np.float32)}
    for apart, norm in ((frozenset({"bn.weight"}), 2.0), (frozenset(), (4 * 64 + 4) ** 0.5)):
        check = ModelCheck(record(sent), apart=apart)
        assert check.problem(0, record(own)) is None
        assert check.norms[0] == pytest.approx(norm)


@pytest.mark.parametrize("batchnorm", ["local", "average"])
def test_a_method_that_remembers_nothing_still_does_not(
    tmp_path: Path, tiny_sample: Path, batchnorm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[list[str]] = []

    def begin(self: CE, visit: LocalVisit) -> None:
        found.append(list(visit.state))
        visit.state["scratch"] = visit.labels

    monkeypatch.setattr(CE, "begin", begin)
    run(tmp_path, tiny_sample, batchnorm=batchnorm)
    assert found == [[]] * 6
