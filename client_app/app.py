"""One client, one message at a time: the ClientApp and its handlers."""

import time
import traceback
from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from flwr.app import ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode

from client_app import local_data, model_transport
from client_app.client_state import ClientState
from config.run_config import ConfigError, RunConfig
from data.errors import DataError
from learning.allocator import keep_freed_memory
from learning.evaluation import evaluate
from learning.inference import Inference
from learning.method import Told
from learning.replica import check_compiler, kept_replica
from learning.training import train_locally
from messages.clipping import CLIPPING_NORM, NORM_BIT
from messages.fingerprint import running_code
from messages.keys import REFUSED, SITES
from messages.payload import unpack
from methods import build_method
from methods.scores import counts
from simulation.machine import machine
from simulation.patches import prepare_simulation
from simulation.pinned_app import PinnedClientApp
from simulation.share import hold_to_share, out_of_memory, place
from task import Compute, derived_generator, pick_compute

prepare_simulation()
app = PinnedClientApp(__name__)

Handler = Callable[[Message, Context], Message]
TRACEBACK_LINES = 12


def answering_errors(handler: Handler) -> Handler:
    """Turn whatever goes wrong into an error reply that says which client it was and why, in its first line."""

    def answer(message: Message, context: Context) -> Message:
        try:
            hold_to_share()
            return handler(message, context)
        except Exception as error:
            code: int = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
            where = f" on {name}" if (name := machine()) else ""
            reason = f"client {context.node_config.get('partition-id', context.node_id)}{where}: "
            if isinstance(error, (ConfigError, DataError)):
                code = REFUSED
                reason += str(error)  # already says all there is to say
            elif isinstance(error, torch.OutOfMemoryError):
                # What this visit held, in frames that the traceback keeps, must not be missing from the next one.
                traceback.clear_frames(error.__traceback__)
                kept_replica.cache_clear()  # it holds the gradients of the step that failed
                torch.cuda.empty_cache()
                reason += out_of_memory(error)
            else:
                tail = traceback.format_exc().splitlines()[-TRACEBACK_LINES:]
                reason += f"{type(error).__name__}: {error}\n" + "\n".join(tail)
            return Message(Error(code, reason), reply_to=message)

    return answer


@app.query()
@answering_errors
def query(message: Message, context: Context) -> Message:
    """Roll call: who this client is, what it holds, which code it runs; no weights travel.

    Everything that training will need is checked here, so that a bad setting ends the run before it starts.
    """
    config, site = _read(message, context)
    split = local_data.training_data(site, config)
    if config.fraction_evaluate > 0:
        local_data.evaluation_data(site, config)
    method = build_method(config)
    if config.compile:
        check_compiler()
        if method.features:
            raise ConfigError(
                f"run config: 'compile' is true, but 'method' is {config.method!r}, which looks inside the network; it"
                " must be false."
            )
    names = local_data.class_names(site)
    facts = MetricRecord(
        {
            "partition-id": site.partition_id,
            "num-partitions": site.num_partitions,
            "num-examples": len(split.labels),
            "label-histogram": np.bincount(split.labels, minlength=len(names)).tolist(),
        }
    )
    about = ConfigRecord(
        {
            "class-names": list(names),
            "compute": str(pick_compute(config.precision)),
            "data": split.digest,
            "fingerprint": running_code(),
            "deal": local_data.deal_digest(site, config),
            "machine": machine(),
        }
    )
    if share := hold_to_share():
        about["cpus"], about["gpus"] = share.cpus, share.gpus
    return Message(RecordDict({"facts": facts, "about": about}), reply_to=message)


@app.train()
@answering_errors
def train(message: Message, context: Context) -> Message:
    """Load the global model, train it on this client's images, send it back."""
    started = time.perf_counter()
    config, site = _read(message, context)
    sent = message.content.config_records["config"]
    server_round = cast(int, sent["server-round"])
    split = local_data.training_data(site, config)
    images = torch.from_numpy(local_data.training_pixels(site, split, config))
    compute = pick_compute(config.precision, config.autotune)
    if compute.device.type == "cpu":
        keep_freed_memory()
    method = build_method(config)
    ours = kept_replica(
        config.model, len(local_data.class_names(site)), compute.device, config.compile, method.networks
    )
    sent_arrays = message.content.array_records["arrays"]
    model_transport.load(ours.model, unpack(sent_arrays))
    number = _number(sent, context, site)
    told = message.content.config_records.get("visit", ConfigRecord())
    last_round = cast(int, told.get("last-round", 0))
    kept = ClientState.of(told, str(context.node_config.get("state-dir", "")), number, split.digest)
    state = kept.load(last_round) if method.remembers and last_round else None
    report = train_locally(
        ours.model,
        place(images, compute.device),
        torch.from_numpy(split.labels.astype(np.int64)),
        method,
        config,
        compute,
        derived_generator(config.seed, "local training", server_round, number + 1),
        proximal_mu=cast(float, sent.get("proximal-mu", 0.0)),
        optimizer=ours.optimizer,
        server_round=server_round,
        told=cast(dict[str, Told], dict(message.content.config_records.get("method", ConfigRecord()))),
        state=state,
    )
    visit = report.visit
    metrics = MetricRecord(
        {
            "num-examples": len(split.labels),
            "train-loss": sum(report.epoch_losses) / len(report.epoch_losses),
            "epoch-losses": report.epoch_losses,
            "images-seen": report.images_seen,
            "train-seconds": report.seconds,
            **visit.metrics,
            **counts(method, visit, split.true),
        }
    )
    if method.remembers:
        kept.save(server_round, visit.state, split.keys, visit.labels, visit.corrected)
        metrics["state-lost"] = int(last_round > 0 and state is None)
    metrics["visit-seconds"] = time.perf_counter() - started
    clipping_norm = sent.get(CLIPPING_NORM)
    if clipping_norm is None:
        trained = model_transport.state_of(ours.model)
    else:
        trained, within = model_transport.clipped(ours.model, unpack(sent_arrays), cast(float, clipping_norm))
        metrics[NORM_BIT] = int(within)
    arrays = model_transport.answer(trained, sent_arrays, config.payload)
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@app.query("class_losses")
@answering_errors
def class_losses(message: Message, context: Context) -> Message:
    """How well the global model fits this client's labels, class by class: what gives noisy clients away.

    For each of the C given labels: the number of images, and sum and sum of squares of their cross-entropies.
    """
    config, site = _read(message, context)
    split = local_data.training_data(site, config)
    compute = pick_compute(config.precision, config.autotune)
    classes = len(local_data.class_names(site))
    model = _global_model(message, config, classes, compute)
    images = torch.from_numpy(local_data.training_pixels(site, split, config))
    logits = Inference(images, config.image_size, compute, config.normalization).on_all(model).cpu()
    labels = torch.from_numpy(split.labels.astype(np.int64))
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none").double().numpy()
    known = split.true >= 0
    metrics = MetricRecord({"num-examples": len(labels)})
    for name, weights in (("class-counts", None), ("class-losses", losses), ("class-squares", losses**2)):
        metrics[name] = np.bincount(split.labels, weights, minlength=classes).astype(float).tolist()
    metrics["images-known"], metrics["labels-wrong"] = (
        int(known.sum()),
        int((known & (split.labels != split.true)).sum()),
    )
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


@app.evaluate()
@answering_errors
def evaluate_locally(message: Message, context: Context) -> Message:
    """Evaluate the global model on this client's slice of clean val."""
    config, site = _read(message, context)
    split = local_data.evaluation_data(site, config)
    compute = pick_compute(config.precision, config.autotune)
    model = _global_model(message, config, len(local_data.class_names(site)), compute)
    images = local_data.pixels(site, split, config.image_size)
    result = evaluate(model, images, split.labels, compute, config.normalization)
    metrics = MetricRecord(
        {"num-examples": result.num_examples, "eval-loss": result.loss, "eval-accuracy": result.accuracy}
    )
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def _global_model(message: Message, config: RunConfig, classes: int, compute: Compute) -> torch.nn.Module:
    """The model that came with a message, in this process's replica."""
    method = build_method(config)
    model = kept_replica(config.model, classes, compute.device, config.compile, method.networks).model
    model_transport.load(model, unpack(message.content.array_records["arrays"]))
    return model


def _read(message: Message, context: Context) -> tuple[RunConfig, local_data.Site]:
    """The run config that the server resolved, and where this client's images are.

    Flower's strategies put keys of their own into the same record, such as "server-round" and "proximal-mu".
    """
    known = RunConfig().to_flat()
    sent = message.content.config_records["config"]
    config = RunConfig.from_flat({key: value for key, value in sent.items() if key in known})
    return config, local_data.Site.resolve(context.node_config, config)


def _number(sent: ConfigRecord, context: Context, site: local_data.Site) -> int:
    """This client's place among all: its partition, or where the server put a site with a folder of its own."""
    if site.partition_id >= 0:
        return site.partition_id
    return cast(list[str], sent[SITES]).index(str(context.node_id))
