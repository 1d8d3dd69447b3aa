"""The networks that `model` can name and what each needs: known without PyTorch, so that it is checked at once.

A test compares this table with torchvision and with the networks themselves. timm's networks are not here: they are
tried when they are built (`models.from_timm`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

TIMM = "timm:"  # before a name of timm's
TIMM_NAME = re.compile(r"timm:\w[\w-]*(\.[\w-]+)?")  # with or without the tag of its weights
TIMM_MISSING = (
    "which needs timm, and that is not installed here: `pip install timm` on the server and on every machine with"
    " clients."
)
V1, V2 = ("IMAGENET1K_V1",), ("IMAGENET1K_V1", "IMAGENET1K_V2")
SWAG = ("IMAGENET1K_SWAG_E2E_V1", "IMAGENET1K_SWAG_LINEAR_V1")
LINEAR_END = "ends in a mean over the image and a linear layer, where torchvision's ends in a convolution"
Weights = tuple[str, ...]


@dataclass(frozen=True)
class Family:
    """Networks that need the same.

    Attributes:
        title: How docs/models.md calls them, with the year.
        names: Each network's, with the names of its weights in torchvision.
        module: The module of ours that has a function of the network's name, which builds one for a number of classes;
            empty: torchvision builds it.
        smallest: Side of the smallest image that passes through, among those that `image-size` allows.
        multiple: What the side must be a multiple of.
        batchnorm: Whether it has BatchNorm.
        alone: The largest side of which BatchNorm refuses to train on a single image, since one pixel is left of it;
            0: there is none.
        draws: Whether it draws random numbers while it trains: dropout, stochastic depth.
        small_stem: Whether it has other first layers for small images: see `config.stems`.
        about: What else one should know, in Markdown.
    """

    title: str
    names: Mapping[str, Weights]
    module: str = ""
    smallest: int = 16
    multiple: int = 1
    batchnorm: bool = False
    alone: int = 0
    draws: bool = False
    small_stem: bool = False
    about: str = ""

    def problem_of_size(self, side: int) -> str:
        """What the side of an image must be, to follow "needs"; empty if this one will do."""
        if self.multiple > 1 and side % self.multiple:
            below = side // self.multiple * self.multiple
            near = [str(one) for one in (below, below + self.multiple) if self.smallest <= one <= 1024]
            return f"a multiple of {self.multiple}, such as {' or '.join(near)}"
        return f"at least {self.smallest}" if side < self.smallest else ""


def _all(names: str, weights: Weights = V1) -> dict[str, Weights]:
    return dict.fromkeys(names.split(), weights)


FAMILIES = (
    Family(
        "a tiny network for quick trials", {"cnn": ()}, "models.small_cnn", batchnorm=True, about="25,000 parameters"
    ),
    Family(
        "ResNet (2016), ResNeXt (2017), Wide ResNet (2016)",
        {
            **_all("resnet18 resnet34"), **_all("resnet50 resnet101 resnet152", V2),
            **_all("resnext50_32x4d resnext101_32x8d", V2), **_all("resnext101_64x4d"),
            **_all("wide_resnet50_2 wide_resnet101_2", V2),
        },
        "models.resnet", batchnorm=True, alone=32, small_stem=True,
        about="built without torchvision; the last BatchNorm of each block starts at zero; `stem` for small images",
    ),
    Family("AlexNet (2012)", _all("alexnet"), smallest=63, draws=True),
    Family("VGG (2014)", _all("vgg11 vgg13 vgg16 vgg19"), smallest=32, draws=True),
    Family("VGG with BatchNorm", _all("vgg11_bn vgg13_bn vgg16_bn vgg19_bn"), smallest=32, batchnorm=True, draws=True),
    Family(
        "GoogLeNet (2014)", _all("googlenet"), batchnorm=True, alone=46, draws=True,
        about="without auxiliary classifiers; wants `normalization='imagenet'`",
    ),
    Family(
        "Inception v3 (2015)", _all("inception_v3"), smallest=75, batchnorm=True, alone=106, draws=True,
        about="without auxiliary classifiers; wants `normalization='imagenet'`",
    ),
    Family("SqueezeNet 1.0 (2016)", _all("squeezenet1_0"), smallest=21, draws=True, about=LINEAR_END),
    Family("SqueezeNet 1.1", _all("squeezenet1_1"), smallest=17, draws=True, about=LINEAR_END),
    Family(
        "DenseNet (2016)", _all("densenet121 densenet161 densenet169 densenet201"), smallest=29, batchnorm=True,
        alone=60,
    ),
    Family(
        "ShuffleNet v2 (2018)",
        _all("shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5 shufflenet_v2_x2_0"), batchnorm=True, alone=32,
    ),
    Family(
        "MobileNet v2 (2018), v3 (2019)",
        {**_all("mobilenet_v2", V2), **_all("mobilenet_v3_small"), **_all("mobilenet_v3_large", V2)},
        batchnorm=True, alone=32, draws=True,
    ),
    Family(
        "MNASNet (2018)", _all("mnasnet0_5 mnasnet0_75 mnasnet1_0 mnasnet1_3"), batchnorm=True, alone=32, draws=True,
    ),
    Family(
        "EfficientNet (2019), v2 (2021)",
        {
            **_all("efficientnet_b0"), **_all("efficientnet_b1", V2),
            **_all("efficientnet_b2 efficientnet_b3 efficientnet_b4 efficientnet_b5 efficientnet_b6 efficientnet_b7"),
            **_all("efficientnet_v2_s efficientnet_v2_m efficientnet_v2_l"),
        },
        batchnorm=True, alone=32, draws=True,
        about="weights of `efficientnet_v2_l` expect `normalization='half'`",
    ),
    Family(
        "RegNet (2020)",
        {
            **_all("regnet_x_400mf regnet_x_800mf regnet_x_1_6gf regnet_x_3_2gf regnet_x_8gf regnet_x_16gf", V2),
            **_all("regnet_x_32gf regnet_y_400mf regnet_y_800mf regnet_y_1_6gf regnet_y_3_2gf regnet_y_8gf", V2),
            **_all("regnet_y_16gf regnet_y_32gf", (*V2, *SWAG)), "regnet_y_128gf": SWAG,
        },
        batchnorm=True, alone=32,
    ),
    Family(
        "ConvNeXt (2022)", _all("convnext_tiny convnext_small convnext_base convnext_large"), smallest=32, draws=True,
    ),
    Family("Swin (2021), v2 (2022)", _all("swin_t swin_s swin_b swin_v2_t swin_v2_s swin_v2_b"), draws=True),
    Family(
        "Vision Transformer (2020), patches of 16",
        {"vit_b_16": (*V1, *SWAG), "vit_l_16": (*V1, *SWAG)}, multiple=16, about="built for one size",
    ),
    Family(
        "Vision Transformer, patches of 32", _all("vit_b_32 vit_l_32"), smallest=32, multiple=32,
        about="built for one size",
    ),
    Family(
        "Vision Transformer, patches of 14", {"vit_h_14": SWAG}, smallest=28, multiple=14, about="built for one size"
    ),
    Family(
        "MaxViT (2022)", _all("maxvit_t"), smallest=224, multiple=224, batchnorm=True, draws=True,
        about="built for one size",
    ),
)  # fmt: skip
ARCHITECTURES = {name: family for family in FAMILIES for name in family.names}


def weights_of(name: str) -> Weights:
    """The names of torchvision's weights of a network; none of a network of ours alone, or of timm's."""
    return ARCHITECTURES[name].names[name] if name in ARCHITECTURES else ()


def needs_two_images(name: str, side: int, stem: str = "imagenet") -> bool:
    """Whether a network cannot train on a single image of this side; of timm's, `task.needs_two_images` knows.

    With the small stem, 2 x 2 pixels are left of the smallest image, 16 x 16.
    """
    return name in ARCHITECTURES and stem == "imagenet" and side <= ARCHITECTURES[name].alone
