import pytest
import torch

from detcore.structures import Priors


@pytest.fixture
def priors():
    """Priors with the given boxes [..., 4]."""

    def make(boxes, dtype=torch.float32):
        boxes = torch.as_tensor(boxes, dtype=dtype)
        return Priors(boxes, torch.ones(boxes.shape[-2] if boxes.dim() > 1 else 1, 2))

    return make


@pytest.fixture
def boxes():
    """Random boxes of at least 4 px within 200 px."""

    def make(*shape, seed=0, dtype=torch.float32):
        generator = torch.Generator().manual_seed(seed)
        low = torch.rand(*shape, 2, generator=generator, dtype=torch.float64) * 100
        extent = torch.rand(*shape, 2, generator=generator, dtype=torch.float64) * 96 + 4
        return torch.cat((low, low + extent), -1).to(dtype)

    return make


@pytest.fixture(autouse=True)
def _fixed_seed():
    torch.manual_seed(0)
