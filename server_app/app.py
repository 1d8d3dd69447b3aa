"""One run: config, data, roll call, strategy, rounds. `server_app.start` starts it."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from logging import INFO, WARNING
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, Context
from flwr.common import log
from flwr.serverapp import Grid

from config.combinations import check_combination
from config.paths import check_output
from config.resolve import resolve
from config.run_config import RunConfig
from data.release import Release, open_release
from data.sample import default_sample
from learning.network import NetworkSpec, build, check_batchnorm
from learning.schedule import check_rates
from learning.shared_state import batchnorm_names, frozen_digest, shared_state
from messages import keys
from methods import build_method, with_own_strategy
from server_app.bad_images import left_out
from server_app.cache_lines import cache_lines
from server_app.callbacks import Callback, History
from server_app.callbacks.checkpoints import Checkpoints
from server_app.callbacks.clients_file import ClientsFile
from server_app.callbacks.contributions import Contributions
from server_app.callbacks.failure_gate import FailureGate
from server_app.callbacks.failures_file import FailuresFile
from server_app.callbacks.latest_model import LatestModel
from server_app.callbacks.metrics_file import MetricsFile
from server_app.callbacks.noisy_clients_file import NoisyClientsFile
from server_app.callbacks.pictures import Pictures
from server_app.callbacks.progress import Progress
from server_app.callbacks.tracking import Tracking, check_tracking
from server_app.clean_sets import CleanSet, data_digests
from server_app.exchange import Exchange
from server_app.files import CHECKPOINTS, output_folder
from server_app.grid import OrderedGrid, is_remote
from server_app.guarded_half import GuardedHalf, server_half
from server_app.members import check_number, known_members, roll_of
from server_app.model_transport import Packing
from server_app.recording import Recorder, data_of, recording
from server_app.resume import Start, begin, check_data, check_network, find_start, open_named, saved_config
from server_app.resume_record import record_resume, write_config
from server_app.roll_call import call_roll, call_roll_again, introduce
from server_app.rounds import RoundLoop
from server_app.run_lock import RunLock
from server_app.server_training import ServerTraining
from server_app.startup_log import (
    gather,
    log_resources,
    log_run,
    roll_table,
    warn_of_initial_weights,
    warn_of_learning_rate,
    warn_of_weights,
)
from server_app.stopping import resumable
from server_app.strategies.parameters_only import keep_apart
from server_app.strategy import check_needs, check_privacy, make_strategy, restore, sampled_clients
from server_app.writing import Guarded, writing
from task import classifier, networks_of, pick_compute


def run(grid: Grid, context: Context) -> None:
    """Run one federated training, whose settings `server_app.start` has checked."""
    with RunLock() as lock, recording() as recorder:
        _run(grid, context, lock, recorder)


def _run(grid: Grid, context: Context, lock: RunLock, recorder: Recorder) -> None:
    """The run, in whose folder no other process writes as long as `lock` is held."""
    set_by_user: dict[str, Any] = dict(grid.run.override_config)
    named = open_named(str(set_by_user.get("resume", "")), lock)
    config = resolved_config(set_by_user, context, named)
    check_tracking(config)
    if not is_remote(grid):
        wanted = f"set num-supernodes={config.num_clients} in --federation-config"
        check_number(config, len(list(grid.get_node_ids())), wanted)
    start = find_start(config, lock, named)
    if start is None:
        check_output(config)
    check_rates(config)
    strategy = make_strategy(config)
    method = build_method(config)
    check_combination(config, method, strategy)
    compute = pick_compute(config.precision, config.autotune)
    release = _open_data(config)
    own_half = server_half(method, config.method)
    check_privacy(config, method, own_half)
    half = GuardedHalf(own_half, config.method)
    half.prepare(config, release)
    lists = data_digests(release, config, own_half)
    checkpoint = start.checkpoint if start else None
    spec = NetworkSpec.of(config, method, len(release.class_names))
    model = build(spec.to_be_filled() if checkpoint else spec)
    check_batchnorm(config, model)
    frozen = frozen_digest(model)
    if checkpoint:
        check_network(checkpoint, model)

    least = getattr(strategy, "min_available_nodes", 1)
    if checkpoint and is_remote(grid):
        members = call_roll_again(grid, config, release.class_names, least, known_members(checkpoint.roll), frozen)
    else:
        members = call_roll(grid, config, release.class_names, least, frozen)
    if checkpoint:
        check_data(checkpoint, roll_of(members), lists)
    check_number(config, len(members), "connect as many")
    check_needs(config, strategy, len(members), model)
    apart = batchnorm_names(model) if config.batchnorm == "local" else frozenset()
    if apart:
        keep_apart(strategy, apart)
    recorded = replace(config, num_clients=len(members))
    flower_run = str(grid.run.run_id)
    data = data_of(release, config, lists)
    with writing(start.run_dir if start else output_folder(config)):
        resumed, start = start is not None, begin(config, start, lock)
        write_config(start.run_dir, recorded, flower_run)
        recorder.begin(start, flower_run, data, members)
        if resumed:
            record_resume(start, recorded, flower_run)
    run_dir = start.run_dir
    log_run(config, release, run_dir, compute.device.type, roll_table(members, release.class_names))
    warn_of_weights(members)
    if not resumed:
        warn_of_learning_rate(config, method, set_by_user)
        warn_of_initial_weights(config)
    for line in left_out(members):
        log(WARNING, "%s", line)
    sampled = sampled_clients(strategy, len(members))
    log_resources(gather(grid, members, sampled, config.fraction_train))
    if not is_remote(grid):  # real nodes have caches of their own
        for line in cache_lines(config, release, members, sampled):
            log(INFO, "%s", line)

    arrays = checkpoint.arrays() if checkpoint else ArrayRecord(shared_state(model))
    if checkpoint:
        restore(strategy, checkpoint)
        half.load_state(checkpoint.method)
    clean_sets = {"test": CleanSet(release, "clean_test", model, config, compute)}
    if config.val_split != "none":
        clean_sets["validation"] = CleanSet(release, config.val_split, model, config, compute)
    failures = FailuresFile(run_dir / "failures.jsonl")
    title = f"{config.strategy}, {config.method}, {config.model}, {len(members)} clients"
    callbacks: list[Callback] = [
        failures,
        FailureGate(config.min_reply_fraction),
        ClientsFile(run_dir / "clients.jsonl"),
        NoisyClientsFile(run_dir / "noisy-clients.json", members),
        MetricsFile(run_dir / "metrics.jsonl", {"clients": len(members), "flower-run": flower_run}),
        Checkpoints(run_dir / CHECKPOINTS, recorded.to_flat(), roll_of(members), start.run, lists, frozen),
        Progress(config.num_server_rounds, config.evaluate_every, config.max_hours),
        Tracking(run_dir, config),
        LatestModel(run_dir / "model.safetensors", release.class_names, config, model),
        Pictures(run_dir, release.class_names, title, config.preset),
        Contributions(len(members)),
    ]
    history = History(start.next_round - 1, start.metrics)
    if checkpoint:
        history = replace(history, best=checkpoint.best, visits=checkpoint.visits, arrays=arrays)
    # In a simulation, the run's folder holds everything; real nodes keep their clients' state themselves.
    state_dir = config.state_dir or ("" if is_remote(grid) else str(run_dir / "state"))
    with resumable(run_dir) as recorder.interrupted:
        # A simulation gains nothing by packing, but half precision must have the same effect there as over a network.
        packing = Packing(config.payload) if is_remote(grid) or config.payload != "fp32" else None
        visit = {keys.RUN: start.run, keys.STATE_DIR: state_dir}
        ids = [member.node_id for member in members]
        ordered = OrderedGrid(grid, ids, recorder.interrupted, packing=packing)
        exchange = Exchange(
            ordered,
            members,
            strategy,
            config,
            method=method,
            half=half,
            width=classifier(networks_of(model)[0]).in_features,
            visit=visit,
            on_failure=failures.record,
            own_clients=not is_remote(grid),
            frozen=frozen,
            apart=apart,
            introduce=partial(introduce, grid, config, release.class_names, frozen) if is_remote(grid) else None,
        )
        guarded = [Guarded(callback, run_dir) for callback in callbacks]
        training = ServerTraining(half, release, model, config, compute) if half.trains else None
        loop = RoundLoop(exchange, strategy, clean_sets, config, guarded, half, training)
        recorder.reason = loop.run(arrays, history)
    log(INFO, "Finished: metrics.jsonl, model.safetensors and pictures are in")
    log(INFO, "  %s", run_dir)


def resolved_config(set_by_user: Mapping[str, Any], context: Context, named: Start | None) -> RunConfig:
    """pyproject.toml, overridden by the preset, overridden by what the user set for this run.

    Flower provides the first merged with the last, and the last by itself.
    """
    defaults = {key: value for key, value in context.run_config.items() if key not in set_by_user}
    # The config of a run to resume counts as set by the user; what is set now overrides it.
    config = resolve({**saved_config(named), **set_by_user}, defaults=defaults)
    return with_own_strategy(config)


def _open_data(config: RunConfig) -> Release:
    if config.data_dir:
        release = open_release(Path(config.data_dir).expanduser())
    else:
        log(INFO, "No 'data-dir': a sample in Clothing1M's layout, drawn once.")
        release = open_release(default_sample())
    for split in ("clean_test", config.val_split):
        if split != "none":
            release.split(split)  # read now, so that a bad list stops the run before it starts
    return release
