"""Models with BatchNorm under strategies that know nothing about it: Flower's own classes, by module:Class."""

import gc
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import flwr.serverapp.strategy as flower
import numpy as np
import pytest
import safetensors.numpy
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from client_app.app import app as client_app
from config.run_config import RunConfig
from learning.training import train_locally
from methods.ce import CE
from server_app.stopping import RunStoppedError
from server_app.strategies.batchnorm import is_counter, is_parameter
from server_app.strategies.fedavg import StreamingFedAvg
from server_app.strategy import build_strategy
from task import Compute
from tests.batchnorm_models import moved, network, state_of
from tests.fakes import InProcessGrid, one_round, partitions, record, rounds_of, run_in_process, train_reply

STOCK = "flwr.serverapp.strategy:"
ARGS = {
    "FedAvgM": "server-momentum=0.9",
    "FedProx": "proximal-mu=0.1",
    "QFedAvg": "client-learning-rate=0.01 train-loss-key='train-loss'",
}
NAMES = [
    "FedAvg", "FedAvgM", "FedProx", "FedAdagrad", "FedAdam", "FedYogi", "FedMedian", "FedTrimmedAvg", "Krum",
    "MultiKrum", "Bulyan", "QFedAvg",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _no_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower collects garbage after each record, which costs more than everything else."""
    monkeypatch.setattr(gc, "collect", lambda *generation: 0)


def _stock(name: str) -> Any:
    return build_strategy(RunConfig(strategy=STOCK + name, strategy_args=ARGS.get(name, "")))


@pytest.mark.parametrize("name", NAMES)
def test_after_ten_rounds_of_flowers_class_statistics_are_means_and_counters_integers(name: str) -> None:
    strategy, model, rng = _stock(name), network(), np.random.default_rng(3)
    arrays = state_of(model)
    for server_round in range(1, 11):
        clients = [moved(arrays, rng) for _ in range(4)]
        counts = [int(count) for count in rng.integers(1, 99, size=4)]
        replies = [train_reply(client, count) for client, count in zip(clients, counts, strict=True)]
        new = one_round(strategy, arrays, replies, server_round)
        assert list(new) == list(arrays)
        for key, value in new.items():
            assert (value.dtype, value.shape) == (arrays[key].dtype, arrays[key].shape), key
            assert np.isfinite(value).all(), key
            theirs = np.stack([client[key] for client in clients])
            if is_counter(key, value.dtype):
                assert value == theirs.max()
            elif not is_parameter(key, value.dtype):
                np.testing.assert_allclose(value, np.average(theirs, axis=0, weights=counts), rtol=1e-5, atol=1e-7)
        arrays = new
    model.load_state_dict({key: torch.from_numpy(value) for key, value in arrays.items()})
    assert torch.isfinite(model.eval()(torch.randn(2, 3, 8, 8))).all()


def test_flowers_class_alone_breaks_them() -> None:
    """Why all this is needed: if this fails, Flower has changed."""
    arrays, rng = state_of(network()), np.random.default_rng(3)
    new = one_round(flower.FedAdam(), arrays, [train_reply(moved(arrays, rng)) for _ in range(2)])
    assert new["1.num_batches_tracked"].dtype == np.float64
    clients = [{**arrays, "1.running_var": np.full(4, 0.01, np.float32)} for _ in range(2)]
    new = one_round(flower.FedAdam(eta=2.0), arrays, [train_reply(client) for client in clients])
    assert (new["1.running_var"] < 0).all()


@pytest.mark.parametrize("name", ["FedAdam", "FedYogi", "FedMedian"])
def test_parameters_equal_those_of_flowers_class(name: str) -> None:
    arrays, rng = state_of(network()), np.random.default_rng(3)
    clients = [moved(arrays, rng) for _ in range(3)]
    ours = one_round(_stock(name), arrays, [train_reply(client, 5 + i) for i, client in enumerate(clients)])
    bare = getattr(flower, name)()
    theirs = one_round(bare, arrays, [train_reply(client, 5 + i) for i, client in enumerate(clients)])
    for key, value in ours.items():
        if is_parameter(key, value.dtype):
            np.testing.assert_array_equal(value, theirs[key].astype(value.dtype), err_msg=key)


def test_clients_are_sent_the_whole_model_once_in_memory() -> None:
    arrays = state_of(network())
    strategy = _stock("FedAvg")
    grid = InProcessGrid(client_app, partitions(3))
    messages = list(strategy.configure_train(1, record(arrays), ConfigRecord(), grid))
    assert len(messages) == 3
    for message in messages:
        sent = message.content.array_records["arrays"]
        assert sent is messages[0].content.array_records["arrays"]
        assert list(sent) == list(arrays)
        for key, value in arrays.items():
            np.testing.assert_array_equal(sent[key].numpy(), value)


class Watching(flower.FedAvg):
    """Records what it sees, and returns what a test asks for."""

    def __init__(self, returned: str = "all") -> None:
        super().__init__()
        self.returned = returned
        self.seen: list[set[str]] = []

    def configure_train(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Any) -> Any:
        self.seen.append(set(arrays))
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        kept = list(replies)
        self.seen += [set(reply.content.array_records["arrays"]) for reply in kept]
        if self.returned == "nothing":
            return None, None
        new, metrics = super().aggregate_train(server_round, kept)
        if self.returned == "less" and new is not None:
            new.pop("5.bias")
        return new, metrics


class KnowsBatchNorm(Watching):
    handles_batchnorm = True


def test_a_class_sees_parameters_only_unless_it_handles_batchnorm() -> None:
    arrays = state_of(network())
    parameters = {name for name, value in arrays.items() if is_parameter(name, value.dtype)}
    for cls, shown in ((Watching, parameters), (KnowsBatchNorm, set(arrays))):
        strategy = build_strategy(RunConfig(strategy=f"{__name__}:{cls.__name__}"))
        assert isinstance(strategy, cls)
        assert type(strategy).__name__ == cls.__name__
        one_round(strategy, arrays, [train_reply(arrays), train_reply(arrays)])
        assert strategy.seen == [shown] * 3
    own = build_strategy(RunConfig(strategy="server_app.strategies.fedavg:StreamingFedAvg"))
    assert type(own) is StreamingFedAvg


def test_a_class_that_returns_nothing_or_other_arrays() -> None:
    arrays = state_of(network())

    def aggregate(returned: str) -> Any:
        args = f"returned='{returned}'"
        strategy = build_strategy(RunConfig(strategy=f"{__name__}:Watching", strategy_args=args))
        strategy.configure_train(1, record(arrays), ConfigRecord(), InProcessGrid(client_app, partitions(2)))
        return strategy.aggregate_train(1, iter([train_reply(arrays)]))

    assert aggregate("nothing") == (None, None)
    with pytest.raises(RunStoppedError, match=r"round 1: Watching returned other arrays than the model's parameters\."):
        aggregate("less")


def _half_a_resnet() -> nn.Module:
    """torchvision's stem and first two stages, one block each, without the wide ones: 0.3 million parameters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        whole = ResNet(BasicBlock, [1, 1, 1, 1], zero_init_residual=True)
        stem = [whole.conv1, whole.bn1, whole.relu, whole.maxpool]
        return nn.Sequential(*stem, whole.layer1, whole.layer2, whole.avgpool, nn.Flatten(), nn.Linear(128, 3))


@pytest.mark.parametrize("name", ["fedadam", STOCK + "FedAdam", STOCK + "FedYogi", STOCK + "FedMedian"])
def test_ten_rounds_of_training_residual_blocks(name: str) -> None:
    """With each strategy's default step, far too long here: the loss may be poor, but never NaN."""
    strategy = build_strategy(RunConfig(strategy=name))
    config = RunConfig(image_size=16, batch_size=6, learning_rate=0.01, precision="fp32")
    compute = Compute(torch.device("cpu"), torch.float32)
    model = _half_a_resnet().to(memory_format=torch.channels_last)
    arrays = state_of(model)
    for server_round in range(1, 11):
        replies = []
        for client in range(2):
            generator = torch.Generator().manual_seed(10 * server_round + client)
            images = torch.randint(256, (6, 16, 16, 3), dtype=torch.uint8, generator=generator)
            model.load_state_dict({key: torch.from_numpy(value.copy()) for key, value in arrays.items()})
            train_locally(model, images, torch.arange(6) % 3, CE(), config, compute, generator)
            replies.append(train_reply(state_of(model), 6))
        arrays = one_round(strategy, arrays, replies, server_round)
    assert all(np.isfinite(value).all() for value in arrays.values())
    assert all((value >= 0).all() for key, value in arrays.items() if key.endswith("running_var"))
    assert all(value == 10 for key, value in arrays.items() if key.endswith("num_batches_tracked"))
    assert arrays["1.num_batches_tracked"].dtype == np.int64


def test_a_whole_run_with_flowers_class(tmp_path: Path, tiny_sample: Path) -> None:
    run_dir = run_in_process(
        tmp_path,
        clients=2,
        data_dir=str(tiny_sample),
        train_split="clean",
        image_size=16,
        batch_size=10,
        num_server_rounds=1,
        fraction_train=1.0,
        strategy=STOCK + "FedAdam",
    )
    assert [entry["failed-partitions"] for entry in rounds_of(run_dir)] == [[]]
    weights = safetensors.numpy.load_file(run_dir / "model.safetensors")
    assert all(np.isfinite(value).all() for value in weights.values())
    assert all((value > 0).all() for key, value in weights.items() if key.endswith("running_var"))
    assert weights["bn1.num_batches_tracked"].dtype == np.int64
