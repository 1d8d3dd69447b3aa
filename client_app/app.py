"""The ClientApp and its handlers: one client, one message at a time."""

import time
import traceback
from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from flwr.app import ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode

from client_app import local_data, model_transport
from client_app.client_state import CLASSES, ROOT, ClientState
from client_app.dealing import release_at
from client_app.own_batchnorm import own_state, take_own
from client_app.own_replica import checked_replica, replica_of
from client_app.visit_inputs import has_all_features, visit_inputs
from client_app.visit_report import VisitReport
from config.combinations import problem_of_single_images
from config.normalization import normalization_of
from config.run_config import ConfigError, RunConfig
from data.errors import BadImageError, DataError
from data.layout.finding import WRONG
from data.release import Split
from data.text import one_line
from learning.allocator import keep_freed_memory
from learning.evaluation import evaluate
from learning.images import Images
from learning.inference import Inference
from learning.method import Told
from learning.method_rules import MethodError
from learning.replica import check_compiler, kept_replica
from learning.training import train_locally
from messages import keys
from messages.fingerprint import running_code
from messages.payload import is_packed, unpack
from methods import build_method
from methods.scores import counts
from models import check_installed
from simulation.machine import machine
from simulation.patches import prepare_simulation
from simulation.pinned_app import PinnedClientApp
from simulation.share import hold_to_share, out_of_memory
from task import Compute, derived_generator, needs_two_images, pick_compute

prepare_simulation()
app = PinnedClientApp(__name__)

Handler = Callable[[Message, Context], Message]
TRACEBACK_LINES = 12


def errors_as_replies(handler: Handler) -> Handler:
    """Turn any exception into an error reply whose first line names the client and the cause."""

    def answer(message: Message, context: Context) -> Message:
        try:
            hold_to_share()
            return handler(message, context)
        except Exception as error:
            code: int = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
            where = f" on {name}" if (name := machine()) else ""
            reason = f"client {context.node_config.get(keys.PARTITION_ID, context.node_id)}{where}: "
            if isinstance(error, (ConfigError, DataError, MethodError)):
                code = keys.DAMAGED if isinstance(error, BadImageError) else keys.REFUSED
                # Written for the user: no traceback needed.
                reason += str(error) if not isinstance(error, MethodError) else f"{error}."
            elif isinstance(error, torch.OutOfMemoryError):
                # The traceback's frames keep this visit's tensors alive; the next visit needs that memory.
                traceback.clear_frames(error.__traceback__)
                kept_replica.cache_clear()  # it holds the gradients of the failed step
                torch.cuda.empty_cache()
                reason += out_of_memory(error)
            else:
                tail = traceback.format_exc().splitlines()[-TRACEBACK_LINES:]
                reason += f"{type(error).__name__}: {error}\n" + "\n".join(tail)
            return Message(Error(code, reason), reply_to=message)

    return answer


@app.query()
@errors_as_replies
def query(message: Message, context: Context) -> Message:
    """Roll call: who this client is, what it holds and which code it runs. No weights travel.

    Everything that training needs is checked here, so that a bad setting ends the run before it starts.
    """
    config, site = _read(message, context)
    check_installed(config.model)
    split = local_data.training_data(site, config)
    evaluated_on = len(local_data.evaluation_data(site, config).labels) if config.fraction_evaluate > 0 else 0
    method = build_method(config)
    if problem := problem_of_single_images(config, [len(split.labels)], needs_two_images):
        raise ConfigError(problem)
    if config.compile:
        check_compiler()
        if method.features:
            raise ConfigError(
                f"run config: 'compile' is true, but 'method' is {config.method!r}, which looks inside the network; it"
                " must be false."
            )
    compute = pick_compute(config.precision)
    replica = replica_of(context, config, local_data.class_names(site), compute) if config.trainable != "all" else None
    kept = replica is not None and has_all_features(site, split, method, config, replica, compute)
    local_data.look_at_images(site, config, trained_on=not kept)
    bad = local_data.bad_images(site, config)
    names = local_data.class_names(site)
    facts = MetricRecord(
        {
            keys.PARTITION_ID: site.partition_id,
            keys.NUM_PARTITIONS: site.num_partitions,
            keys.NUM_EXAMPLES: len(split.labels),
            keys.BAD_IMAGES: len(bad),
            keys.EVAL_EXAMPLES: evaluated_on,
            keys.LABEL_HISTOGRAM: np.bincount(split.labels, minlength=len(names)).tolist(),
        }
    )
    if config.holdout_fraction:
        facts[keys.OWN_EXAMPLES] = len(local_data.held_out_data(site, config).labels)
    about = ConfigRecord(
        {
            keys.CLASS_NAMES: list(names),
            keys.COMPUTE: str(compute),
            keys.DATA: release_at(site.root).identity(split),
            keys.FINGERPRINT: running_code(),
            keys.DEAL: local_data.deal_digest(site, config),
            keys.FIRST_BAD: one_line(bad[0], keys.LONGEST_SENTENCE) if bad else "",
            keys.FROZEN: replica.frozen if replica else "",
            keys.MACHINE: machine(),
        }
    )
    if share := hold_to_share():
        about[keys.CPUS], about[keys.GPUS] = share.cpus, share.gpus
    return Message(RecordDict({keys.FACTS: facts, keys.ABOUT: about}), reply_to=message)


@app.train()
@errors_as_replies
def train(message: Message, context: Context) -> Message:
    """Load the global model, train it on this client's images, and send it back."""
    started = time.perf_counter()
    config, site = _read(message, context)
    sent = message.content.config_records[keys.CONFIG]
    server_round = cast(int, sent[keys.SERVER_ROUND])
    split = local_data.training_data(site, config)
    compute = pick_compute(config.precision, config.autotune)
    if compute.device.type == "cpu":
        keep_freed_memory()
    method = build_method(config)
    replica = checked_replica(message, context, config, local_data.class_names(site), compute)
    sent_arrays = message.content.array_records[keys.ARRAYS]
    model_transport.load(replica.model, unpack(sent_arrays))
    number = _client_number(sent, context, site)
    client_state, last_round = _state(message, context, site, split)
    own_batchnorm = config.batchnorm == "local"
    remembers = method.remembers or own_batchnorm or config.inspection != "none"
    found = client_state.load(last_round) if remembers and last_round else None
    take_own(replica.model, found)
    labels = torch.from_numpy(split.labels.astype(np.int64))
    looks = VisitReport(site, labels, config, compute, replica.model, found.inspected if found else None)
    with visit_inputs(site, split, method, config, replica, compute) as (model, images):
        looks.before_training(model, images)
        report = train_locally(
            model,
            images,
            labels,
            method,
            config,
            compute,
            derived_generator(config.seed, "local training", server_round, number + 1),
            proximal_mu=cast(float, sent.get(keys.PROXIMAL_MU, 0.0)),
            optimizer=replica.optimizer(config),
            server_round=server_round,
            told=cast(dict[str, Told], dict(message.content.config_records.get(keys.METHOD, ConfigRecord()))),
            state=found.state if found else None,
            relabelled=found.corrected if found and method.relabels else None,
            received=model_transport.beside(message),
            models=model_transport.client_models(message),
        )
        looks.after_training(model, images)
    visit = report.visit
    metrics = MetricRecord(
        {
            keys.NUM_EXAMPLES: len(split.labels) if visit.used is None else max(1, int(visit.used)),
            keys.TRAIN_LOSS: sum(report.epoch_losses) / len(report.epoch_losses),
            keys.EPOCH_LOSSES: report.epoch_losses,
            keys.IMAGES_SEEN: report.images_seen,
            keys.TRAIN_SECONDS: report.seconds,
            **visit.metrics,
            **counts(method, visit, split.true),
            **looks.metrics,
        }
    )
    if remembers:
        state = {**(visit.state if method.remembers else {}), **(own_state(replica.model) if own_batchnorm else {})}
        about = {ROOT: str(site.root.absolute()), CLASSES: list(local_data.class_names(site))}
        client_state.save(
            server_round, state, split.keys, visit.given, visit.corrected, inspected=looks.inspected, about=about
        )
        metrics[keys.STATE_LOST] = int(last_round > 0 and not (found and found.exact))
    metrics[keys.VISIT_SECONDS] = time.perf_counter() - started
    clipping_norm = sent.get(keys.CLIPPING_NORM)
    if clipping_norm is None:
        trained = model_transport.state_of(replica.model)
    else:
        trained, within = model_transport.clipped(replica.model, unpack(sent_arrays), cast(float, clipping_norm))
        metrics[keys.NORM_BIT] = int(within)
    arrays = model_transport.answer(trained, sent_arrays, config.payload)
    content = RecordDict({keys.ARRAYS: arrays, keys.METRICS: metrics})
    if visit.sends:
        content[keys.METHOD_ARRAYS] = model_transport.as_record(visit.sends, packed=is_packed(sent_arrays))
    return Message(content, reply_to=message)


@app.query("class_losses")
@errors_as_replies
def class_losses(message: Message, context: Context) -> Message:
    """How well the global model fits this client's labels, class by class: this gives noisy clients away.

    For each of the C given labels: the number of images, and the sum and sum of squares of their cross-entropies.
    """
    config, site = _read(message, context)
    split = local_data.training_data(site, config)
    compute = pick_compute(config.precision, config.autotune)
    classes = len(local_data.class_names(site))
    model = _global_model(message, context, config, site, compute)
    images = Images(local_data.training_pixels(site, split, config), compute.device)
    logits = Inference(images, config.image_size, compute, normalization_of(config)).on_all(model).cpu()
    labels = torch.from_numpy(split.labels.astype(np.int64))
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none").double().numpy()
    known = (split.true >= 0) | (split.true == WRONG)
    metrics = MetricRecord({keys.NUM_EXAMPLES: len(labels)})
    for name, weights in (("class-counts", None), ("class-losses", losses), ("class-squares", losses**2)):
        metrics[name] = np.bincount(split.labels, weights, minlength=classes).astype(float).tolist()
    metrics["images-known"], metrics["labels-wrong"] = (
        int(known.sum()),
        int((known & (split.labels != split.true)).sum()),
    )
    return Message(RecordDict({keys.METRICS: metrics}), reply_to=message)


@app.evaluate()
@errors_as_replies
def evaluate_locally(message: Message, context: Context) -> Message:
    """Evaluate the global model on this client's slice of clean val, or on what it holds out."""
    config, site = _read(message, context)
    split = local_data.evaluation_data(site, config)
    compute = pick_compute(config.precision, config.autotune)
    model = _global_model(message, context, config, site, compute)
    if config.batchnorm == "local":
        client_state, last_round = _state(message, context, site, local_data.training_data(site, config))
        take_own(model, client_state.load(last_round) if last_round else None)
    images = local_data.pixels(site, split, config.image_size, config)
    result = evaluate(model, images, split.labels, compute, normalization_of(config))
    metrics = MetricRecord(
        {
            keys.NUM_EXAMPLES: result.num_examples,
            keys.EVAL_LOSS: result.loss,
            keys.EVAL_ACCURACY: result.accuracy,
        }
    )
    return Message(RecordDict({keys.METRICS: metrics}), reply_to=message)


def _state(message: Message, context: Context, site: local_data.Site, split: Split) -> tuple[ClientState, int]:
    """This client's state for the images of `split`, and the round of its last good reply; 0: none yet."""
    about = message.content.config_records.get(keys.VISIT, ConfigRecord())
    number = _client_number(message.content.config_records[keys.CONFIG], context, site)
    own_folder = str(context.node_config.get(keys.STATE_DIR, ""))
    return ClientState.of(about, own_folder, number, split.digest), cast(int, about.get(keys.LAST_ROUND, 0))


def _global_model(
    message: Message, context: Context, config: RunConfig, site: local_data.Site, compute: Compute
) -> torch.nn.Module:
    """This process's replica, with the weights that came with a message."""
    model = checked_replica(message, context, config, local_data.class_names(site), compute).model
    model_transport.load(model, unpack(message.content.array_records[keys.ARRAYS]))
    return model


def _read(message: Message, context: Context) -> tuple[RunConfig, local_data.Site]:
    """The run config as the server resolved it, and where this client's images are.

    Flower's strategies add their own keys to the same record, such as "server-round" and "proximal-mu".
    """
    known = RunConfig().to_flat()
    sent = message.content.config_records[keys.CONFIG]
    config = RunConfig.from_flat({key: value for key, value in sent.items() if key in known})
    return config, local_data.Site.resolve(context.node_config, config, str(context.run_id))


def _client_number(sent: ConfigRecord, context: Context, site: local_data.Site) -> int:
    """This client's number among all: its partition, or for a site the position that the server gave it."""
    if site.partition_id >= 0:
        return site.partition_id
    return cast(list[str], sent[keys.SITES]).index(str(context.node_id))
