"""How code without this app builds a network: a few lines of Python for the metadata of `model.safetensors`."""

from config.architectures import ARCHITECTURES, TIMM

CNN = """\
from collections import OrderedDict
from torch import nn
network = nn.Sequential(OrderedDict(
    conv1=nn.Conv2d(3, 16, 3, 2, 1, bias=False), bn1=nn.BatchNorm2d(16), relu1=nn.ReLU(),
    conv2=nn.Conv2d(16, 32, 3, 2, 1, bias=False), bn2=nn.BatchNorm2d(32), relu2=nn.ReLU(),
    conv3=nn.Conv2d(32, 64, 3, 2, 1, bias=False), bn3=nn.BatchNorm2d(64), relu3=nn.ReLU(),
    pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(64, {classes})))
"""
TORCHVISION = """\
from torchvision.models import get_model
network = get_model({name!r}, num_classes={classes}{more})
"""
LINEAR_END = """\
from collections import OrderedDict
from torch import nn
network.classifier = nn.Sequential(OrderedDict(
    dropout=nn.Dropout(0.5), pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(512, {classes})))
"""
# MNASNet's own loading refuses weights that do not say which version of it they are of.
WITHOUT_VERSION = """\
from torch import nn
network._load_from_state_dict = nn.Module._load_from_state_dict.__get__(network)
"""
SMALL_STEM = """\
from torch import nn
network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
network.maxpool = nn.Identity()
"""
STEM_IN_WORDS = "3x3 convolution of stride 1, BatchNorm, ReLU, no pooling"  # the small one
STEMS = {
    "models.resnet": "7x7 convolution of stride 2, BatchNorm, ReLU, 3x3 max-pooling of stride 2, whatever the size",
    "models.small_cnn": "3x3 convolution of stride 2, BatchNorm, ReLU",
}


def lines_that_build(
    name: str, num_classes: int, image_size: int, *, takes_size: bool = False, small_stem: bool = False
) -> str:
    """Python that leaves the network in ``network``; it needs torchvision, timm or, for `cnn`, PyTorch alone.

    Args:
        name: As in `models.build`.
        num_classes: Outputs.
        image_size: Side of the input.
        takes_size: Whether a network of timm's is told that side when it is built.
        small_stem: Whether it has the first layers for small images, which only ResNets have.
    """
    if name == "cnn":
        return CNN.format(classes=num_classes)
    if name.startswith(TIMM):
        more = f", img_size={image_size}" if takes_size else ""
        return f"import timm\nnetwork = timm.create_model({name[len(TIMM) :]!r}, num_classes={num_classes}{more})\n"
    lines = TORCHVISION.format(name=name, classes=num_classes, more=_options(name, image_size))
    if name.startswith("squeezenet"):
        lines += LINEAR_END.format(classes=num_classes)
    return lines + SMALL_STEM * small_stem + WITHOUT_VERSION * name.startswith("mnasnet")


def stem_of(name: str, small_stem: bool = False) -> str:
    """A network's first layers in words, of those that are often built with others for small images; else empty."""
    if small_stem:
        return STEM_IN_WORDS
    return STEMS.get(ARCHITECTURES[name].module, "") if name in ARCHITECTURES else ""


def _options(name: str, image_size: int) -> str:
    """What `models.from_torchvision` says besides, as text."""
    if name in ("googlenet", "inception_v3"):
        return ", aux_logits=False, transform_input=True, init_weights=False"
    if name.startswith("vit_"):
        return f", image_size={image_size}"
    return f", input_size=({image_size}, {image_size})" if name.startswith("maxvit") else ""
