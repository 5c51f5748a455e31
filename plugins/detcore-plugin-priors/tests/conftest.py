import pytest
import torch

from detcore.structures import ImageBatch


@pytest.fixture
def batch():
    """A batch of images that are padded to the given sizes."""

    def make(*padded_sizes, device="cpu"):
        pixels = torch.zeros(max(1, len(padded_sizes)), 3, 1, 1, device=device)
        return ImageBatch.of(pixels, padded_sizes=padded_sizes or None)

    return make


@pytest.fixture(autouse=True)
def _fixed_seed():
    torch.manual_seed(0)
