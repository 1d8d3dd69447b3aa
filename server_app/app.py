"""One run: config, data, roll call, strategy, rounds. `server_app.start` starts it."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache, partial
from logging import INFO, WARNING
from typing import Any

from flwr.app import ArrayRecord, Context
from flwr.common import log
from flwr.serverapp import Grid

from config.combinations import check_combination
from config.paths import check_output
from config.resolve import resolve
from config.run_config import RunConfig
from config.stems import with_stem
from learning.schedule import check_rates
from learning.shared_state import batchnorm_names, shared_state
from messages import keys
from methods import build_method, with_own_strategy
from server_app.bad_images import left_out
from server_app.cache_lines import cache_lines
from server_app.callbacks import History
from server_app.callbacks.failures_file import FailuresFile
from server_app.callbacks.of_a_run import callbacks_of
from server_app.callbacks.tracking import check_tracking
from server_app.clean_sets import clean_sets_of, data_digests
from server_app.client_models import ClientModels
from server_app.exchange import Exchange
from server_app.files import output_folder
from server_app.grid import OrderedGrid, is_remote
from server_app.guarded_half import GuardedHalf, server_half
from server_app.measured import with_measured
from server_app.members import check_number, known_members, roll_of
from server_app.model_transport import Packing
from server_app.network import network
from server_app.recording import Recorder, data_of, recording
from server_app.resources import gather, log_resources
from server_app.resume import Start, begin, check_data, find_start, open_named, saved_config
from server_app.resume_record import record_resume, write_config
from server_app.roll_call import hold_roll_call, introduce
from server_app.rounds import RoundLoop
from server_app.run_lock import RunLock
from server_app.server_data import open_data
from server_app.server_training import ServerTraining
from server_app.startup_log import (
    log_run,
    roll_table,
    warn_of_few_images,
    warn_of_initial_weights,
    warn_of_learning_rate,
    warn_of_partition,
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
    remote = is_remote(grid)
    if not remote:
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
    own_half = server_half(method, config.method)
    check_privacy(config, method, own_half)
    release = open_data(config, own_half, remote)
    config = with_measured(config, start, release, remote)
    half = GuardedHalf(own_half, config.method)
    half.prepare(config, release)
    lists = data_digests(release, config, own_half)
    checkpoint = start.checkpoint if start else None
    if start and checkpoint and half.keeps_models:
        ClientModels(start.run_dir, start.run).check(checkpoint.visits)
    built = cache(partial(network, config, method, checkpoint))
    known = release.class_names if release else checkpoint.class_names if checkpoint else None
    if known:
        built(len(known))  # now, so that a network that cannot be stops the run before anybody is asked

    before = known_members(checkpoint.roll) if checkpoint and remote else []
    members = hold_roll_call(grid, config, known, strategy, before, lambda names: built(len(names))[1])
    if checkpoint:
        check_data(checkpoint, roll_of(members), lists, known)
    check_number(config, len(members), "connect as many")
    class_names = known or members[0].class_names
    half.check_classes(len(class_names))
    model, frozen = built(len(class_names))
    check_needs(config, strategy, len(members), model)
    apart = batchnorm_names(model) if config.batchnorm == "local" else frozenset()
    if apart:
        keep_apart(strategy, apart)
    recorded = replace(config, num_clients=len(members))
    flower_run = str(grid.run.run_id)
    with writing(start.run_dir if start else output_folder(config)):
        resumed, start = start is not None, begin(config, start, lock)
        write_config(start.run_dir, recorded, flower_run)
        recorder.begin(start, flower_run, data_of(release, config, lists), members)
        if resumed:
            record_resume(start, recorded, flower_run)
    run_dir = start.run_dir
    where = release.root if release else None
    log_run(config, where, len(class_names), run_dir, compute.device.type, roll_table(members, class_names))
    warn_of_partition(config, members)
    warn_of_weights(members)
    warn_of_few_images(config, members)
    if not resumed:
        warn_of_learning_rate(config, method, set_by_user)
        warn_of_initial_weights(config)
    for line in left_out(members):
        log(WARNING, "%s", line)
    sampled = sampled_clients(strategy, len(members))
    log_resources(gather(grid, members, sampled, config.fraction_train))
    if release and not remote:  # real nodes have caches of their own
        for line in cache_lines(config, release, members, sampled):
            log(INFO, "%s", line)

    arrays = checkpoint.arrays() if checkpoint else ArrayRecord(shared_state(model))
    if checkpoint:
        restore(strategy, checkpoint)
        half.load_state(checkpoint.method)
    failures = FailuresFile(run_dir / "failures.jsonl")
    client_models = ClientModels(run_dir, start.run) if half.keeps_models else None
    if client_models:
        log(INFO, "%s", client_models.needed(len(members), shared_state(model)))
    callbacks = callbacks_of(
        start, recorded, members, class_names, model, flower_run=flower_run, lists=lists, failures=failures,
        client_models=client_models,
    )  # fmt: skip
    history = History(start.next_round - 1, start.metrics)
    if checkpoint:
        history = replace(history, best=checkpoint.best, visits=checkpoint.visits, arrays=arrays)
    # In a simulation, the run's folder holds everything; real nodes keep their clients' state themselves.
    state_dir = config.state_dir or ("" if remote else str(run_dir / "state"))
    with resumable(run_dir) as recorder.interrupted:
        # A simulation gains nothing by packing, but half precision must have the same effect there as over a network.
        packing = Packing(config.payload) if remote or config.payload != "fp32" else None
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
            own_clients=not remote,
            frozen=frozen,
            apart=apart,
            client_models=client_models,
            introduce=partial(introduce, grid, config, class_names, lambda names: frozen) if remote else None,
        )
        guarded = [Guarded(callback, run_dir) for callback in callbacks]
        loop = RoundLoop(
            exchange,
            strategy,
            clean_sets_of(release, model, config, compute),
            config,
            guarded,
            half,
            ServerTraining(half, release, model, config, compute) if release and half.trains else None,
        )
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
    return with_stem(with_own_strategy(config))
