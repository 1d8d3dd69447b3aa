"""BlazeFL: the FedAvg of its `contrib` package in the multi-threaded mode that it recommends.

The job's workers are threads of one process. On a Python with the global interpreter lock, that is, unless a
free-threaded one is given, they wait for each other wherever PyTorch does not release it. Its trainer has SGD without
momentum and weight decay, so its loop is replaced by the plain one; the handler samples what the job says.
"""

import os
import sys
from enum import StrEnum
from typing import Any

import torch
from blazefl.contrib.fedavg import (
    FedAvgBaseServerHandler,
    FedAvgPartitionType,
    FedAvgThreadPoolClientTrainer,
    FedAvgUplinkPackage,
)
from blazefl.core import deserialize_model, serialize_model
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.peers.job import Job, Report
from benchmarks.peers.learning import accuracy, build_model, count_steps, load, train_epoch


class Models:
    """A `ModelSelector`."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def select_model(self, model_name: str) -> nn.Module:
        return build_model(self._job)


class Clients:
    """A `PartitionedDataset` of arrays in memory."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._train = [TensorDataset(*load(job, f"client-{number}")) for number in range(job.clients)]
        self._test = TensorDataset(*load(job, "test"))

    def get_dataset(self, type_: StrEnum, cid: int | None) -> TensorDataset:
        return self._test if type_ == FedAvgPartitionType.TEST or cid is None else self._train[cid]

    def set_dataset(self, type_: StrEnum, cid: int | None, dataset: Any) -> None:
        raise NotImplementedError

    def get_dataloader(
        self, type_: StrEnum, cid: int | None, batch_size: int | None, generator: torch.Generator | None
    ) -> "DataLoader[tuple[Tensor, ...]]":
        dataset = self.get_dataset(type_, cid)
        return DataLoader(dataset, batch_size, shuffle=type_ == FedAvgPartitionType.TRAIN, generator=generator)


class Handler(FedAvgBaseServerHandler):  # type: ignore[misc]
    job: Job

    def sample_clients(self) -> list[int]:
        return sorted(self.job.cohorts[self.round])


class Trainer(FedAvgThreadPoolClientTrainer):  # type: ignore[misc]
    job: Job

    def train(
        self, model: nn.Module, model_parameters: Tensor, train_loader: Any, cid: int, **_: Any
    ) -> FedAvgUplinkPackage:
        deserialize_model(model, model_parameters)
        train_epoch(self.job, model, train_loader)
        return FedAvgUplinkPackage(cid, serialize_model(model), self.job.images)


def main(job: Job, result: str) -> None:
    count_steps(job)
    report = Report("blazefl")
    models, clients = Models(job), Clients(job)
    shared = {"model_selector": models, "model_name": job.model, "dataset": clients, "device": "cpu"}
    numbers = {"num_clients": job.clients, "batch_size": job.batch_size, "seed": job.weights_seed % 2**32}
    handler = Handler(
        global_round=len(job.cohorts), sample_ratio=(job.sampled + 0.5) / job.clients, **shared, **numbers
    )  # the handler rounds clients times ratio down
    trainer = Trainer(epochs=1, lr=job.learning_rate, num_parallels=job.workers, **shared, **numbers)
    handler.job = trainer.job = job
    tested = load(job, "test")
    while not handler.if_stop():
        trainer.local_process(handler.downlink_package(), handler.sample_clients())
        for package in trainer.uplink_package():
            handler.load(package)
        report.round_done(accuracy(handler.model, *tested))
    report.write(result)


if __name__ == "__main__":
    job = Job.read(sys.argv[1])
    if os.environ.get("OMP_NUM_THREADS") != str(job.threads):  # only a process that starts with it obeys in all threads
        os.execve(
            sys.executable,
            [sys.executable, "-m", "benchmarks.peers.with_blazefl", *sys.argv[1:]],
            {**os.environ, "OMP_NUM_THREADS": str(job.threads)},
        )
    main(job, sys.argv[2])
