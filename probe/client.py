"""One process that trains as a client would, or evaluates as the server would; it gets its job through stdin.

The process that measures it, `probe.concurrent`, writes a job, waits until all processes have reported that they are
warm, starts them together, and lets them end once it has measured the GPU's memory. Images are random: neither speed
nor memory depends on what they show, so no dataset is needed.
"""

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from config.normalization import MEASURED, normalization_of
from config.run_config import ConfigError, RunConfig
from learning.allocator import keep_freed_memory
from learning.augmentation import stored_size
from learning.evaluation import evaluate, evaluation_batch
from learning.frozen_features import Head, features_of_bodies, heads_of, keeps_features, width_of
from learning.images import Features, Images
from learning.inference import Inference
from learning.method import Method, Told, Visit
from learning.network import NetworkSpec, build
from learning.own_network import keep_own
from learning.replica import kept_replica
from learning.shared_state import shared_state
from learning.training import train_locally
from methods import build_method
from methods.fedcorr_on_server import DELTA
from methods.fedrn import LOSSES
from methods.fedrn_on_server import SCORES
from methods.forward import TOLD
from methods.two_stages import BEGAN, NOISY, STAGE
from methods.xiao import CONFUSION
from simulation.capacity import Share
from simulation.share import has_room, hold_to, out_of_memory
from task import Compute, classifier, networks_of, pick_compute

CLASSES = 14
WARM_UP_STEPS = 2
# The server's messages that make a visit most expensive: the client is noisy, and the run is nearly over.
UNIT = np.eye(CLASSES).ravel().tolist()
HEAVIEST: dict[str, Told] = {STAGE: 2, NOISY: True, BEGAN: 1, TOLD: UNIT, CONFUSION: UNIT, DELTA: 0.5}
Work = Callable[[], tuple[int, float]]


def peak_rss() -> int:
    """The most memory that this process has held so far, in bytes.

    `ru_maxrss` would count what the process that started this one held by then.
    """
    (peak,) = re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    return int(peak) * 1024


def network_spec(config: RunConfig) -> NetworkSpec:
    """The run's network, with fresh weights: which ones takes neither time nor memory."""
    return replace(NetworkSpec.of(config, build_method(config), CLASSES), seed=0, pretrained="none")


def with_any_numbers(config: RunConfig) -> RunConfig:
    """A config whose inputs can be normalised: a run would measure by what, but any numbers take the same time."""
    return replace(config, normalization="half") if config.normalization == MEASURED else config


def client_work(config: RunConfig, steps: int, images: int) -> Work:
    """Training of `steps` batches by the client's own loop, out of `images` of one client, after a warm-up."""
    config = replace(with_any_numbers(config), local_epochs=1, drop_last=True)
    compute = pick_compute(config.precision, config.autotune)
    generator = torch.Generator().manual_seed(0)
    if compute.device.type == "cpu":
        keep_freed_memory()
    method = build_method(config)
    ours = kept_replica(network_spec(config), compute.device, config.compile)
    count, side = steps * config.batch_size, stored_size(config.augmentation, config.image_size)
    pixels = torch.randint(256, (count, side, side, 3), generator=generator, dtype=torch.uint8)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    model, inputs = ours.model, pixels
    if keeps_features(method, config):  # computed here, as by a client's first visit, whose memory counts
        inference = Inference(Images(pixels, compute.device), config.image_size, compute, normalization_of(config))
        model, inputs = heads_of(ours.model), features_of_bodies(ours.model, inference).cpu()
    size = inputs[0].nbytes  # of one image

    kept = tables(method, images, model, config, compute)
    ranks = range(1, 1 + method.models_received)
    others = {str(rank): {name: value.cpu().clone() for name, value in shared_state(model).items()} for rank in ranks}
    # Equal losses, and a weight above all others' together: every image is learned from, once neighbours have judged.
    told = {**HEAVIEST, SCORES: [1.0 + len(others), *[1.0] * len(others)]}

    def train(count: int) -> tuple[int, float]:
        stay = has_room(size * max(images, count), compute.device)
        # A method may look at all images of a visit, so it has as many as it trains on; this is where the others lie.
        rest = torch.empty(size * max(images - count, 0), dtype=torch.uint8, device=compute.device) if stay else None
        held = (Images if model is ours.model else Features)(inputs[:count], compute.device, stay=stay)
        report = train_locally(
            model, held, labels[:count], method, config, compute, generator,
            optimizer=ours.optimizer(config), server_round=config.num_server_rounds, told=told,
            state={LOSSES: torch.ones(count)} if others else None, models=others,
        )  # fmt: skip
        del rest
        return report.images_seen, report.seconds

    def work() -> tuple[int, float]:
        done = train(count)
        kept.clear()  # not earlier: it must count in the peak
        return done

    train(min(steps, WARM_UP_STEPS) * config.batch_size)
    return work


def tables(method: Method, images: int, model: nn.Module, config: RunConfig, compute: Compute) -> list[Tensor]:
    """What the method keeps of each image, for as many as one client holds, and the network that a client keeps.

    These are copies, so that their memory is taken.
    """
    width = classifier(networks_of(model)[0]).in_features
    if isinstance(networks_of(model)[0], Head):
        none: Images = Features(torch.zeros(1, width_of(model)), compute.device, stay=True)
    else:
        none = Images(torch.zeros(1, 1, 1, 3, dtype=torch.uint8), compute.device)
    sent = method.sends(HEAVIEST, CLASSES, width)  # comes back from the server, so that `begin` need not look at images
    visit = Visit(
        torch.zeros(images, dtype=torch.int64, device=compute.device),
        CLASSES,
        config.num_server_rounds,
        config.num_server_rounds,
        HEAVIEST,
        networks=networks_of(model),
        inference=Inference(none, config.image_size, compute, normalization_of(config)),
        received={name: torch.ones(rule.shape, device=compute.device) for name, rule in sent.items()},
    )
    method.begin(visit)
    if method.keeps_network:  # its file is read into memory
        keep_own(visit.networks[0], visit.state)
    return [value.clone() for value in (*visit.state.values(), *visit.scratch.values()) if isinstance(value, Tensor)]


def server_work(config: RunConfig) -> Work:
    """Evaluation of one batch."""
    config = with_any_numbers(config)
    compute = pick_compute(config.precision, config.autotune)
    model = build(network_spec(config)).to(compute.device)
    count = evaluation_batch(config.image_size, compute.device)
    images = np.zeros((count, config.image_size, config.image_size, 3), dtype=np.uint8)

    def work() -> tuple[int, float]:
        evaluate(model, images, np.zeros(count, dtype=np.int64), compute, normalization_of(config))
        return count, 0.0

    return work


def main() -> None:
    job = json.loads(sys.stdin.readline())
    idle = peak_rss()
    try:
        config = RunConfig.from_flat(job["config"])
        hold_to(Share(*job["share"]))
        server = job["role"] == "server"
        work = server_work(config) if server else client_work(config, job["steps"], job["images"])
        _say({"ready": True})
        sys.stdin.readline()
        images, seconds = work()
    except ConfigError as error:
        return _say({"refused": str(error)})
    except FloatingPointError as error:
        return _say({"refused": f"{error}."})
    except torch.OutOfMemoryError as error:
        return _say({"out of memory": out_of_memory(error)})
    _say({"images": images, "seconds": seconds, "idle": idle, "peak": peak_rss()})
    sys.stdin.readline()  # keep the memory until it has been measured
    return None


def _say(values: dict[str, Any]) -> None:
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    main()
