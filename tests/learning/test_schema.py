"""What a value of a message may be, and what is said of one that may not."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.text import one_line, shown
from learning.schema import Field, Number, Numbers, Text, Texts, problem_of

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=2),
)


@pytest.mark.parametrize(
    ("field", "good", "bad", "sentence"),
    [
        (Number(0, 1), 0.5, 1.5, "is 1.5; it must be a number from 0 to 1"),
        (Number(0, 1), 1, math.nan, "is nan; it must be a number from 0 to 1"),
        (Number(0, 1), 0, True, "is True; it must be a number from 0 to 1"),
        (Number(0, 9, whole=True), 3.0, 2.5, "is 2.5; it must be a whole number from 0 to 9"),
        (Number(3, 3), 3, 4, "is 4; it must be 3"),
        (Number(), -1e30, 1.1e30, "is 1.1e+30; it must be a number from -1e+30 to 1e+30"),
        (Numbers(Number(0), 2), [1, 2.5], [1, -2], "has -2 in it; each must be a number from 0 to 1e+30"),
        (Numbers(Number(0), 2), [1, 2], [1], "is a list of 1; it must be a list of 2 numbers"),
        (Numbers(Number(0), 2), [1, 2], "ab", "is 'ab'; it must be a list of 2 numbers"),
        (Text(5), "a b", "abcdef", "is 'abcdef'; it must be printable text of at most 5 characters"),
        (Text(5), "", "a\nb", r"is 'a\nb'; it must be printable text of at most 5 characters"),
        (Texts(2), ["a", "b"], ["a", 3], "is 3; it must be printable text of at most 200 characters"),
        (Texts(2), [], ["a"] * 3, "is a list of 3; it must be a list of at most 2 texts"),
    ],
)
def test_a_field_allows_what_it_says(field: Field, good: Any, bad: Any, sentence: str) -> None:
    assert field.problem(good) is None
    assert field.problem(bad) == sentence
    assert problem_of({"key": bad}, {"key": field}) == f"'key' {sentence}"


def test_a_record_has_what_is_needed_and_nothing_else() -> None:
    schema = {"a": Number(), "b": Number(needed=False)}
    assert problem_of({"a": 1}, schema) is None
    assert problem_of({"a": 1, "b": 2.0}, schema) is None
    assert problem_of({"b": 2.0}, schema) == "'a' is missing"
    assert problem_of({"a": 1, "c": 1}, schema) == "'c' is not among the values that are expected"
    assert problem_of({"a": 1, "b": 1, "\x1b[2J": 1}, schema) == r"'\x1b[2J' is not among the values that are expected"


@given(ANYTHING)
def test_whatever_is_shown_is_short_and_printable(value: Any) -> None:
    for text in (shown(value), one_line(value, 50), one_line(shown(value) * 50, 50)):
        assert 0 < len(text) < 400
        assert text.isprintable()


@given(ANYTHING)
def test_no_field_raises(value: Any) -> None:
    for field in (Number(0, 5, whole=True), Numbers(Number(), 2), Text(), Texts(3)):
        problem = field.problem(value)
        assert problem is None or problem.isprintable()


def test_a_text_without_control_characters_stays_as_it_is() -> None:
    assert one_line("client 3: 'batch-size' is 64, 80 % too many.") == "client 3: 'batch-size' is 64, 80 % too many."
    assert one_line(" a \n\n b\r\n") == "a | b"
    assert one_line("x" * 500, 10) == "xxxxxxxxxx [... of 500 characters]"
