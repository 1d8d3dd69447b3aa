"""Load the global model, train it on this node's list, send it back."""

from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from .task import build_model, load_data, train

app = ClientApp()


@app.train()
def train_locally(message: Message, context: Context) -> Message:
    config: dict[str, Any] = dict(context.run_config)
    model = build_model(config["model"], config["num-classes"])
    model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    listed = Path(config["lists"]) / f"client-{context.node_config['partition-id']}.tsv"
    loader = load_data(listed, config["image-size"], config["batch-size"], shuffle=True)
    loss, seconds = train(
        model, loader, config["local-epochs"], config["learning-rate"], config["momentum"], config["weight-decay"]
    )
    metrics = MetricRecord(
        {"train-loss": loss, "train-seconds": seconds, "num-examples": len(loader.dataset)}  # type: ignore[arg-type]
    )
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
    return Message(content, reply_to=message)
