"""What a visit can ask a network about its images, without side effects."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context, Message, MessageType, RecordDict
from torch.nn.functional import cross_entropy

from client_app import local_data
from client_app.app import app as client_app
from config.run_config import RunConfig
from learning.images import Images
from learning.inference import Inference, evaluating
from task import Compute, build_model, to_input
from tests.fakes import run_in_process

CPU = Compute(torch.device("cpu"), torch.float32)
IMAGES = torch.randint(256, (9, 37, 37, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def _trained_a_little() -> torch.nn.Module:
    """A network whose BatchNorm statistics are not those it starts with."""
    network = build_model("cnn", 5, seed=1)
    network(to_input(IMAGES[:, :32, :32], CPU, "imagenet"))
    return network


def test_answers_are_those_of_evaluation_mode_on_the_centre_of_what_is_stored() -> None:
    network = _trained_a_little()
    before = copy.deepcopy(network.state_dict())
    network.train()
    logits = Inference(Images(IMAGES, CPU.device), 32, CPU, "imagenet").on_all(network)
    assert network.training
    assert not logits.requires_grad
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    network.eval()
    expected = network(to_input(IMAGES[:, 2:34, 2:34], CPU, "imagenet"))
    torch.testing.assert_close(logits, expected)
    with evaluating(network):
        pass
    assert not network.training


def test_a_frozen_copy_stays_what_the_network_was() -> None:
    network = _trained_a_little()
    inputs = to_input(IMAGES[:, :32, :32], CPU, "imagenet")
    teacher = Inference(Images(IMAGES, CPU.device), 32, CPU, "imagenet").frozen(network)
    network.eval()
    expected = network(inputs).detach()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    answered = teacher(inputs.clone().requires_grad_())
    assert not answered.requires_grad
    assert torch.equal(answered, expected)


def test_class_losses_are_those_of_the_model_on_the_clients_own_labels(tmp_path: Path, tiny_sample: Path) -> None:
    """Counts, sums and sums of squares by given class; the truth is counted and used for nothing else."""
    asked: list[dict[str, torch.Tensor]] = []

    def handler(message: Message, context: Context) -> Message:
        reply = client_app(message, context)
        if message.metadata.message_type == f"{MessageType.QUERY}.class_losses":
            asked.append(message.content.array_records["arrays"].to_torch_state_dict())
            answers[int(context.node_config["partition-id"])] = reply.content
        return reply

    answers: dict[int, RecordDict] = {}
    settings: dict[str, Any] = {
        "method": "fednoro",
        "method_args": "warm-up-rounds=1",
        "model": "cnn",
        "image_size": 16,
    }
    run_in_process(tmp_path, clients=3, handler=handler, data_dir=str(tiny_sample), **settings)
    assert sorted(answers) == [0, 1, 2]  # also those that were not sampled

    config = RunConfig(data_dir=str(tiny_sample), image_size=16, model="cnn", batch_size=8)
    model = build_model("cnn", 14, seed=0)
    model.load_state_dict(asked[0])
    model.eval()
    for client, answer in answers.items():
        site = local_data.Site.resolve({"partition-id": client, "num-partitions": 3}, config)
        split = local_data.training_data(site, config)
        images = torch.from_numpy(local_data.training_pixels(site, split, config).whole().copy())
        labels = torch.from_numpy(split.labels.astype(np.int64))
        with torch.no_grad():
            losses = cross_entropy(model(to_input(images, CPU, "imagenet")), labels, reduction="none").double().numpy()
        metrics = answer.metric_records["metrics"]
        np.testing.assert_array_equal(metrics["class-counts"], np.bincount(split.labels, minlength=14))
        np.testing.assert_allclose(metrics["class-losses"], np.bincount(split.labels, losses, minlength=14), rtol=1e-4)
        squares = np.bincount(split.labels, losses**2, minlength=14)
        np.testing.assert_allclose(metrics["class-squares"], squares, rtol=1e-4)
        assert metrics["labels-wrong"] == (split.labels != split.true).sum()
        assert metrics["images-known"] == metrics["num-examples"] == 40


def test_methods_that_look_inside_the_network_are_not_compiled(tmp_path: Path, tiny_sample: Path) -> None:
    with pytest.raises(Exception, match="'compile' is true, but 'method' is 'feddecorr', which looks inside"):
        run_in_process(tmp_path, data_dir=str(tiny_sample), method="feddecorr", compile=True, model="cnn")
