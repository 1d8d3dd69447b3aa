"""apple/pfl-research: `FederatedAveraging` on a `SimulatedBackend`, after its tutorials.

One process has all cores; with ``--distributed`` the job's workers, a process each, share each cohort and the cores,
which is how its guide "Fast distributed simulations" speeds them up. It differs from FedAvg elsewhere in that pfl does
not treat BatchNorm's running statistics as variables: a process carries them from client to client, and they are not
averaged. The users of its first round are evaluated before and after training, which cannot be switched off and counts
as start-up.
"""

import os
import socket
import subprocess
import sys
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn

from benchmarks.peers.job import Job, Report
from benchmarks.peers.learning import accuracy, build_model, count_steps, load


class Classifier(nn.Module):
    """What pfl asks of a module: `loss` and `metrics`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        self.train()
        return nn.functional.cross_entropy(self.network(images), labels)

    @torch.no_grad()
    def metrics(self, images: Tensor, labels: Tensor) -> dict[str, object]:
        from pfl.metrics import Weighted

        self.eval()
        loss = nn.functional.cross_entropy(self.network(images), labels, reduction="sum")
        return {"loss": Weighted(loss.item(), len(labels))}


def run(job: Job, result: str) -> None:
    # Importing pfl joins the other processes, so they must have been started.
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.aggregate.weighting import WeightByDatapoints
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.pytorch import PyTorchTensorDataset
    from pfl.hyperparam.base import NNEvalHyperParams, NNTrainHyperParams
    from pfl.internal.ops.pytorch_ops import distributed
    from pfl.metrics import Metrics
    from pfl.model.pytorch import PyTorchModel

    if distributed.world_size > 1:
        torch.set_num_threads(job.threads)
    count_steps(job)
    report = Report("pfl")
    tested = load(job, "test")

    class AfterRound(TrainingProcessCallback):  # type: ignore[misc]
        def after_central_iteration(
            self, aggregate_metrics: Metrics, model: PyTorchModel, *, central_iteration: int
        ) -> tuple[bool, Metrics]:
            report.round_done(accuracy(model.pytorch_model.network, *tested))
            return False, Metrics()

    clients = [load(job, f"client-{number}") for number in range(job.clients)]

    def shuffled(client: int) -> PyTorchTensorDataset:
        order = torch.randperm(job.images)
        return PyTorchTensorDataset(tuple(values[order] for values in clients[client]), user_id=str(client))

    network = Classifier(build_model(job))
    model = PyTorchModel(
        network,
        local_optimizer_create=partial(torch.optim.SGD, momentum=job.momentum, weight_decay=job.weight_decay),
        central_optimizer=torch.optim.SGD(network.parameters(), lr=1.0),
    )
    users = FederatedDataset(shuffled, chain.from_iterable(job.cohorts).__next__)
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=len(job.cohorts),
            evaluation_frequency=len(job.cohorts),
            train_cohort_size=job.sampled,
            val_cohort_size=0,
        ),
        backend=SimulatedBackend(training_data=users, val_data=users, postprocessors=[WeightByDatapoints()]),
        model=model,
        model_train_params=NNTrainHyperParams(
            local_num_epochs=1, local_learning_rate=job.learning_rate, local_batch_size=job.batch_size
        ),
        model_eval_params=NNEvalHyperParams(local_batch_size=job.batch_size),
        callbacks=[AfterRound()],
    )
    if distributed.global_rank == 0:
        report.write(result)


def run_distributed(job: Job, result: str) -> None:
    """`run` in this process and in others that run this module, all with their share of the cores."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    os.environ["PFL_WORKER_ADDRESSES"] = ",".join([address] * job.workers)
    command = [sys.executable, "-m", "benchmarks.peers.with_pfl", *sys.argv[1:3]]
    others = [
        subprocess.Popen(command, env={**os.environ, "PFL_WORKER_RANK": str(rank)}) for rank in range(1, job.workers)
    ]
    os.environ["PFL_WORKER_RANK"] = "0"
    run(job, result)
    codes = [other.wait() for other in others]
    if any(codes):
        raise SystemExit("a process of pfl failed.")


if __name__ == "__main__":
    if "--distributed" in sys.argv:
        run_distributed(Job.read(sys.argv[1]), sys.argv[2])
    else:
        run(Job.read(sys.argv[1]), sys.argv[2])
