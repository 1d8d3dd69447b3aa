"""Rounds of FedCorr's server half with clients that are made up: ten, of which three are noisy."""

import random
from collections.abc import Mapping, Sequence

from flwr.app import ArrayRecord

from config.run_config import RunConfig
from learning.server_half import Choice
from methods import build_method
from methods.fedcorr_on_server import FedCorrOnServer

CLIENTS = range(10)
NOISY = (2, 5, 7)
LIDS = {k: 8.0 + 0.1 * k if k in NOISY else 3.0 + 0.02 * k for k in CLIENTS}


def new_half(args: str = "", rounds: int = 8, seed: int = 1) -> FedCorrOnServer:
    """By default, of stages of 4, 2 and 2 rounds."""
    config = RunConfig(method="fedcorr", method_args=args, num_server_rounds=rounds, seed=seed)
    half = build_method(config).on_server()
    assert isinstance(half, FedCorrOnServer)
    half.prepare(config, None)
    return half


def reply_of(
    partition: int, changed: Mapping[str, float] | None = None, lids: Mapping[int, float] = LIDS
) -> dict[str, float]:
    wrong = 60 if partition in NOISY else 0
    fixed = {"images-known": 100, "labels-right": 100 - wrong, "num-examples": 100, "noisy-share": 0.01 * wrong}
    lid = lids[partition]
    return {**fixed, "lid": lid, "lid-error": 0.05 * lid, **(changed or {})}


def one_round(
    half: FedCorrOnServer,
    server_round: int,
    silent: Sequence[int] = (),
    lids: Mapping[int, float] = LIDS,
    usual: int = 5,
) -> list[int]:
    """One round of ten clients, of which usually half are sampled; those who were."""
    half.before_round(server_round, ArrayRecord(), lambda action, arrays: {})
    choice = half.choose(server_round, CLIENTS, usual) or Choice(CLIENTS, usual)
    sampled = random.Random(server_round).sample(sorted(choice.clients), min(choice.count, len(choice.clients)))
    half.heard(server_round, {k: reply_of(k, lids=lids) for k in sampled if k not in silent})
    return sampled


def tags_of(half: FedCorrOnServer) -> list[int]:
    return [k for k in CLIENTS if half.tell(k)["noisy"]]
