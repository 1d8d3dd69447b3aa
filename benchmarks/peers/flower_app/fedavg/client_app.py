"""Load the global model, train it on this client's arrays, send it back."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from benchmarks.peers.job import Job
from benchmarks.peers.learning import batches, build_model, count_steps, load, train

app = ClientApp()
counting: list[Job] = []  # an actor lives for the whole run, and its hook, too


@app.train()
def train_locally(message: Message, context: Context) -> Message:
    job = Job.read(str(context.run_config["job"]))
    if not counting:
        counting.append(job)
        count_steps(job)
    model = build_model(job)
    model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    images, labels = load(job, f"client-{context.node_config['partition-id']}")
    train(job, model, batches(job, images, labels))
    metrics = MetricRecord({"num-examples": len(labels)})
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
    return Message(content, reply_to=message)
