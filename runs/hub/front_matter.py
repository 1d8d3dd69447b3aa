"""The YAML at the top of a card, which the hub reads."""

import json
from collections.abc import Iterator

from runs.hub.data import Source, source_of
from runs.hub.measured import Measured
from runs.hub.subject import Subject
from runs.markup import quoted

TASK = "image-classification"
TAGS = (TASK, "federated-learning", "flower", "noisy-labels")
DATASETS = {Source.CLOTHING1M: "clothing1m", Source.DRAWN: "clothing1m-fl-sample"}
DATA_NAMES = {
    Source.CLOTHING1M: "Clothing1M", Source.DRAWN: "the drawn sample of clothing1m-fl",
    Source.ITS_CLASSES: "images of Clothing1M's classes",
}  # fmt: skip


def front_matter(subject: Subject, found: Measured | None) -> str:
    """Between its two rules; numbers under ``model-index`` are shares from 0 to 1."""
    return "\n".join(["---", *_lines(subject, found), "---"])


def _lines(subject: Subject, found: Measured | None) -> Iterator[str]:
    source = source_of(subject)
    yield 'license: "unknown"'
    yield f"library_name: {quoted('timm' if subject.is_timms else 'pytorch')}"
    yield f"pipeline_tag: {quoted(TASK)}"
    yield from ("tags:", *(f"- {quoted(tag)}" for tag in TAGS))
    if source in DATASETS:
        yield from ("datasets:", f"- {quoted(DATASETS[source])}")
    if found is None:
        return
    yield from ("metrics:", '- "accuracy"')
    yield from ("model-index:", f"- name: {quoted(subject.name)}", "  results:")
    yield from ("  - task:", f"      type: {quoted(TASK)}", "    dataset:")
    yield f"      name: {quoted(DATA_NAMES.get(source, 'data of its own'))}"
    yield f"      type: {quoted(DATASETS.get(source, 'unknown'))}"
    yield f"      split: {quoted(found.split)}"
    yield "    metrics:"
    yield from _metric("accuracy", "accuracy", found.accuracy)
    if found.macro_f1 is not None:
        yield from _metric("f1", "macro F1", found.macro_f1)


def _metric(kind: str, name: str, value: float) -> Iterator[str]:
    yield from (
        f"    - type: {quoted(kind)}",
        f"      name: {quoted(name)}",
        f"      value: {json.dumps(round(value, 6))}",
    )
