"""`normalization-args`: what it takes, what it refuses in a sentence, and which numbers a request leads to."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.check import examine
from config.errors import ConfigError
from config.normalization import given_normalization, lead_to, normalization_of
from config.run_config import RunConfig
from data.normalization import LEAST_DEVIATION, NORMALIZATIONS, Normalization
from tests.odd_values import TEXTS, is_a_sentence

MEANS, DEVIATIONS = st.floats(0, 1), st.floats(LEAST_DEVIATION, 1)
GOOD = "mean=[0.1, 0.2, 0.3] deviation=[0.4, 0.5, 0.6]"


@given(st.tuples(MEANS, MEANS, MEANS), st.tuples(DEVIATIONS, DEVIATIONS, DEVIATIONS))
def test_numbers_read_back_bit_for_bit(mean: tuple[float, float, float], deviation: tuple[float, float, float]) -> None:
    numbers = Normalization(mean, deviation)
    config = RunConfig(normalization="release", normalization_args=numbers.as_args())
    assert normalization_of(config) == numbers
    assert [*map(repr, normalization_of(config).mean)] == [*map(repr, mean)]  # -0.0 as well


@given(st.sampled_from(["mean", "deviation"]), st.integers(0, 2), st.floats())
def test_ranges(name: str, place: int, value: float) -> None:
    values = {"mean": [0.5, 0.5, 0.5], "deviation": [0.5, 0.5, 0.5]}
    values[name][place] = value
    text = " ".join(f"{key}={numbers}" for key, numbers in values.items())
    least = {"mean": 0.0, "deviation": 0.000001}[name]
    if least <= value <= 1:
        assert given_normalization(text) is not None
    else:
        with pytest.raises(ConfigError, match=f"{name} must be three numbers from") as error:
            given_normalization(text)
        assert is_a_sentence(str(error.value))


def test_whole_numbers_and_any_spelling_will_do() -> None:
    assert given_normalization("deviation=[1,1,1], mean=[0, 1, 5e-1]") == ((0.0, 1.0, 0.5), (1.0, 1.0, 1.0))
    assert given_normalization("") is given_normalization("  ") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mean=[0.1, 0.2, 0.3]", "without deviation; it must give both"),
        ("deviation=[0.1, 0.2, 0.3]", "without mean; it must give both"),
        (f"{GOOD} std=[1, 1, 1]", "names 'std'; release takes mean, deviation."),
        (f"{GOOD} mean=[1, 1, 1]", "'mean' is given twice"),
        (GOOD.replace(", 0.3]", "]"), "mean must be three numbers from 0 to 1, of red, green and blue."),
        (GOOD.replace("0.3]", "0.3, 0.3]"), "mean must be three numbers"),
        (GOOD.replace("0.4", "0"), "deviation must be three numbers from 0.000001 to 1"),
        (GOOD.replace("0.4", "true"), "deviation must be three numbers"),
        (GOOD.replace("0.4", "'0.4'"), "deviation must be three numbers"),
        (GOOD.replace("0.4", "[0.4]"), "deviation"),
        (GOOD.replace("0.4", "9" * 4000), "deviation must be three numbers"),
        ("mean=0.5 deviation=0.5", "mean must be three numbers"),
        ("mean={x=1} deviation=0.5", "mean must be three numbers"),
        ("mean=[0.1, 0.2, deviation=[1, 1, 1]", "it must be key=value pairs"),
    ],
)
def test_what_it_refuses(text: str, said: str) -> None:
    _, problems = examine({"normalization": "release", "normalization-args": text})
    (problem,) = problems
    assert said in problem
    assert is_a_sentence(problem)


@pytest.mark.parametrize("text", TEXTS)
def test_odd_texts_are_sentences(text: str) -> None:
    for normalization in ("release", "half"):
        _, problems = examine({"normalization": normalization, "normalization-args": text})
        assert len(problems) == bool(text.strip())
        assert all(map(is_a_sentence, problems))
    assert lead_to("", text)
    assert lead_to(text, GOOD) == (not text.strip())


def test_other_names_take_no_numbers() -> None:
    _, problems = examine({"normalization": "cifar10", "normalization-args": GOOD})
    assert "but 'normalization' is 'cifar10', whose numbers are known; it must be empty" in problems[0]
    assert not examine({"normalization": "release", "normalization-args": GOOD})[1]
    assert not examine({"normalization": "release"})[1]


def test_published_numbers() -> None:
    assert NORMALIZATIONS["cifar10"] == ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    assert NORMALIZATIONS["cifar100"] == ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
    assert normalization_of(RunConfig(normalization="cifar100")) == NORMALIZATIONS["cifar100"]


def test_nothing_is_made_up_before_it_is_measured() -> None:
    with pytest.raises(ConfigError, match="has no mean and deviation; they are measured when a run starts"):
        normalization_of(RunConfig(normalization="release"))


@pytest.mark.parametrize(
    ("asked", "recorded", "leads"),
    [
        ("", GOOD, True),
        ("", "", True),
        (GOOD.replace(", ", ",").replace("0.1", "0.10"), GOOD, True),
        (GOOD.replace("0.1", "0.11"), GOOD, False),
        (GOOD, "", False),
        ("mean=", GOOD, False),
        (GOOD, "mean=", False),
        (GOOD, None, False),
        ("", None, False),
    ],
)
def test_which_numbers_a_request_leads_to(asked: Any, recorded: Any, leads: bool) -> None:
    assert lead_to(asked, recorded) is leads
