"""FedAvg over all nodes; the global model is tested after each round."""

import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, Context, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from .task import build_model, load_data, test

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    config: dict[str, Any] = dict(context.run_config)
    arrays = ArrayRecord(build_model(config["model"], config["num-classes"]).state_dict())
    done: list[float] = []  # when each round was done, the state before the first one included
    slowest: list[float] = []  # each round's longest training, which Flower's own mean would hide

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        model = build_model(config["model"], config["num-classes"])
        model.load_state_dict(arrays.to_torch_state_dict())
        loader = load_data(Path(config["lists"]) / "test.tsv", config["image-size"], config["batch-size"], False)
        loss, accuracy = test(model, loader)
        done.append(time.perf_counter())
        return MetricRecord({"loss": loss, "accuracy": accuracy})

    def combine(contents: list[RecordDict], weighted_by: str) -> MetricRecord:
        slowest.append(max(float(content["metrics"]["train-seconds"]) for content in contents))  # type: ignore[arg-type]
        return MetricRecord({"train-seconds": slowest[-1]})

    strategy = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, train_metrics_aggr_fn=combine)
    strategy.start(grid, arrays, num_rounds=config["num-server-rounds"], evaluate_fn=evaluate)
    rounds = [
        {"seconds": end - start, "training-seconds": training}
        for (start, end), training in zip(pairwise(done), slowest, strict=True)
    ]
    Path(config["report"]).write_text(json.dumps(rounds), encoding="utf-8")
