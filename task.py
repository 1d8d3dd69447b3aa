"""The learning task that clients and server share: model, device and precision.

PyTorch is imported here, at module level, under the lock with which Flower loads apps: a simulation loads the ServerApp
and the ClientApp in two threads of one process. Nothing here imports torchvision, see `models`.
"""

import contextlib
import hashlib
import math
import sys
from dataclasses import dataclass
from functools import cache, lru_cache

import torch
from torch import Tensor, nn

from config import architectures
from config.run_config import ConfigError
from data.normalization import NORMALIZATIONS, Normalization
from models import build, has_batchnorm

HEADS = "further_heads"  # of a network: the module of its further heads; torchvision's ViT has `heads` of its own
Heads = tuple[tuple[str, int], ...]
CACHED_VALUES = 150_000  # float32 values that a core's cache holds beside the code: one image of 224 pixels


def derived_seed(seed: int, purpose: str, *numbers: int) -> int:
    """A 63-bit seed for one purpose, for instance ``derived_seed(1, "local training", round, partition)``.

    Different purposes and numbers give independent streams, so no draw depends on how many came before it elsewhere.
    """
    text = "/".join([str(seed), purpose, *map(str, numbers)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def derived_generator(seed: int, purpose: str, *numbers: int) -> torch.Generator:
    """A CPU generator seeded with `derived_seed`."""
    return torch.Generator().manual_seed(derived_seed(seed, purpose, *numbers))


@dataclass(frozen=True)
class Compute:
    """Where and in which precision the model runs.

    Attributes:
        device: The CPU or one GPU.
        dtype: What autocast computes in; float32 switches autocast off. Parameters stay float32.
        tf32: Whether a GPU may round the factors of float32 products to 10 bits of mantissa.
    """

    device: torch.device
    dtype: torch.dtype
    tf32: bool = False

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        if self.dtype is torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def __str__(self) -> str:
        return f"{self.device.type} {'tf32' if self.tf32 else str(self.dtype).removeprefix('torch.')}"


@dataclass(frozen=True)
class Precision:
    """One precision that can be asked for.

    Attributes:
        dtype: What autocast computes in; None leaves it to the hardware.
        tf32: See `Compute`.
        needs_gpu: Whether it is refused on a CPU.
    """

    dtype: torch.dtype | None
    tf32: bool = False
    needs_gpu: bool = False


PRECISIONS = {
    "auto": Precision(None),
    "fp32": Precision(torch.float32),
    "tf32": Precision(torch.float32, tf32=True, needs_gpu=True),
    "bf16": Precision(torch.bfloat16),
    "fp16": Precision(torch.float16, needs_gpu=True),  # CPUs emulate its convolutions, slower than fp32
}


def pick_compute(precision: str, autotune: bool = False) -> Compute:
    """The GPU if there is one; `auto` is bf16 where the hardware computes in it, else fp16 on a GPU and fp32 on a CPU.

    Args:
        precision: A key of `PRECISIONS`.
        autotune: Whether cuDNN may time its algorithms on the first batch of each shape and keep the fastest. Which
            one that is, and with it the last bits of a result, can differ from run to run.

    Raises:
        ConfigError: A precision that needs a GPU, without one.
    """
    wanted = PRECISIONS[precision]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted.needs_gpu and device.type == "cpu":
        others = ", ".join(name for name, one in PRECISIONS.items() if not one.needs_gpu)
        raise ConfigError(
            f"run config: 'precision' is '{precision}', which needs a GPU; on a CPU it must be one of {others}."
        )
    compute = Compute(device, wanted.dtype or _best_dtype(device), wanted.tf32)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = autotune, not autotune
        # PyTorch's own default would round convolutions, and convolutions alone.
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = compute.tf32
    return compute


def _best_dtype(device: torch.device) -> torch.dtype:
    """The fastest that the hardware computes in without emulating it."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if _cpu_has_bf16() else torch.float32


def _cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 natively (AVX512-BF16 or AMX); torch has no public name for the question."""
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name)() for name in probes if hasattr(torch.cpu, name))


class Networks(nn.Module):
    """Several networks of one architecture that are trained side by side, as one model.

    Their arrays are ``networks.0.conv1.weight``, ``networks.1.conv1.weight`` and so on, so that whatever averages by
    name keeps them apart. Together they answer with the mean of their probabilities.
    """

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, inputs: Tensor) -> Tensor:
        """(n, 3, h, w) to (n, classes) float32 logarithms of mean probabilities, which serve as logits."""
        logs = torch.stack([network(inputs).float().log_softmax(dim=1) for network in self.networks])
        return logs.logsumexp(dim=0) - math.log(len(self.networks))


class FurtherHeads(nn.ModuleDict):
    """Linear layers beside the classifier, by name. In a network that is a `Sequential` they are its last part, and
    pass the logits on.
    """

    def forward(self, logits: Tensor) -> Tensor:
        return logits


def networks_of(model: nn.Module) -> list[nn.Module]:
    """The networks that `build_model` put into one model; the model itself if it is one."""
    return list(model.networks) if isinstance(model, Networks) else [model]


def classifier(network: nn.Module) -> nn.Linear:
    """The linear layer that turns features into logits: timm's networks say which, of others it is the last one.

    Further heads and what is inside of adapters do not count.
    """
    if isinstance(layer := getattr(network, "get_classifier", lambda: None)(), nn.Linear):
        return layer
    layers = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    return [layer for name, layer in layers if not {HEADS, "parametrizations"} & set(name.split("."))][-1]


def build_model(
    name: str,
    num_classes: int,
    seed: int,
    networks: int = 1,
    heads: Heads = (),
    image_size: int = 224,
    stem: str = "imagenet",
) -> nn.Module:
    """A model with fresh weights, in channels-last layout on the CPU; `Networks` if there are to be several.

    The first network is the one that is built alone; the others have other weights.

    Args:
        name: A key of `config.architectures.ARCHITECTURES`, or ``timm:`` and a name of timm's.
        num_classes: Outputs of each network.
        seed: The run's.
        networks: How many.
        heads: Names and outputs of further linear layers on the features, which nothing calls but a method's loss.
        image_size: Side of the input; some networks are built for one size.
        stem: Of `config.stems.stem_of`.

    Raises:
        ConfigError: A network of timm's that there is not, or that cannot be used.
    """
    built = [_build_network(name, num_classes, seed, number, heads, image_size, stem) for number in range(networks)]
    return built[0] if networks == 1 else Networks(built)


@cache
def needs_two_images(name: str, image_size: int, stem: str = "imagenet") -> bool:
    """Whether a model cannot train on a single image of this size, because BatchNorm would see one value a channel.

    A ResNet with ImageNet's stem leaves one pixel of 32 x 32.

    Raises:
        ConfigError: One of timm's, which is not installed, or has no such network, or not for such images.
    """
    if name in architectures.ARCHITECTURES:
        return architectures.needs_two_images(name, image_size, stem)
    # Not on the meta device, which has shapes alone: it imports torch's compiler, which takes three times as long.
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            if has_batchnorm(name, image_size):
                build(name, 2, image_size).train()(torch.zeros(1, 3, image_size, image_size))
        except ConfigError:
            raise
        except ValueError as error:
            return "more than 1 value per channel" in str(error)
    return False


def _build_network(
    name: str, num_classes: int, seed: int, number: int, heads: Heads, image_size: int, stem: str
) -> nn.Module:
    """Initial weights are drawn from torch's global generator; it is seeded inside a scope and put back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "initial weights", *([number] if number else [])))
        model = build(name, num_classes, image_size, stem)
        if heads:
            width = classifier(model).in_features
            model.add_module(HEADS, FurtherHeads({head: nn.Linear(width, outputs) for head, outputs in heads}))
    return model.to(memory_format=torch.channels_last)


def to_input(images: Tensor, compute: Compute, normalization: Normalization | str) -> Tensor:
    """Images as stored to images as the model wants them.

    Args:
        images: (n, height, width, 3) uint8, on any device.
        compute: Where the result goes.
        normalization: Mean and deviation of each channel, or a key of `NORMALIZATIONS`.

    Returns:
        (n, 3, height, width) float32 in channels-last layout: the permutation moves no byte.
    """
    numbers = NORMALIZATIONS[normalization] if isinstance(normalization, str) else normalization
    if compute.device.type == "cpu":
        return _normalize_on_cpu(images, *numbers).permute(0, 3, 1, 2)
    means, deviations = _constants(numbers, compute.device)
    batch = images.to(compute.device, non_blocking=True).float().div_(255).sub_(means).div_(deviations)
    return batch.permute(0, 3, 1, 2)


@lru_cache(maxsize=8)
def _constants(numbers: Normalization, device: torch.device) -> tuple[Tensor, Tensor]:
    """Channel mean and deviation on a device, moved there once."""
    return torch.tensor(numbers.mean, device=device), torch.tensor(numbers.deviation, device=device)


def _normalize_on_cpu(images: Tensor, mean: tuple[float, ...], deviation: tuple[float, ...]) -> Tensor:
    """The same numbers five times as fast: whole rows instead of triples, and few images at a time, in the cache."""
    count, height, width, channels = images.shape
    means, deviations = (torch.tensor(values).repeat(width) for values in (mean, deviation))
    batch = torch.empty(count, height, width * channels)
    step = max(1, CACHED_VALUES // (height * width * channels))
    rows = images.reshape(batch.shape)
    for start in range(0, count, step):
        batch[start : start + step].copy_(rows[start : start + step]).div_(255).sub_(means).div_(deviations)
    return batch.view(images.shape)


if __name__ == "__main__":  # the old commands
    print(
        "python -m task no longer has commands: use `python -m probe` instead of `probe`,"
        " and `python -m client_app.corrected_labels` instead of `labels`.",
        file=sys.stderr,
    )
    raise SystemExit(2)
