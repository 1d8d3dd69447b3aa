"""fluke: its `FedAVG` from Python, after its tutorials, on data loaders of one's own.

One process has all cores; fluke trains one client at a time. Clients forget their model and optimiser after a visit
(``persistency=False``): by default momentum would carry over from visit to visit, and ten models would be kept.
"""

import sys
from collections.abc import Sequence
from typing import Any

import torch
from fluke import DDict, FlukeENV
from fluke.algorithms.fedavg import FedAVG
from fluke.client import Client
from fluke.data import DataSplitter, DummyDataContainer, FastDataLoader
from fluke.evaluation import ClassificationEval
from fluke.server import Server
from fluke.utils import FederationObserver

from benchmarks.peers.job import Job, Report
from benchmarks.peers.learning import build_model, count_steps, load


class Chosen(Server):  # type: ignore[misc]
    """Takes the job's clients instead of drawing them."""

    cohorts: Sequence[Sequence[int]] = ()

    def get_eligible_clients(self, eligible_perc: float) -> Sequence[Client]:
        cohort, *self.cohorts = self.cohorts
        return [self.clients[number] for number in cohort]


class ChosenFedAvg(FedAVG):  # type: ignore[misc]
    def get_server_class(self) -> type[Server]:
        return Chosen


class AfterRound(FederationObserver):  # type: ignore[misc]
    """fluke evaluates each round's global model before it ends the round, and the last one again at the end."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._accuracy = 0.0

    def server_evaluation(self, round: int, eval_type: str, evals: dict[str, Any], **_: Any) -> None:
        self._accuracy = float(evals["accuracy"])

    def end_round(self, round: int) -> None:
        self._report.round_done(self._accuracy)


def main(job: Job, result: str) -> None:
    count_steps(job)
    report = Report("fluke-fl")
    environment = FlukeENV()
    environment.set_seed(job.weights_seed % 2**32)
    environment.set_device("cpu")
    environment.set_evaluator(ClassificationEval(eval_every=1, n_classes=job.classes))
    environment.set_eval_cfg(pre_fit=False, post_fit=False, locals=False, server=True)

    def loader(name: str, batch_size: int, shuffle: bool) -> FastDataLoader:
        return FastDataLoader(*load(job, name), num_labels=job.classes, batch_size=batch_size, shuffle=shuffle)

    clients = [loader(f"client-{number}", job.batch_size, shuffle=True) for number in range(job.clients)]
    tested = loader("test", batch_size=0, shuffle=False)  # all at once
    data = DummyDataContainer(clients, [None] * job.clients, tested, job.classes)
    settings = {
        "client": {
            "batch_size": job.batch_size,
            "local_epochs": 1,
            "loss": torch.nn.CrossEntropyLoss,
            "optimizer": {
                "name": "SGD", "lr": job.learning_rate, "momentum": job.momentum, "weight_decay": job.weight_decay,
            },
            "scheduler": {"name": "StepLR", "step_size": 1, "gamma": 1},
            "persistency": False,
        },
        "server": {"weighted": True},
        "model": build_model(job),
    }  # fmt: skip
    algorithm = ChosenFedAvg(job.clients, DataSplitter(data), DDict(settings))
    algorithm.server.cohorts = job.cohorts
    algorithm.set_callbacks(AfterRound(report))
    algorithm.run(len(job.cohorts), eligible_perc=job.sampled / job.clients)
    report.write(result)


if __name__ == "__main__":
    main(Job.read(sys.argv[1]), sys.argv[2])
