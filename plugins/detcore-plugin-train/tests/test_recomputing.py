import copy

import pytest
import torch
from detcore_train import fit
from detcore_train.engine.recomputing import recomputing
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from detcore.errors import ConfigError
from detcore.interfaces import Backbone
from detcore.serialize import build
from detcore.structures import FeatureSpec


class Blocks(Backbone):
    """Layers with everything that could differ the second time: statistics, dropout, frozen statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.stages = nn.Sequential(*(self.block() for _ in range(6)))
        self.stages[1].eval()
        self.out_features = (FeatureSpec(8, 1),)

    @staticmethod
    def block():
        return nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3),
            nn.Conv2d(8, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU(inplace=True),
        )  # fmt: skip

    def forward(self, pixels):
        return (self.stages(self.stem(pixels)),)


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = Blocks()


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Whole()


def step(model, wanted):
    """Loss, gradients and state after one step of training."""
    model = copy.deepcopy(model)
    torch.manual_seed(1)
    with recomputing(model, wanted):
        (features,) = model.backbone(torch.randn(2, 3, 16, 20))
        loss = (features.square() * torch.rand_like(features)).mean()
        loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    return loss.detach(), gradients, model.state_dict(), torch.rand(3)


def test_losses_gradients_statistics_and_random_numbers_are_the_same(model):
    (loss, gradients, state, drawn), (other, others, other_state, redrawn) = (
        step(model, w) for w in (False, True)
    )
    assert torch.equal(loss, other)
    assert torch.equal(drawn, redrawn)
    for one, two in ((gradients, others), (state, other_state)):
        assert one.keys() == two.keys()
        for name in one:
            assert torch.equal(one[name], two[name]), name
    assert state["backbone.stages.0.1.num_batches_tracked"] == 1
    assert state["backbone.stages.1.1.num_batches_tracked"] == 0  # in evaluation mode


class _Living(TorchDispatchMode):
    """Bytes of the tensors that were made inside and are still there."""

    def __init__(self) -> None:
        super().__init__()
        self._made = {}

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        result = function(*arguments, **(named or {}))
        for value in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(value, torch.Tensor):
                storage = value.untyped_storage()
                self._made[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        return result

    @property
    def bytes(self):
        return sum(size for reference, size in self._made.values() if not reference.expired())


def kept(model, wanted):
    """Bytes that are kept between forward and backward pass."""
    pixels = torch.randn(2, 3, 64, 64)
    with recomputing(model, wanted), _Living() as living:
        (features,) = model.backbone(pixels)
        found = living.bytes
        del features
    return found


def test_less_is_kept_for_the_backward_pass(model):
    plain, recomputed = kept(model, False), kept(model, True)
    one = 2 * 8 * 64 * 64 * 4  # bytes of one feature map
    assert recomputed < 0.25 * plain
    assert recomputed < 9 * one  # what goes into each of six layers, and comes out of the last


def test_afterwards_and_without_gradients_nothing_is_different(model):
    model.eval()
    pixels = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        before = model.backbone(pixels)[0]
        with recomputing(model):
            assert torch.equal(model.backbone(pixels)[0], before)
    assert not any("forward" in vars(module) for module in model.modules())


def test_a_backbone_without_such_layers(config, tmp_path):
    config["checkpoint_gradients"] = True  # the toy's layers are single modules: nothing would be saved
    with pytest.raises(
        ConfigError, match="checkpoint_gradients has no layer to work on: SingleStageDetector has no"
    ):
        fit(build(config, kind="experiments"), tmp_path / "run", accelerator="cpu")
    with pytest.raises(ConfigError, match="Linear has no backbone"), recomputing(nn.Linear(1, 1)):
        pass
