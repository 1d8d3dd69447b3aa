"""Single clients of a run: how each fared from visit to visit, the worst ones first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from config.run_config import ConfigError
from messages import keys
from runs.report.figures import PERCENT, is_number
from runs.run import Run
from server_app.callbacks.noisy_clients_file import read_noisy_clients
from server_app.round_lines import CLIENTS, read_lines

MOST = 50  # clients in a table
MOST_POINTS = 40  # of a client's line
WIDTH, HEIGHT, EDGE = 96, 32, 3  # of a small picture, in pixels


@dataclass(frozen=True)
class Kind:
    """A number of clients.jsonl.

    Attributes:
        key: Its name there.
        title: For people.
        unit: Likewise.
        factor: What it is multiplied by.
        digits: Behind the point.
        high_is_bad: Whether a client with a high value is an unhappy one.
        about: A sentence; empty where the title says it all.
    """

    key: str
    title: str
    unit: str
    factor: float
    digits: int
    high_is_bad: bool = False
    about: str = ""


AGREEMENT = (
    "Agreement is the share of a client's training images that the received model predicts as they are labelled."
)
OWN = "Own accuracy is that on images which a client holds out, before and after its training, by its own labels."
KINDS = (
    Kind(keys.TRAIN_LOSS, "training loss", "nats", 1.0, 3, high_is_bad=True),
    Kind(keys.AGREEMENT_BEFORE, "agreement", "%", PERCENT, 1, about=AGREEMENT),
    Kind(keys.OWN_ACCURACY_BEFORE, "own accuracy before", "%", PERCENT, 1, about=OWN),
    Kind(keys.OWN_ACCURACY_AFTER, "own accuracy after", "%", PERCENT, 1, about=OWN),
)
JUDGED = {True: "noisy", False: "clean"}


@dataclass(frozen=True)
class Cell:
    """A number of one client, over its visits.

    Attributes:
        last: At its last visit; None if it never reported it.
        text: The same for people.
        line: Points of a small picture, as SVG writes them; empty if there are none.
        end: The last of these points.
    """

    last: float | None
    text: str
    line: str
    end: tuple[float, float]


@dataclass(frozen=True)
class Client:
    """A row.

    Attributes:
        number: Its partition.
        node: Its node's name, where that is known.
        images: At its last visit.
        visits: How many of its replies counted.
        cells: One for each kind of the table.
        gap: How far it was from the median client of the same rounds, as a mean over its visits; None if unknown.
        facts: What the method takes it for, what it is, and its share of wrong labels in percent; empty if unknown.
    """

    number: int
    node: str
    images: int
    visits: int
    cells: tuple[Cell, ...]
    gap: float | None
    facts: tuple[str, str, str]


@dataclass(frozen=True)
class Clients:
    """A run's clients that have been visited.

    Attributes:
        kinds: The numbers that any of them reported.
        rows: At most `MOST`, the worst first: those who were farthest from the median client of their rounds.
        of: How many there are.
        ranked: The number whose median that is.
        judged: Whether the method tells noisy clients from clean ones.
        known: Whether it is known who is noisy.
    """

    kinds: tuple[Kind, ...]
    rows: tuple[Client, ...]
    of: int
    ranked: Kind
    judged: bool
    known: bool


Visits = dict[int, list[dict[str, Any]]]


def clients_of(run: Run) -> Clients | None:
    """The clients of a run; None if its folder has no usable clients.jsonl."""
    visits = _visits(run)
    kinds = tuple(kind for kind in KINDS if any(is_number(one.get(kind.key)) for of in visits.values() for one in of))
    if not kinds:
        return None
    found = read_noisy_clients(run.folder / "noisy-clients.json")
    about = {one["client"]: one for one in (found or {"clients": []})["clients"]}
    ranked = kinds[-1] if len(kinds) > 1 else kinds[0]
    gaps = _gaps(ranked, visits)
    order = sorted(visits, key=lambda client: (client not in gaps, -gaps.get(client, 0.0) * _sign(ranked), client))
    scales = [_scale(kind, visits) for kind in kinds]
    rounds = (min(of[0]["round"] for of in visits.values()), max(of[-1]["round"] for of in visits.values()))
    rows = tuple(
        Client(
            client,
            node if isinstance(node := about.get(client, {}).get("node"), str) else "",
            images if type(images := visits[client][-1].get("images")) is int else 0,
            len(visits[client]),
            tuple(_cell(kind, visits[client], scale, rounds) for kind, scale in zip(kinds, scales, strict=True)),
            ranked.factor * gaps[client] if client in gaps else None,
            _facts(about.get(client, {})),
        )
        for client in order[:MOST]
    )
    known = any(type(one.get("really-noisy")) is bool for one in about.values())
    return Clients(kinds, rows, len(visits), ranked, bool(about), known)


def _visits(run: Run) -> Visits:
    """By client, its lines in the order of rounds."""
    try:
        lines = read_lines(run.folder / "clients.jsonl", 10**9, CLIENTS).entries
    except ConfigError:
        return {}
    visits: Visits = {}
    for line in lines:
        visits.setdefault(line["client"], []).append(line)
    return visits


def _gaps(kind: Kind, visits: Visits) -> dict[int, float]:
    """By client, how far it was above the median client of the same rounds, as a mean over its visits.

    A model gets better from round to round, so that the last visits of clients in different rounds do not compare.
    """
    rounds: dict[int, list[float]] = {}
    seen = [
        (client, int(one["round"]), value)
        for client, of in visits.items()
        for one in of
        if (value := _number(one, kind)) is not None
    ]
    for _, number, value in seen:
        rounds.setdefault(number, []).append(value)
    medians = {number: float(np.median(values)) for number, values in rounds.items()}
    gaps: dict[int, list[float]] = {}
    for client, number, value in seen:
        gaps.setdefault(client, []).append(value - medians[number])
    return {client: sum(of) / len(of) for client, of in gaps.items()}


def _number(line: Mapping[str, Any], kind: Kind) -> float | None:
    value: Any = line.get(kind.key)
    return float(value) if is_number(value) else None


def _sign(kind: Kind) -> int:
    return 1 if kind.high_is_bad else -1


def _scale(kind: Kind, visits: Visits) -> tuple[float, float]:
    """The least and the most over all clients, whose pictures can so be compared."""
    values = [value for of in visits.values() for one in of if (value := _number(one, kind)) is not None]
    return min(values), max(values)


def _cell(
    kind: Kind, of_client: Sequence[Mapping[str, Any]], scale: tuple[float, float], rounds: tuple[int, int]
) -> Cell:
    seen = [(int(one["round"]), value) for one in of_client if (value := _number(one, kind)) is not None]
    if not seen:
        return Cell(None, "", "", (0.0, 0.0))
    step = -(-len(seen) // MOST_POINTS)
    kept = [*reversed(seen[::-1][::step])]  # with the last one
    points = [
        (_along(number, rounds, EDGE, WIDTH - EDGE), _along(value, scale, HEIGHT - EDGE, EDGE))
        for number, value in kept
    ]
    last = seen[-1][1]
    return Cell(last, f"{kind.factor * last:.{kind.digits}f}", " ".join(f"{x},{y}" for x, y in points), points[-1])


def _along(value: float, of: tuple[float, float], start: int, end: int) -> float:
    """Where a value lies between two ends of a picture; in the middle if there is only one value."""
    share = (value - of[0]) / (of[1] - of[0]) if of[1] > of[0] else 0.5
    return round(start + share * (end - start), 1)


def _facts(about: Mapping[str, Any]) -> tuple[str, str, str]:
    judged: Any = about.get("noisy")
    really: Any = about.get("really-noisy")
    wrong: Any = about.get("wrong-labels")
    return (
        JUDGED[judged] if type(judged) is bool else "",
        JUDGED[really] if type(really) is bool else "",
        f"{PERCENT * wrong:.1f}" if is_number(wrong) else "",
    )
