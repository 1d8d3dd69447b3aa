"""FedAvg over a share of the clients; the global model is tested after each round."""

from typing import Any

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from benchmarks.peers.job import Job, Report
from benchmarks.peers.learning import accuracy, build_model, load

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    config: dict[str, Any] = dict(context.run_config)
    job = Job.read(config["job"])
    report = Report("flwr")

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        model = build_model(job)
        model.load_state_dict(arrays.to_torch_state_dict())
        reached = accuracy(model, *load(job, "test"))
        if server_round:  # it is called once before the first
            report.round_done(reached)
        return MetricRecord({"accuracy": reached})

    strategy = FedAvg(fraction_train=job.sampled / job.clients, fraction_evaluate=0.0)
    arrays = ArrayRecord(build_model(job).state_dict())
    strategy.start(grid, arrays, num_rounds=len(job.cohorts), evaluate_fn=evaluate)
    report.write(config["result"])
