"""The card of a model: `README.md` in its folder, for somebody who has never seen this app.

It says what the run's folder shows, and of what it does not show, that it does not. Paths, the machine's name and, with
`privacy`, the seed stay out of it.
"""

import math
from collections.abc import Iterator, Sequence

from data.text import one_line
from runs.hub.data import Source, about_data, about_licence, source_of
from runs.hub.front_matter import front_matter
from runs.hub.loading import code as loading_code
from runs.hub.measured import MOST_CLASSES, SHORT, Measured, OfClass, measured, other_measures
from runs.hub.subject import Subject
from runs.markup import code, name, table
from runs.protocol import progress
from runs.run import Run

NOTHING = "-"
# Rows of the table of the training: what it is called, and the key.
SETTINGS = {
    "method against noisy labels": "method", "aggregation": "strategy", "images to clients": "partition",
    "training list": "train-split", "labels made wrong": "label-noise", "clients of a round": "fraction-train",
    "local epochs": "local-epochs", "batch size": "batch-size", "optimiser": "optimizer",
    "learning rate": "learning-rate", "its schedule": "lr-schedule", "momentum": "momentum",
    "weight decay": "weight-decay", "augmentation": "augmentation", "initial weights": "pretrained",
    "trained weights": "trainable", "BatchNorm": "batchnorm", "precision": "precision",
    "differential privacy": "privacy", "held out by clients": "holdout-fraction", "best round picked by": "val-split",
}  # fmt: skip


def card(subject: Subject) -> str:
    """The page, YAML and Markdown."""
    found = measured(subject)
    parts = [
        front_matter(subject, found),
        f"# {name(subject.name)}",
        _summary(subject),
        *_section("How to use it", _usage(subject)),
        *_section("How good it is", _measured(subject, found)),
        *_section("Images and labels", about_data(subject)),
        *_section("Training", _training(subject)),
        *_section("Privacy", _privacy(subject)),
        *_section("Intended use and limits", _limits(subject, found)),
        *_section("Licence", about_licence(subject)),
    ]
    return "\n\n".join(parts) + "\n"


def _section(title: str, paragraphs: Sequence[str]) -> Iterator[str]:
    if paragraphs:
        yield from (f"## {title}", *paragraphs)


def _summary(subject: Subject) -> str:
    count = sum(value.numel() for value in subject.opened.model.parameters())
    networks = subject.opened.facts.networks
    what = code(subject.architecture) if networks == 1 else f"{networks} networks {code(subject.architecture)}"
    return (
        f"{what} with {_number(count)} parameters, which {'tells' if networks == 1 else 'tell'}"
        f" {len(subject.class_names):,} classes of photos apart. Trained by federated learning from"
        " noisy labels with clothing1m-fl, an app for [Flower](https://flower.ai)"
        f"{f'; {_when(subject)}' if subject.round else ''}."
    )


def _when(subject: Subject) -> str:
    """Which of the run's models it is."""
    if not subject.run:
        return f"these are the weights after round {subject.round:,}"
    if subject.is_best:
        rounds = f"{subject.round:,} of {subject.run.done:,}"
        return f"these are the weights after round {rounds}, which the run picked as its best"
    if subject.run.status == "finished":
        return f"these are the weights after its last round, {subject.round:,}"
    return f"these are the weights after round {subject.round:,} of a run that was {progress(subject.run)}"


def _usage(subject: Subject) -> list[str]:
    facts = subject.opened.facts
    what = (
        f"It takes photos of any shape, resized to {facts.image_size} x {facts.image_size} pixels without cropping, in"
        " RGB from 0 to 1, minus the mean and divided by the deviation of `config.json`. These lines also turn photos"
        " upright, as cameras mark them."
    )
    if subject.is_timms:
        what += " For a folder on the hub, say `hf-hub:USER/NAME` in place of `local-dir:.`."
    if facts.networks > 1:
        what += " Its two networks answer together, with the mean of their probabilities."
    return [what, f"```python\n{loading_code(subject).rstrip()}\n```"]


def _measured(subject: Subject, found: Measured | None) -> list[str]:
    if found is None:
        return _not_tested(subject)
    images = f"{found.images:,} images" if found.images else "images"
    said = [
        f"On the {images} of the list `{found.split}`, which had no part in training or in the choice of a round:",
        table(("", ""), list(_totals(found)), numbers=1),
    ]
    if source_of(subject) is Source.DRAWN:
        said.append("These images are drawn: the numbers say nothing about photos.")
    if found.classes:
        shown = found.classes
        if len(shown) > MOST_CLASSES:
            shown = tuple(sorted(shown, key=lambda one: math.inf if one.recall is None else one.recall)[:SHORT])
            said.append(f"The {SHORT} classes of {len(found.classes):,} with the lowest recall:")
        head = ("class", "images", "recall", "precision")
        said.append(table(head, [_of_class(one) for one in shown], numbers=3))
        said.append(
            "Recall: the share of a class's images that the model finds. Precision: the share of the model's answers of"
            " that class that are right."
        )
    return said


def _not_tested(subject: Subject) -> list[str]:
    why = " The run's server had no test images (`test-split = none`)." if _has_no_test(subject) else ""
    said = [f"**Nothing is known of its accuracy on clean images: this model was not tested.**{why}"]
    if others := other_measures(subject):
        rows = [(about, _percent(value)) for about, value in others.items()]
        said += ["What was measured instead:", table(("accuracy on", ""), rows, numbers=1)]
    return said


def _has_no_test(subject: Subject) -> bool:
    return subject.config.get("test-split") == "none"


def _totals(found: Measured) -> Iterator[tuple[str, str]]:
    error = ""
    if found.images:
        error = f" (standard error {100 * math.sqrt(found.accuracy * (1 - found.accuracy) / found.images):.1f})"
    yield "accuracy", f"{_percent(found.accuracy)}{error}"
    if (most := max((one.images or 0 for one in found.classes), default=0)) and found.images:
        yield "accuracy of always answering with the most frequent class", _percent(most / found.images)
    if found.macro_f1 is not None:
        yield "macro F1", _percent(found.macro_f1)
    if found.loss is not None:
        yield "cross-entropy", f"{found.loss:.3f} nats"


def _of_class(one: OfClass) -> tuple[str, ...]:
    images = NOTHING if one.images is None else f"{one.images:,}"
    return name(one.name), images, _percent(one.recall), _percent(one.precision)


def _training(subject: Subject) -> list[str]:
    run = subject.run
    if run is None or not run.config:
        return [f"Method: {code(subject.opened.facts.method)}. Nothing else is known."] if run is None else []
    rows = [("rounds", f"{run.done:,}{'' if run.done == run.asked else f' of {run.asked:,}'}")]
    clients = subject.record.clients or run.config.get("num-clients")
    rows.append(("clients", f"{clients:,}" if clients else "unknown"))
    rows += [(what, code(subject.setting(key))) for what, key in SETTINGS.items() if subject.setting(key)]
    if not _is_private(subject):
        rows.append(("seed", code(subject.setting("seed"))))
    rows += _made_with(subject)
    return [table(("", ""), rows), *_ended_early(run), *_since(run)]


def _ended_early(run: Run) -> Iterator[str]:
    """By a rule of its config, in its words; an error's words may name files, and stay out."""
    if run.status == "finished" and run.reason:
        yield f"It ended before its last round: {name(one_line(run.reason))}"
    elif run.status == "stopped" and run.done < run.asked:
        yield "It stopped before its last round."


def _made_with(subject: Subject) -> Iterator[tuple[str, str]]:
    versions = sorted(subject.record.versions.items())
    if versions:
        yield "versions", ", ".join(code(f"{package} {version}") for package, version in versions)
    if subject.record.code:
        yield "fingerprint of the code", ", ".join(map(code, subject.record.code))


def _since(run: Run) -> list[str]:
    return [f"Begun {run.started:%Y-%m-%d}."] if run.started else []


def _is_private(subject: Subject) -> bool:
    return subject.config.get("privacy", "none") != "none"


def _privacy(subject: Subject) -> list[str]:
    if not subject.config:
        return []
    if not _is_private(subject):
        return [
            "Clients sent models, counts of their labels, and numbers such as losses, but no images. Nothing was done"
            " to limit what the weights tell about single images or clients (`privacy = none`)."
        ]
    return [
        f"Differential privacy at the level of clients was asked for: {code(subject.setting('privacy'))}, over"
        f" {subject.run.done if subject.run else 0:,} rounds. No ε has been computed. Whatever it is, it does not cover"
        " BatchNorm's running statistics, nor the metrics that the server recorded. The seed of the noise is left out"
        " here, as it must be kept secret."
    ]


def _limits(subject: Subject, found: Measured | None) -> list[str]:
    source = source_of(subject)
    use = "Meant for research on federated learning from noisy labels."
    if source is Source.DRAWN:
        use = "Meant for trying the app out, and of no use for photos."
    limits = [
        f"It answers every photo with one of its {len(subject.class_names):,} classes, whatever the photo shows; it"
        " cannot say that it does not know.",
        "Its probabilities have not been calibrated.",
        f"Photos are resized to {subject.opened.facts.image_size} pixels a side, and lose their proportions.",
    ]
    if subject.config.get("train-split") != "clean":
        limits.append("It was trained on labels some of which may be wrong, and may repeat systematic errors in them.")
    if found is None:
        limits.append("It has not been tested: test it on images of your own before you rely on it.")
    else:
        limits.append("It has been tested on one list of images alone, and not on photos from elsewhere.")
    return [use, "\n".join(f"- {one}" for one in limits)]


def _percent(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.1f} %"


def _number(count: int) -> str:
    return f"{count / 1e6:.1f} million" if count >= 1e6 else f"{count:,}"
