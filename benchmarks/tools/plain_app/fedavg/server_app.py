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
    model = build_model(config["model"], config["num-classes"], config["seed"])
    arrays = ArrayRecord(model.state_dict())
    done: list[dict[str, float]] = []  # the state before the first round included
    trained: list[dict[str, float]] = []  # each round's longest training, which Flower's own mean would hide, and steps

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        model = build_model(config["model"], config["num-classes"], config["seed"])
        model.load_state_dict(arrays.to_torch_state_dict())
        loader = load_data(Path(config["data"]), "test", config["image-size"], config["batch-size"], shuffle=False)
        loss, accuracy = test(model, loader)
        done.append({"end": time.perf_counter(), "accuracy": accuracy})
        return MetricRecord({"loss": loss, "accuracy": accuracy})

    def combine(contents: list[RecordDict], weighted_by: str) -> MetricRecord:
        clients: list[Any] = [content["metrics"] for content in contents]
        seconds = max(client["train-seconds"] for client in clients)
        trained.append({"training-seconds": seconds, "steps": sum(client["train-steps"] for client in clients)})
        return MetricRecord({"train-seconds": seconds})

    strategy = FedAvg(config["fraction-train"], fraction_evaluate=0.0, train_metrics_aggr_fn=combine)
    strategy.start(grid, arrays, num_rounds=config["num-server-rounds"], evaluate_fn=evaluate)
    rounds = [
        {**after, **training, "seconds": after["end"] - before["end"]}
        for (before, after), training in zip(pairwise(done), trained, strict=True)
    ]
    Path(config["report"]).write_text(json.dumps(rounds), encoding="utf-8")
