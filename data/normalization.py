"""Mean and deviation of each colour channel: how inputs are normalised, as numbers.

`data.images.channels` measures them on images; `NORMALIZATIONS` has published ones by name.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

Triple = tuple[float, float, float]
LEAST_DEVIATION = 1e-6  # the last digit that is kept; inputs divided by less are as good as infinite
NUMBERS = {  # what each must be, and between which ends
    "mean": (0.0, "three numbers from 0 to 1, of red, green and blue"),
    "deviation": (LEAST_DEVIATION, f"three numbers from {LEAST_DEVIATION:f} to 1, of red, green and blue"),
}


class Normalization(NamedTuple):
    """What is subtracted from inputs between 0 and 1, and by what the rest is divided; of red, green and blue."""

    mean: Triple
    deviation: Triple

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Normalization":
        """The numbers that a file or a setting gives under these two names.

        Raises:
            ValueError: One of them is missing, or not what it must be; the sentence has no full stop.
        """
        return cls(_triple("mean", values), _triple("deviation", values))

    def as_args(self) -> str:
        """As `normalization-args` has them; reading this gives the same numbers bit for bit."""
        return f"mean={list(self.mean)} deviation={list(self.deviation)}"


def _triple(name: str, values: Mapping[str, Any]) -> Triple:
    least, wanted = NUMBERS[name]
    given = values.get(name)
    if not isinstance(given, list | tuple) or len(given) != 3 or not all(_is_within(least, one) for one in given):
        raise ValueError(f"{name} must be {wanted}")
    red, green, blue = map(float, given)
    return red, green, blue


def _is_within(least: float, value: Any) -> bool:
    return type(value) in (int, float) and least <= value <= 1


# Channel mean and standard deviation of RGB in [0, 1]. `config.choices` has the same names, and ``release``, whose
# numbers are in the config. CIFAR's are those of all pixels of its 50,000 training images, to four digits, as
# github.com/kuangliu/pytorch-cifar/issues/19 works out for CIFAR-10. Its other published deviation, 0.2023 for red, is
# the mean of each image's own (github.com/chenyaofo/image-classification-codebase/issues/5), and that of CIFAR-100
# which begins with 0.2675 differs in the fourth digit.
NORMALIZATIONS = {
    "imagenet": Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # torchvision's weights expect these
    "clothing1m": Normalization((0.6959, 0.6537, 0.6371), (0.3113, 0.3192, 0.3214)),  # DivideMix and its successors
    "half": Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # many of timm's weights, ViTs above all
    "cifar10": Normalization((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": Normalization((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
