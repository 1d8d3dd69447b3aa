"""A visit on a few images, and a network with every kind of layer."""

import copy

import torch
from torch import Tensor, nn

from config.run_config import RunConfig
from learning.training import train_locally
from methods.ce import CE
from task import Compute, derived_generator

CPU = Compute(torch.device("cpu"), torch.float32)
IMAGES = torch.randint(0, 256, (12, 16, 16, 3), dtype=torch.uint8, generator=derived_generator(1, "images"))
LABELS = torch.arange(12) % 5
CONFIG = RunConfig(model="cnn", image_size=16, batch_size=4, learning_rate=0.05)


def train(model: nn.Module, config: RunConfig = CONFIG) -> dict[str, Tensor]:
    """The model's tensors before one visit; it is trained in place."""
    before = copy.deepcopy(model.state_dict())
    train_locally(model, IMAGES, LABELS, CE(), config, CPU, derived_generator(1, "t"))
    return before


def changed(model: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


class Block(nn.Module):
    """Attention with a joint projection, a depthwise and a plain convolution, and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(3, 3, 3, padding=1, groups=3)
        self.mix = nn.Conv2d(3, 8, 3, padding=1)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.fc1 = nn.Linear(8, 6)
        self.register_buffer("constant", torch.arange(6.0))
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.mix(self.depthwise(x)).flatten(2).transpose(1, 2)
        tokens = self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return self.fc(self.fc1(tokens.mean(dim=1)) + self.constant)
