"""What to say about keys that other programs have, and that this app calls otherwise."""

from collections.abc import Mapping
from typing import Any

from config.known import LR_SCHEDULES, METHODS, OPTIMIZERS, STRATEGIES
from data.text import shown

FEDERATION = 'the number of clients is Flower\'s: --federation-config "num-supernodes=10"'
SHARES = "clients' shares of the machine are Flower's: --federation-config \"client-resources-num-cpus=1\""
# By what users write, with '-' for '_': the key, or a sentence's end.
OTHER_NAMES = {
    **dict.fromkeys(("lr", "eta-l", "client-lr"), "learning-rate"),
    **dict.fromkeys(("wd", "decay"), "weight-decay"),
    **dict.fromkeys(("optim", "optimiser", "opt"), "optimizer"),
    **dict.fromkeys(("scheduler", "schedule", "lr-scheduler", "lr-decay"), "lr-schedule"),
    **dict.fromkeys(("warmup", "lr-warmup", "warmup-rounds", "warmup-epochs"), "lr-warm-up"),
    **dict.fromkeys(("clip", "clip-grad", "grad-clip", "max-grad-norm", "clip-grad-norm"), "gradient-clipping"),
    **dict.fromkeys(("epochs", "num-epochs", "local-epoch"), "local-epochs"),
    **dict.fromkeys(("rounds", "num-rounds", "server-rounds"), "num-server-rounds"),
    **dict.fromkeys(("early-stopping", "early-stop", "early-stopping-patience"), "patience"),
    **dict.fromkeys(("target", "target-acc", "accuracy-target"), "target-accuracy"),
    **dict.fromkeys(("batch", "bs", "batchsize", "local-batch-size"), "batch-size"),
    **dict.fromkeys(("data", "dataset", "data-path", "root", "path"), "data-dir"),
    **dict.fromkeys(("output", "out", "log-dir", "save-dir"), "output-dir"),
    **dict.fromkeys(("name", "experiment"), "run-name"),
    **dict.fromkeys(("arch", "network", "backbone"), "model"),
    **dict.fromkeys(("noise", "noise-type"), "label-noise"),
    **dict.fromkeys(("noise-rate", "noise-ratio"), "label-noise-args"),
    **dict.fromkeys(("algorithm", "loss"), "method"),
    **dict.fromkeys(("aggregation", "aggregator"), "strategy"),
    **dict.fromkeys(("frac", "fraction-fit", "participation"), "fraction-train"),
    **dict.fromkeys(("weights", "checkpoint"), "pretrained"),
    **dict.fromkeys(("size", "img-size", "resolution"), "image-size"),
}
ELSEWHERE = {
    **dict.fromkeys(("clients", "num-clients", "num-supernodes", "supernodes", "nodes"), FEDERATION),
    **dict.fromkeys(("num-gpus", "num-cpus", "client-resources-num-gpus", "client-resources-num-cpus"), SHARES),
    **dict.fromkeys(("device", "cuda", "gpu"), "the device is a GPU if there is one"),
}


def hint_about_key(key: str) -> str | None:
    """The sentence about a key that there is not, if it is known from elsewhere; `key` as the user wrote it."""
    name = key.lower().replace("_", "-")
    start = f"run config: there is no key {shown(key)}; "
    if name in OTHER_NAMES:
        return f"{start}did you mean '{OTHER_NAMES[name]}'?"
    if name in ELSEWHERE:
        return f"{start}{ELSEWHERE[name]}."
    owners: dict[str, Mapping[str, Any]] = {
        "method": METHODS, "strategy": STRATEGIES, "optimizer": OPTIMIZERS, "lr-schedule": LR_SCHEDULES,
    }  # fmt: skip
    for owner, table in owners.items():
        has = [one for one, known in table.items() if name.replace("-", "_") in getattr(known, "parameters", known)]
        if has:
            some = "every strategy" if len(has) == len(table) else ", ".join(has)
            return f"{start}it is a parameter of {some}: {owner}-args='{name}=...'."
    return None
