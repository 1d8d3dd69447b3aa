"""Load the global model, train it on this node's images, send it back."""

from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from .task import build_model, load_data, train

app = ClientApp()


@app.train()
def train_locally(message: Message, context: Context) -> Message:
    config: dict[str, Any] = dict(context.run_config)
    model = build_model(config["model"], config["num-classes"], config["seed"])
    model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    name = f"client-{context.node_config['partition-id']}"
    loader = load_data(Path(config["data"]), name, config["image-size"], config["batch-size"], shuffle=True)
    loss, steps, seconds = train(
        model, loader, config["local-epochs"], config["learning-rate"], config["momentum"], config["weight-decay"]
    )
    count = len(loader.dataset)  # type: ignore[arg-type]
    metrics = MetricRecord({"train-loss": loss, "train-seconds": seconds, "train-steps": steps, "num-examples": count})
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
    return Message(content, reply_to=message)
