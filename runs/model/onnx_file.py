"""A trained model as an ONNX file."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from runs.errors import RunsError
from runs.model.opened import OpenedModel
from runs.model.traced import INPUT, OUTPUTS, described, logits_of, quietly, refusing, trials, weights_gib

OPSET = 18  # the oldest that PyTorch's exporter writes as it is: ONNX Runtime 1.14 and later, of 2023, read it
BATCH = "batch"
LARGEST = 1.99  # GiB of weights: a file, being one message of protobuf, holds less than 2
TOLERANCE = 1e-3  # of the largest logit, or of 1 if all are smaller


def check_installed() -> None:
    """Check that PyTorch's exporter has what it needs.

    Raises:
        RunsError: Something is missing.
    """
    if missing := [name for name in ("onnx", "onnxscript") if find_spec(name) is None]:
        verb = "is" if len(missing) == 1 else "are"
        raise RunsError(
            f"--onnx needs {' and '.join(missing)}, which {verb} not installed here: `pip install {' '.join(missing)}`."
        )


def onnx_file(opened: OpenedModel, program: Any) -> bytes:
    """The bytes of a model of one input and two outputs, for any number of images at once.

    Args:
        opened: The model.
        program: What `traced` made of it.

    Raises:
        RunsError: PyTorch cannot export it, or its weights are too large for one file.
    """
    import onnx

    if (size := weights_gib(opened.model)) > LARGEST:
        raise RunsError(
            f"the weights of {opened.facts.architecture} take {size:.1f} GiB, but an ONNX file holds less than 2;"
            " use --torch-export or --hub."
        )
    with quietly(), refusing(opened.facts, "export"):
        exported: Any = torch.onnx.export(
            program, input_names=[INPUT], output_names=list(OUTPUTS), opset_version=OPSET, dynamo=True, verbose=False
        )
        proto = exported.model_proto
        _tidy(proto)
        onnx.helper.set_model_props(proto, described(opened.facts))
        onnx.checker.check_model(proto, full_check=True)
        file: bytes = proto.SerializeToString(deterministic=True)
    return file


def difference(opened: OpenedModel, file: bytes) -> float | None:
    """The largest difference between the logits of ONNX Runtime and PyTorch; None without ONNX Runtime.

    Raises:
        RunsError: It is too large for rounding.
    """
    if find_spec("onnxruntime") is None:
        return None
    images = trials(opened.facts.image_size)
    expected = logits_of(opened, images)
    found = np.abs(_answers(file, images)[0] - expected).max()
    if not found <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise RunsError(
            f"the exported {opened.facts.architecture} is not the model: ONNX Runtime's logits differ from PyTorch's by"
            f" {found:.2g}; nothing was written."
        )
    return float(found)


def _answers(file: bytes, images: np.ndarray) -> Sequence[np.ndarray]:
    """Logits and probabilities by ONNX Runtime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    answers: Sequence[np.ndarray] = session.run(list(OUTPUTS), {INPUT: images})
    return answers


def _tidy(proto: Any) -> None:
    """Name the dynamic dimension, and leave out what PyTorch notes of its own work, such as paths of this machine."""
    graph = proto.graph
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    del graph.value_info[:]
    functions = [node for function in proto.functions for node in function.node]
    for part in (proto, graph, *proto.functions, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
    for node in (*graph.node, *functions):
        del node.metadata_props[:]
        node.doc_string = ""
