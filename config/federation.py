"""Flower's own settings of a simulation, as `--federation-config` takes them: how many clients, and their shares."""

import os
from typing import Any

from config.parameters import fits
from config.rules import Rule, at_least, closest, one_of, text, true_or_false
from data.text import shown

CLIENTS, CPUS, GPUS = "num-supernodes", "client-resources-num-cpus", "client-resources-num-gpus"
LEAST_GPU = 1 / 10_000  # Ray drops anything smaller
# With a value of the type that is wanted.
RULES: dict[str, tuple[Any, Rule]] = {
    CLIENTS: (2, at_least(1)),
    CPUS: (2.0, Rule("a number of at least 1", lambda value: 1 <= value <= 1e6)),
    GPUS: (
        0.0,
        Rule(
            f"0, from {LEAST_GPU} to 1, or a whole number",
            lambda value: value == 0 or LEAST_GPU <= value <= 1 or (1 < value <= 1e6 and value % 1 == 0),
        ),
    ),
    "backend": ("ray", one_of("ray")),
    "verbose": (False, true_or_false()),
    "init-args-num-cpus": (1, at_least(1)),
    "init-args-num-gpus": (0, at_least(0)),
    "init-args-logging-level": ("info", text("")),
    "init-args-log-to-driver": (False, true_or_false()),
}


def problems_of_federation(values: dict[str, Any]) -> list[str]:
    """A sentence for each value that Flower or this machine would refuse."""
    problems = []
    for key, value in values.items():
        if key not in RULES:
            known = ", ".join(RULES)
            problems.append(
                f"--federation-config: there is no key {shown(key)}{closest(key, RULES)}; known keys are {known}."
            )
        elif not fits(value, *RULES[key]):
            problems.append(f"--federation-config: '{key}' is {shown(value)}; it must be {RULES[key][1].allowed}.")
    here, wanted = os.cpu_count() or 1, values.get(CPUS, 2)
    if not problems and wanted > here and not os.environ.get("RAY_ADDRESS"):
        whose = "" if CPUS in values else " (Flower's default)"
        problems.append(
            f"--federation-config: each client requests {wanted:g} CPUs{whose}, but this machine has {here}; set"
            f" {CPUS}={here}."
        )
    return problems
