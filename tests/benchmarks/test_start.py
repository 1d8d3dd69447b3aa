"""The benchmark of a client's start runs; nothing here is timed."""

from benchmarks.client.start import COLUMNS, ROOT, measure


def test_a_process_fills_a_row() -> None:
    numbers = measure(ROOT)
    assert len(numbers) == len(COLUMNS) - 1
    assert all(number > 0 for number in numbers)
    _, _, rss, pss, _, _ = numbers
    assert pss <= rss
