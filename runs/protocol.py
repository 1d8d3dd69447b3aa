"""What makes runs comparable: their data, who holds it, the code, and how many images they saw.

Each difference is a sentence. What a folder does not say is a difference as well: folders of earlier versions have no
`run.json`, and nothing is taken to be equal only because nobody wrote it down.
"""

import re
from collections.abc import Iterator

from config.choices import VAL_LISTS
from config.measure import validation_of
from data.arguments import parse_pairs
from data.text import one_line, shown
from runs.run import Run, comparable_config
from runs.scores import images_seen

BUDGET = 0.01  # by how much of the larger one two numbers of images may differ
HOURS = "max-hours"
RULES = ("num-server-rounds", "patience", "target-accuracy")  # may end a run, at the same point on any machine
# Settings that runs of one line may differ in: seeds are what is averaged over; digests say whether the data is the
# same wherever it lies, and how many clients there were is known.
MAY_DIFFER = frozenset({"seed", "data-dir", "num-clients"})
# Keys that say which images and labels there are and who holds them: they tell settings apart, not lines.
OF_A_SETTING = frozenset(
    {"data-dir", "train-split", "label-noise", "label-noise-args", "partition", "partition-args", "bad-images"}
    | {"holdout-fraction", "num-clients", "normalization-args"}  # the last one's numbers follow from the images
)
UNKNOWN = ""


def setting(run: Run) -> str:
    """What its results depend on besides method and training, in words for a title: ``iid, 10 clients``."""
    if not run.config:
        return "settings unknown"
    config = run.config
    noisy = config["label-noise"] != "none"
    words = [_with_args(run, "label-noise", " noise") if noisy else "labels as released"]
    if config["train-split"] != "noisy":
        words.append(f"train list {config['train-split']}")
    words.append(_with_args(run, "partition"))
    if config["bad-images"] != "refuse":
        words.append("damaged images left out")
    if config["holdout-fraction"]:
        words.append(f"{100 * float(config['holdout-fraction']):g} % held out")
    words.append(f"{clients(run)} clients" if clients(run) else "unknown number of clients")
    return ", ".join(words)


def facts(run: Run) -> tuple[str, ...]:
    """What runs of one part of a table have in common; `setting` is the part of it that people read."""
    return setting(run), _digest(run, "train"), _digest(run, run.measure.list)


def clients(run: Run) -> int:
    """How many there are; 0 if unknown."""
    if run.record and run.record.clients:
        return run.record.clients
    said = run.rounds[-1].get("clients") if run.rounds else None
    return said if isinstance(said, int) else int(run.config.get("num-clients", 0))


def differences(a: Run, b: Run) -> list[str]:
    """Why two runs cannot be compared, a sentence each; none if they can.

    They may differ in everything that a table is there to compare: method, strategy, model, learning rate.
    """
    unknown = _unknown_settings(a, b)
    return [
        *_not_complete(a, b),
        *(unknown or [*_setting(a, b), *_held(a, b), *_selection(a, b)]),
        *_measured(a, b),
        *_data(a, b),
        *_code(a, b),
        *(() if unknown else _budget(a, b)),
    ]


def why_not_averaged(a: Run, b: Run) -> list[str]:
    """Why two runs are not the same experiment with two seeds, a sentence each; none if they are."""
    unknown = _unknown_settings(a, b)
    same = unknown or [*_keys(a, b), *_clients(a, b)]
    return [*same, *(() if same else _selection(a, b)), *_measured(a, b), *_data(a, b), *_code(a, b)]


def why_no_result(run: Run) -> str:
    """Why a run that has finished counts for nothing, in a sentence; empty if it counts."""
    last = run.done if ended_early(run) else run.asked
    lost = last - len(run.rounds)
    if run.measure and not run.accuracies:
        return f"{name_of(run)} is left out: its metrics.jsonl holds no round that was evaluated."
    if not run.config or lost <= 0:
        return ""
    return f"{name_of(run)} is left out: its metrics.jsonl lacks {lost:,} of {last:,} rounds."


def progress(run: Run) -> str:
    """How far it came: ``interrupted after round 3 of 10``."""
    asked = f" of {run.asked}" if run.asked else ""
    return f"{run.status} after round {run.done}{asked}" if run.done else f"{run.status} before its first round ended"


def ended_early(run: Run) -> bool:
    """Whether a stopping rule ended it."""
    return run.status == "finished" and bool(run.reason)


def name_of(run: Run) -> str:
    """Of its folder, for a sentence."""
    return one_line(run.name)


def _names(a: Run, b: Run) -> tuple[str, str]:
    if a.name != b.name:
        return name_of(a), name_of(b)
    return one_line(f"{a.folder.parent.name}/{a.name}"), one_line(f"{b.folder.parent.name}/{b.name}")


def _compared(what: str, a: Run, b: Run, first: str, second: str) -> Iterator[str]:
    """The sentence about a fact of two runs, unless it is known of both and the same."""
    of_a, of_b = _names(a, b)
    if first == UNKNOWN or second == UNKNOWN:
        lacking = [name for name, fact in ((of_a, first), (of_b, second)) if fact == UNKNOWN]
        yield f"{what} is unknown for {' and for '.join(lacking)}."
    elif first != second:
        yield f"{what} differs: {_short(first)} in {of_a}, {_short(second)} in {of_b}."


def _short(fact: str) -> str:
    """On one line; of a digest its beginning."""
    return fact[:12] if re.fullmatch("[0-9a-f]{16,}", fact) else one_line(fact)


def _not_complete(a: Run, b: Run) -> Iterator[str]:
    for run, name in zip((a, b), _names(a, b), strict=True):
        if run.status != "finished":
            yield f"{name} is not complete: {progress(run)}."


def _unknown_settings(a: Run, b: Run) -> list[str]:
    """A folder whose config.toml is missing or damaged."""
    return list(_compared("The config", a, b, *("known" if run.config else UNKNOWN for run in (a, b))))


def _setting(a: Run, b: Run) -> Iterator[str]:
    both_files = a.config["partition"] == b.config["partition"] == "file"  # what is in them is said by `held`
    texts = {"label noise": "label-noise", "partition": "partition"}
    for what, key in texts.items():
        if key == "label-noise" or not both_files:
            yield from _compared(f"The {what}", a, b, _with_args(a, key), _with_args(b, key))
    plain = {
        "train list": "train-split",
        "treatment of damaged images": "bad-images",
        "share that clients hold out": "holdout-fraction",
    }
    for what, key in plain.items():
        yield from _compared(f"The {what}", a, b, str(a.config[key]), str(b.config[key]))
    yield from _clients(a, b)


def _clients(a: Run, b: Run) -> Iterator[str]:
    yield from _compared("The number of clients", a, b, *(str(clients(run) or UNKNOWN) for run in (a, b)))


def _held(a: Run, b: Run) -> Iterator[str]:
    """Who holds which images with which labels depends on the seed, and differs where partition or noise do."""
    if a.config["seed"] == b.config["seed"] and not any(_setting(a, b)):
        yield from _compared("The split of images between clients", a, b, _holds(a), _holds(b))


def _selection(a: Run, b: Run) -> Iterator[str]:
    """Among how many rounds, and by what, the best one is picked; and how many clients say what is measured on them."""
    steps = (run.config["evaluate-every"] for run in (a, b))
    often = ("every round" if step == 1 else f"every {step} rounds" for step in steps)
    yield from _compared("The schedule of evaluation", a, b, *often)
    names = [str(run.config["val-split"]) for run in (a, b)]
    if "none" not in names and not a.measure == b.measure == validation_of(a.config):  # or `_measured` says it
        lists = (f"{name} ({_short(_digest(run, name))})" for run, name in zip((a, b), names, strict=True))
        known = all(_digest(run, name) for run, name in zip((a, b), names, strict=True))
        if not {*names} <= {*VAL_LISTS}:
            yield from _compared("What picks the best round", a, b, *names)
        elif names[0] != names[1] or known:  # what is unknown of one list is unknown of all, and said there
            yield from _compared("The list that picks the best round", a, b, *lists)
    on = (a.measure, b.measure), (validation_of(a.config), validation_of(b.config))
    for key in sorted({key for first, second in on if first.name == second.name for key in first.decides}):
        yield from _compared(f"'{key}'", a, b, f"{a.config[key]:g}", f"{b.config[key]:g}")


def _measured(a: Run, b: Run) -> Iterator[str]:
    """On which images their accuracies are; of clients' images `_setting` and `_held` say more."""
    measure = a.measure
    if measure.name != b.measure.name:
        yield from _compared("What accuracies are measured on", a, b, measure.name, b.measure.name)
    elif measure.list:
        what = f"The {measure.list.replace('_', ' ')} list"
        yield from _compared(what, a, b, _digest(a, measure.list), _digest(b, measure.list))


def _data(a: Run, b: Run) -> Iterator[str]:
    """Clients on real machines have lists of their own, which the server knows by what they say they hold."""
    train = _digest(a, "train"), _digest(b, "train")
    if all(train) or not _holds(a) or _holds(a) != _holds(b):
        yield from _compared("The list of training images", a, b, *train)


def _code(a: Run, b: Run) -> Iterator[str]:
    yield from _compared("The code", a, b, a.code, b.code)


def _budget(a: Run, b: Run) -> Iterator[str]:
    """Runs that the same rule ended had the same budget, if their rounds are alike."""
    seen = images_seen(a), images_seen(b)
    if seen[0] is None or seen[1] is None:
        known = (UNKNOWN if one is None else "known" for one in seen)
        yield from _compared("The number of images seen in training", a, b, *known)
        return
    what, first, second = "number of images seen in training", seen[0], seen[1]
    if _same_rule(a, b):
        what, first, second = "number of images seen in a round", first / a.done, second / b.done
    if abs(first - second) > BUDGET * max(first, second):
        yield from _compared(f"The {what}", a, b, f"{first:,.0f}", f"{second:,.0f}")


def _same_rule(a: Run, b: Run) -> bool:
    """Whether rules that say the same ended at least one of them; hours mean other work on another machine."""
    early = [run for run in (a, b) if ended_early(run)]
    equal = all(a.config.get(key) == b.config.get(key) for key in RULES)
    return bool(early) and equal and not any(HOURS in run.reason for run in early)


def _keys(a: Run, b: Run) -> Iterator[str]:
    first, second = comparable_config(a), comparable_config(b)
    for key in sorted({*first, *second} - MAY_DIFFER):
        if key not in first or key not in second or first[key] != second[key]:
            values = (shown(config[key]) if key in config else "not set" for config in (first, second))
            yield from _compared(f"'{key}'", a, b, *values)


def _with_args(run: Run, key: str, word: str = "") -> str:
    """A name and its parameters, in one order however they were written: ``dirichlet (alpha=0.3)``."""
    name, args = str(run.config.get(key, UNKNOWN)), str(run.config.get(f"{key}-args", ""))
    try:
        pairs = parse_pairs(args)
        text = ", ".join(f"{part.replace('_', '-')}={pairs[part]}" for part in sorted(pairs))
    except ValueError:
        text = args
    return f"{name}{word} ({text})" if text else f"{name}{word}"


def _digest(run: Run, name: str) -> str:
    return run.record.data.get(name, UNKNOWN) if run.record else UNKNOWN


def _holds(run: Run) -> str:
    return run.record.held if run.record else UNKNOWN
