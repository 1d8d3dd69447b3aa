"""What a run logs at its start: its settings, its clients and their data, and what in them is easily overlooked."""

from collections import Counter
from collections.abc import Container, Sequence
from logging import INFO, WARNING
from pathlib import Path

import numpy as np
from flwr.common import log

from config.advice import advice_on_learning_rate
from config.run_config import RunConfig
from config.stems import has_small_stem, stem_of, usual_stem
from data.confusion import MANY_CLASSES
from data.text import label
from learning.method import Method
from learning.pretrained import warnings_of_normalization
from learning.schedule import changes, rates
from server_app.members import Member

ROLL_ROWS = 12  # larger federations are summarised
FEW = 5  # images, below which a number over them tells about single ones


def roll_table(members: list[Member], class_names: tuple[str, ...]) -> list[str]:
    """The members as a table for the log."""
    lines = [f"{'client':>6}  {'images':>8}  {'classes':>7}  most frequent label      compute"]
    for member in members[:ROLL_ROWS]:
        top = int(member.histogram.argmax())
        share = member.histogram[top] / member.num_examples
        most = f"{label(class_names[top])} ({share:.0%})"
        lines.append(
            f"{member.partition_id:>6}  {member.num_examples:>8,}  {np.count_nonzero(member.histogram):>7}"
            f"  {most:<23}  {member.compute}"
        )
    if len(members) > ROLL_ROWS:
        lines.append(f"{'...':>6}  and {len(members) - ROLL_ROWS} more clients")
    total = sum(member.num_examples for member in members)
    lines.append(f"{'all':>6}  {total:>8,}  {np.count_nonzero(sum(member.histogram for member in members)):>7}")
    machines = Counter(member.machine for member in members if member.machine)
    lines += [f"{count:>6}  answered from {machine}" for machine, count in sorted(machines.items())]
    return lines + _label_table([member for member in members if member.own_folder][:ROLL_ROWS], class_names)


def _label_table(sites: list[Member], class_names: tuple[str, ...]) -> list[str]:
    """Which node each site is, and how many of its images carry each label; for slices, the scheme decides that."""
    if not sites:
        return []
    lines = [f"client {site.partition_id} is node {site.node_id}" for site in sites]
    names = [label(name) for name in class_names[:MANY_CLASSES]]
    width = max(map(len, ("label", *names)))
    lines.append(f"{'label':<{width}}" + "".join(f"{f'client {site.partition_id}':>11}" for site in sites))
    for index, name in enumerate(names):
        lines.append(f"{name:<{width}}" + "".join(f"{site.histogram[index]:>11,}" for site in sites))
    return lines + [f"and {len(class_names) - len(names):,} more labels"] * (len(class_names) > len(names))


def rate_lines(config: RunConfig) -> list[str]:
    """How learning rates go from round to round, in one line; nothing if they are all the same."""
    found = rates(config) if changes(config) else []
    if len(set(found)) < 2:
        return []
    highest = found.index(max(found))
    shown = sorted({0, highest, len(found) - 1})
    return [f"Rates       {', '.join(f'{found[one]:.3g} in round {one + 1}' for one in shown)} ({config.lr_schedule})"]


def log_run(config: RunConfig, root: Path | None, classes: int, run_dir: Path, device: str, roll: list[str]) -> None:
    """Log what a run is, with a table of its clients; `root` is None for a server without data."""
    log(INFO, "Run folder  %s", run_dir)
    log(INFO, "Data        %s (%d classes)", root or "none here; what clients have", classes)
    log(INFO, "Server      %s on %s", config.model, device)
    stem = f", stem {stem_of(config)}" if has_small_stem(config.model) else ""
    log(INFO, "Inputs      %d pixels%s, normalization %s", config.image_size, stem, config.normalization)
    log(INFO, "Training    %s on clients, %s on the server", config.method, config.strategy)
    for line in rate_lines(config):
        log(INFO, "%s", line)
    values = config.to_flat()
    usual = RunConfig().to_flat() | {
        "method": config.method, "strategy": config.strategy, "stem": usual_stem(values),
    }  # fmt: skip
    changed = {key: value for key, value in values.items() if value != usual[key]}
    log(INFO, "Settings    %d differ from the defaults; config.toml has all", len(changed))
    for key, value in changed.items():
        log(INFO, "  %-18s %s", key, value if value != "" else '""')
    for line in roll:
        log(INFO, "%s", line)


def warn_of_weights(members: Sequence[Member]) -> None:
    """Warn of a client that decides alone: numbers of images are weights, and clients report their own."""
    total = sum(member.num_examples for member in members)
    largest = max(members, key=lambda member: member.num_examples)
    if len(members) > 2 and 2 * largest.num_examples > total:
        log(
            WARNING,
            "Client %d reports %s of all %s images, and so decides most of each mean.",
            largest.partition_id,
            f"{largest.num_examples:,}",
            f"{total:,}",
        )


def warn_of_partition(config: RunConfig, members: Sequence[Member]) -> None:
    """Warn of a partition that was asked for, of clients that have folders of their own: nothing is dealt to them."""
    if config.partition != "iid" and members[0].own_folder:
        log(
            WARNING,
            "'partition' is '%s', but nothing is dealt: each client trains on all images of a folder of its own.",
            config.partition,
        )


def warn_of_few_images(config: RunConfig, members: Sequence[Member]) -> None:
    """Warn of clients whose reports are about so few images that they tell something about each of them."""
    few = [
        member.partition_id
        for member in members
        if 0 < member.held_out < FEW or (config.inspection != "none" and member.num_examples < FEW)
    ]
    if few:
        log(
            WARNING,
            "Some numbers that %s %s%s will report are about fewer than %d images, and so tell about single ones; see"
            " docs/clients.md.",
            "client" if len(few) == 1 else "clients",
            ", ".join(map(str, few[:ROLL_ROWS])),
            f" and {len(few) - ROLL_ROWS} more" if len(few) > ROLL_ROWS else "",
            FEW,
        )


def warn_of_learning_rate(config: RunConfig, method: Method, set_by_user: Container[str]) -> None:
    """Warn of a learning rate that does not suit the method or the optimiser, unless the user set it."""
    for line in advice_on_learning_rate(config, method, set_by_user):
        log(WARNING, "%s", line)


def warn_of_initial_weights(config: RunConfig) -> None:
    """Warn of pretrained weights that were trained on inputs of another mean and deviation, and of missing ones."""
    for line in warnings_of_normalization(config):
        log(WARNING, "%s", line)
    if config.trainable == "all" and config.batchnorm == "frozen" and config.pretrained == "none":
        log(
            WARNING,
            "'batchnorm' is 'frozen' and 'pretrained' is 'none': BatchNorm's statistics stay a mean of 0 and a variance"
            " of 1, which normalise nothing.",
        )
    if config.trainable != "all" and config.pretrained == "none":
        log(
            WARNING,
            "'trainable' is '%s' and 'pretrained' is 'none': the weights that do not train stay as they were drawn.",
            config.trainable,
        )
