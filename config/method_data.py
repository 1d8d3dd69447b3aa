"""What a method's server half needs of the server's data, as far as that is known without PyTorch."""

import contextlib

from config.errors import ConfigError
from config.known import METHODS
from config.named import parse_args
from config.run_config import RunConfig
from data.noise.published import CONFUSION
from data.release import Release

ESTIMATE, PUBLISHED = "estimate", "clothing1m"  # values of `transition` that are not the path of a matrix
LEAST = 2  # images of clean train with both labels for xiao: BatchNorm may need that many


def lists_of_method(config: RunConfig) -> tuple[str, ...]:
    """The lists of the server's own in which its half of the method needs images that carry both labels.

    Of a class of the user's nothing is known.
    """
    if config.method not in METHODS or (config.method == "forward" and _transition(config) != ESTIMATE):
        return ()
    return METHODS[config.method].both_labels


def opens_data(config: RunConfig) -> bool:
    """Whether a server on real nodes reads any data, as far as is known."""
    return bool(config.server_lists or lists_of_method(config))


def problem_of_method_data(config: RunConfig, release: Release) -> str | None:
    """Why the server half of the run's method cannot work with the server's release; None if it can.

    Raises:
        DataError: Lists that cannot be read.
    """
    if config.method == "forward":
        return problem_of_transition(_transition(config), release)
    if config.method == "xiao":
        count = len(release.double_labelled(lists_of_method(config))[0])
        return problem_of_few(count, f"{release.root} has {count}")
    return None


def problem_of_transition(transition: str, release: Release) -> str | None:
    """Why a release has no matrix by this name; None if it has, or if it is the path of one.

    Raises:
        DataError: Lists that cannot be read.
    """
    classes = len(release.class_names)
    published = classes == len(CONFUSION)
    a_path = "the path of a matrix"
    if transition == ESTIMATE and not _has_both_labels(release):
        return (
            "run config: 'method-args' has transition='estimate', but no image of clean train or clean val in"
            f" {release.root} carries both labels; transition must be"
            f" {'clothing1m or ' if published else ''}{a_path}."
        )
    if transition == PUBLISHED and not published:
        return (
            f"run config: 'method-args' has transition='clothing1m', whose matrix is of {len(CONFUSION)} classes, but"
            f" {release.root} has {classes}; transition must be"
            f" {'estimate or ' if _has_both_labels(release) else ''}{a_path}."
        )
    return None


def problem_of_few(count: int, how_many: str) -> str | None:
    """Why so many images with both labels are too few for xiao, in a sentence with `how_many`; None if they are not."""
    if count >= LEAST:
        return None
    return (
        "run config: 'method' is 'xiao', which learns types of noise from images of clean train that carry a noisy"
        f" label as well, but {how_many}; there must be at least {LEAST}."
    )


def _has_both_labels(release: Release) -> bool:
    return len(release.double_labelled(METHODS["forward"].both_labels)[0]) > 0


def _transition(config: RunConfig) -> str:
    with contextlib.suppress(ConfigError):  # bad pairs are reported by themselves
        return str(parse_args("method-args", config.method_args).get("transition", ESTIMATE))
    return ESTIMATE
