"""What a client's process and the server's have imported, counted: every message on real nodes pays for it."""

from pathlib import Path

from tests.forks import failed_forks

HEAVY = (
    "torch._dynamo",
    "torch._inductor",
    "torchvision",
    "timm",
    "sympy",
    "triton",
    "sklearn",
    "scipy",
    "matplotlib",
    "ray",
)
CHECK = f"""
import sys, torch
torch.set_num_threads(1)  # threads that spin make tiny networks slow on a busy machine
def check(after):
    found = [name for name in {HEAVY} if name in sys.modules]
    assert not found, f"after {{after}}: {{found}}"
"""
VISITS = """
import client_app.app
check("the import")
import uuid
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from config.run_config import RunConfig
from config.stems import stem_of
from messages import keys
from methods import build_method
from task import build_model

TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
small = dict(image_size=16, batch_size=8, local_epochs=1, fraction_evaluate=1.0)
config = RunConfig(data_dir={data!r}, cache_dir={cache!r}, **(small | dict({changes})))
model = build_model(config.model, 14, config.seed, build_method(config).networks, stem=stem_of(config))
arrays = ArrayRecord(model.state_dict())
for kind in ("query", "train", "train", "query.class_losses", "evaluate"):
    sent = ConfigRecord({{**config.to_flat(), keys.SERVER_ROUND: 1}})
    message = Message(RecordDict({{keys.CONFIG: sent, keys.ARRAYS: arrays}}), 1, kind)
    message.metadata.__dict__["_message_id"] = str(uuid.uuid4())
    node = {{"partition-id": 0, "num-partitions": 4}}
    reply = client_app.app.app(message, Context(1, 1, node, RecordDict(), {{}}))
    assert not reply.has_error(), reply.error.reason
    check(kind)
"""
RUN = """
from pathlib import Path
from client_app.app import app
from tests.fakes import run_in_process

def handler(message, context):
    check(f"a message of type {{message.metadata.message_type}}")
    return app(message, context)

run_in_process(Path({out!r}), handler=handler, data_dir={data!r}, model="cnn", local_epochs=1, pictures=True)
"""


def test_a_client_imports_nothing_that_its_visit_does_not_need(tiny_sample: Path, tmp_path: Path) -> None:
    """Whatever the method, the network, the augmentation and the payload."""
    cases = {
        "a ResNet": "model='resnet18'",
        "one image alone": "model='resnet18', image_size=40, batch_size=29, drop_last=False",
        "much of the rest": ("method='co-teaching', augmentation='crop-flip-jitter', model='cnn', payload='bf16'"),
        "AdamW": "model='cnn', optimizer='adamw', lr_schedule='cosine', gradient_clipping=1.0",
    }
    scripts = {
        name: CHECK + VISITS.format(data=str(tiny_sample), cache=str(tmp_path / name), changes=changes)
        for name, changes in cases.items()
    }
    failed = failed_forks(scripts)
    assert not failed, failed


def test_the_server_imports_nothing_before_the_last_round_that_it_does_not_need(
    tiny_sample: Path, tmp_path: Path
) -> None:
    """Pictures are drawn at the end; clients and server share this process."""
    failed = failed_forks({"a run": CHECK + RUN.format(out=str(tmp_path), data=str(tiny_sample))})
    assert not failed, failed
