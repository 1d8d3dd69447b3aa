"""What several tests of networks share."""

from collections.abc import Iterator

import pytest
import torch

from tests.learning.networks import Block


@pytest.fixture
def block() -> Iterator[Block]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        yield Block()
