"""What a run's folder shows of its data: whose it is, how many of its labels are wrong, what its terms are.

A run knows where its data lay, and digests of lists, but not where they came from. So a card says what follows from the
class names and from the number of test images in each class, and no more.
"""

from enum import Enum, auto

from data.noise.published import CLEAN_TEST_COUNTS, CONFUSION
from data.sample import NAMES
from runs.hub.measured import images_by_class
from runs.hub.subject import NO_RECORD, Subject
from runs.markup import code, table

PAPER = (
    "[Xiao et al., CVPR 2015](https://openaccess.thecvf.com/content_cvpr_2015/html/"
    "Xiao_Learning_From_Massive_2015_CVPR_paper.html)"
)
WRONG = 1 - CONFUSION.trace() / CONFUSION.sum()
TERMS = (
    "Clothing1M's own terms allow non-commercial research and education only, forbid passing the data on, and leave the"
    " rights to the images with Baidu or their owners. Whether they extend to a model trained on it, ask those who gave"
    " you the data."
)


class Source(Enum):
    """What the data seems to be."""

    DRAWN = auto()  # the app's own sample
    CLOTHING1M = auto()  # its classes, and as many test images in each
    ITS_CLASSES = auto()  # its classes, and nothing else that tells
    OTHER = auto()
    UNKNOWN = auto()


def source_of(subject: Subject) -> Source:
    if not subject.config:
        return Source.UNKNOWN
    if subject.class_names != NAMES:
        return Source.OTHER
    if not subject.config["data-dir"] and _server_had_data(subject):
        return Source.DRAWN
    is_its = images_by_class(subject) == CLEAN_TEST_COUNTS.tolist()
    return Source.CLOTHING1M if is_its else Source.ITS_CLASSES


def _server_had_data(subject: Subject) -> bool:
    """On real nodes it may do without; run.json then has no digest of a list. Folders without the file are older."""
    return bool(subject.record.data) or subject.record is NO_RECORD


ABOUT = {
    Source.DRAWN: "The server was told of no data, and used the app's own sample: **drawn pictures of garments, not"
    " photos**. So did each client whose machine has no data of its own. What is measured on drawn pictures says"
    " nothing about photos.",
    Source.CLOTHING1M: "The classes, and the number of test images in each, are those of Clothing1M"
    f" ({PAPER}): a million web photos of clothing, whose labels were taken from the text around them.",
    Source.ITS_CLASSES: "The classes are those of Clothing1M"
    f" ({PAPER}). Whether the images are, the run's folder does not show.",
    Source.OTHER: "The run's folder does not say where its images come from. Whoever publishes this model should say it"
    " here.",
    Source.UNKNOWN: "Nothing is known but the file of the model. Whoever publishes this model should say here what it"
    " was trained on.",
}
OF_CLOTHING1M = (
    f"About {100 * WRONG:.0f} % of the labels of Clothing1M's noisy training list are wrong, in some classes far more"
    f" than in others. That was counted on the {CONFUSION.sum():,} images of its clean training and validation lists"
    " that have both a noisy and a clean label, and these are no random draw of the million."
)
NOISE = {
    Source.DRAWN: "The sample's noisy labels are drawn with the noise that was counted on Clothing1M, where about"
    f" {100 * WRONG:.0f} % of them are wrong.",
    Source.CLOTHING1M: OF_CLOTHING1M,
    Source.ITS_CLASSES: f"If they are: {OF_CLOTHING1M[0].lower()}{OF_CLOTHING1M[1:]}",
    Source.OTHER: "How many of its labels are wrong is not known here.",
    Source.UNKNOWN: "",
}


def about_data(subject: Subject) -> list[str]:
    """Paragraphs about images and labels."""
    source, config = source_of(subject), subject.config
    said = [ABOUT[source]]
    if config.get("train-split") == "clean":
        said.append("Clients trained on the clean training list.")
    elif NOISE[source]:
        said.append(NOISE[source])
    if config.get("label-noise", "none") != "none":
        said.append(f"The run made more labels wrong, at random: {code(subject.setting('label-noise'))}.")
    if subject.record.data:
        rows = [(code(name), code(digest)) for name, digest in sorted(subject.record.data.items())]
        digests = table(("list", "digest of its keys and labels"), rows)
        said.append(f"Two runs with the same digest of a list used the same images with the same labels.\n\n{digests}")
    return said


def about_licence(subject: Subject) -> list[str]:
    """Paragraphs about what is known of terms."""
    source = source_of(subject)
    said = ["None has been chosen for these weights: whoever publishes them chooses one, above and here."]
    if source in (Source.CLOTHING1M, Source.ITS_CLASSES):
        said.append(TERMS if source is Source.CLOTHING1M else f"If the images are Clothing1M's: {TERMS}")
    elif source is not Source.DRAWN:
        said.append("The terms of the images that it was trained on are not known here.")
    started = subject.setting("pretrained")
    if started not in ("", "none"):
        said.append(
            f"Training began from other weights (`pretrained`: {code(started)}), which have terms of their own."
        )
    return said
