"""What a method must keep to. One that does not, as a class of the user's own may, is told so in one sentence: before
the run where its class says it, otherwise by the first client whose visit shows it.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from config.choices import PRESETS
from data.text import shown
from learning.augmentation import AUGMENTATIONS
from learning.method import Method, Step, Told, Visit
from learning.schema import problem_of

HEAD = re.compile(r"[a-z][a-z0-9_-]*")


class MethodError(ValueError):
    """A method does what the training loop cannot use; one sentence for its author."""


def problem_of_class(method: Method, augmentation: str) -> str | None:
    """What a method says of itself that cannot be: a sentence that begins with "its"; None if all can.

    Args:
        method: Its class attributes count, and its views.
        augmentation: The run's.
    """
    if method.relabels and not (method.remembers and method.corrects):
        return "its relabels is True, so remembers and corrects must be as well"
    if method.keeps_network and not method.remembers:
        return "its keeps_network is True, so remembers must be as well"
    for name in ("networks", "passes"):
        if type(value := getattr(method, name)) is not int or value < 1:
            return f"its {name} is {shown(value)}, and must be a whole number of at least 1"
    if type(method.passes_alone) is not int or method.passes_alone < 0:
        return f"its passes_alone is {shown(method.passes_alone)}, and must be a whole number of at least 0"
    if not _are_heads(method.heads):
        wanted = "a tuple of pairs of a plain name and a number, such as (('types', 3),)"
        return f"its heads is {shown(method.heads)}, and must be {wanted}"
    if strange := next((name for name in method.learning_rates if name not in PRESETS), None):
        return f"its learning_rates names {shown(strange)}, which must be {' or '.join(PRESETS)}"
    views = method.views(augmentation)
    if type(views) is not list or not views or not all(type(one) is str and one in AUGMENTATIONS for one in views):
        return f"its views returns {shown(views)}, and must return a list of some of {', '.join(AUGMENTATIONS)}"
    return None


def _are_heads(heads: Any) -> bool:
    """Whether they are names with numbers of outputs, which PyTorch takes for names of layers."""
    if type(heads) is not tuple or not all(type(head) is tuple and len(head) == 2 for head in heads):
        return False
    right = all(
        type(name) is str
        and HEAD.fullmatch(name)
        and not hasattr(nn.ModuleDict, name)
        and type(outputs) is int
        and outputs > 0
        for name, outputs in heads
    )
    return right and len(dict(heads)) == len(heads)


def check_steps(steps: Sequence[Step], visit: Visit, method: Method) -> None:
    """Check the steps of an epoch.

    Raises:
        MethodError: They cannot be trained on, or are more than the server will believe.
    """
    name, held = type(method).__name__, len(visit.labels)
    if not steps:
        raise MethodError(f"{name} chose no image for local epoch {visit.epoch}; one must be left")
    if not all(isinstance(step, Step) and step.groups and all(map(_are_rows, step.groups)) for step in steps):
        raise MethodError(f"steps of {name} must return a list of Step((rows, ...)), rows (images,) int64 on the CPU")
    if not all(any(map(len, step.groups)) for step in steps):
        raise MethodError(f"{name} chose no image for a step of local epoch {visit.epoch}; one must be left")
    if wrong := next((step for step in steps if step.network not in (None, *range(method.networks))), None):
        raise MethodError(f"a step of {name} is for network {shown(wrong.network)}, and there are {method.networks}")
    rows = torch.cat([group for step in steps for group in step.groups]).numpy()
    low, high = int(rows.min()), int(rows.max())
    if low < 0 or high >= held:
        raise MethodError(f"steps of {name} use rows from {low} to {high}; they must be from 0 to {held - 1}")
    if len(rows) > held * method.passes:
        raise MethodError(
            f"the steps of {name} use {len(rows)} images of {held}; its passes is {method.passes}, and must be at least"
            f" {-(-len(rows) // held)}"
        )


def _are_rows(rows: Any) -> bool:
    return isinstance(rows, Tensor) and rows.ndim == 1 and rows.dtype is torch.int64 and rows.device.type == "cpu"


def check_mixed(inputs: Any, method: Method, dimensions: int = 4) -> None:
    """Check what `Method.mix` returned, without waiting for the device.

    Args:
        inputs: It should be a list of tensors.
        method: Which one's.
        dimensions: Of the inputs that it was given: 2 if they are features.

    Raises:
        MethodError: A network cannot be trained on it.
    """
    if type(inputs) not in (list, tuple) or not inputs or not all(_are_inputs(view, dimensions) for view in inputs):
        name = type(method).__name__
        raise MethodError(f"mix of {name} must return a list of views, each (images, 3, height, width); one at least")


def _are_inputs(view: Any, dimensions: int) -> bool:
    return isinstance(view, Tensor) and view.ndim == dimensions and len(view) > 0


def check_loss(loss: Any, method: Method) -> None:
    """Check what `Method.loss` returned, without waiting for the device.

    Raises:
        MethodError: It has no gradients, or is not one number.
    """
    if not isinstance(loss, Tensor) or loss.ndim or not loss.requires_grad:
        name = type(method).__name__
        raise MethodError(f"loss of {name} must return a scalar that depends on the answers in batch.views")


def check_left(visit: Visit, method: Method, told: Mapping[str, Told], width: int) -> None:
    """Check what the hooks of a method left in a visit; waits for the device.

    Args:
        visit: After `Method.end`.
        method: Which hooks these were.
        told: What the server half told the client.
        width: d, the number of features.

    Raises:
        MethodError: The client cannot keep it, or the server would refuse it.
    """
    if problem := _problem_of_judgement(visit, method) or _problem_of_messages(visit, method, told, width):
        raise MethodError(f"after a visit of {type(method).__name__}, {problem}")


def _problem_of_judgement(visit: Visit, method: Method) -> str | None:
    """What is wrong with labels, suspects, counts and state."""
    held = len(visit.given)
    if method.relabels and not _are_labels(visit.labels, held, visit.num_classes):
        return f"visit.labels must be ({held},) int64 from 0 to {visit.num_classes - 1}"
    if visit.corrected is not None:
        if not method.corrects:
            return "visit.corrected is set, so corrects must be True"
        if not _are_labels(visit.corrected, held, visit.num_classes):
            return f"visit.corrected must be ({held},) int64 from 0 to {visit.num_classes - 1}"
    if visit.suspected is not None:
        if not method.suspects:
            return "visit.suspected is set, so suspects must be True"
        if not _is_array(visit.suspected, torch.bool, (held,)):
            return f"visit.suspected must be ({held},) bool"
    if visit.suspicion is not None:
        if not method.suspects:
            return "visit.suspicion is set, so suspects must be True"
        if not _are_finite(visit.suspicion, held):
            return f"visit.suspicion must be ({held},) float32 and finite"
    if visit.used is not None and not (isinstance(visit.used, (int, np.integer)) and 0 <= visit.used <= held):
        return f"visit.used is {shown(visit.used)}; it must be a whole number from 0 to {held}"
    strange = next((name for name, value in visit.state.items() if not isinstance(value, Tensor)), None)
    return None if strange is None else f"visit.state[{strange!r}] must be a tensor"


def _problem_of_messages(visit: Visit, method: Method, told: Mapping[str, Told], width: int) -> str | None:
    """What is wrong with what travels beside the weights; ranges of arrays are left to the server."""
    if problem := problem_of(visit.metrics, method.reports(told, visit.num_classes)):
        return f"visit.metrics is not what reports announces: {problem}"
    announced = method.sends(told, visit.num_classes, width)
    if visit.sends.keys() != announced.keys():
        left, right = (", ".join(sorted(map(str, one))) or "nothing" for one in (visit.sends, announced))
        return f"visit.sends has {left}, but sends announces {right}"
    for name, rule in announced.items():
        value = visit.sends[name]
        if not isinstance(value, Tensor) or tuple(value.shape) != tuple(rule.shape):
            return f"visit.sends[{name!r}] must be a tensor of shape {rule.shape}, as sends announces"
    return None


def _are_labels(labels: Any, held: int, classes: int) -> bool:
    if not _is_array(labels, torch.int64, (held,)):
        return False
    found = labels.cpu().numpy()
    return int(found.min()) >= 0 and int(found.max()) < classes


def _are_finite(values: Any, held: int) -> bool:
    return _is_array(values, torch.float32, (held,)) and bool(np.isfinite(values.cpu().numpy()).all())


def _is_array(value: Any, dtype: torch.dtype, shape: tuple[int, ...]) -> bool:
    return isinstance(value, Tensor) and value.dtype is dtype and tuple(value.shape) == shape
