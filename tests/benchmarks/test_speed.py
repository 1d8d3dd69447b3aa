"""The pure parts of the benchmarks of speed, and that the bare loop does its steps."""

import pytest

from benchmarks import simulation
from benchmarks.client.profile import by_kind
from benchmarks.tools.bare_loop import Load, bare_rounds


def test_operations_are_counted_once_by_kind() -> None:
    times = {
        "aten::convolution_backward": 4.0,
        "autograd::engine::evaluate_function: ConvolutionBackward0": 0.5,
        "aten::mkldnn_convolution": 3.0,
        "aten::native_batch_norm": 1.0,
        "aten::native_batch_norm_backward": 2.0,
        "aten::unheard_of": 0.25,
    }
    assert by_kind(times) == [
        ("convolution, backward", 4.5), ("convolution, forward", 3.0), ("BatchNorm, backward", 2.0),
        ("BatchNorm, forward", 1.0), ("all else", 0.25),
    ]  # fmt: skip


def test_rows_compare_with_the_faster_bare_loop_and_leave_first_rounds_out() -> None:
    runs = [
        simulation.Run(4.0, 5.0, 0.5, [20.0, 10.0, 12.0], [1.0, 1.0, 2.0]),
        simulation.Run(6.0, 7.0, 0.5, [22.0, 11.0, 11.0], [1.0, 1.0, 1.0]),
    ]
    row = simulation.row(64, runs, alone=[11.0, 12.0, 10.5], several=[10.0, 9.0, 10.5])
    assert row[:5] == [64, 11.0, 1.0, 11.0, 10.0]
    assert row[5:7] == pytest.approx([1.1, 1.0])
    assert row[7:] == ["10.0 to 12.0", "9.0 to 10.5"]
    assert simulation.start_row(64, runs) == [64, 5.0, 6.0, 0.5, 10.0, 21.5]


def test_bare_rounds_take_time() -> None:
    load = Load("resnet18", 5, images=4, image_size=32, batch_size=2, bf16=False)
    seconds = bare_rounds(load, clients=2, processes=2, rounds=2)
    assert len(seconds) == 2
    assert all(0 < one < 60 for one in seconds)


def test_a_bare_loop_that_fails_says_so() -> None:
    with pytest.raises(RuntimeError, match="a bare loop ended with exit code 1"):
        bare_rounds(Load("resnet0", 5, 4, 32, 2, bf16=False), clients=1, processes=1, rounds=1)
