"""Checks of blocks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from detcore.interfaces import Block
from detcore.testing.checking import Trial, check, probe
from detcore.testing.modules import check_buffers_stay, check_gradients, compiled, total_of
from detcore.testing.subject import WIRED_CHANNELS, given

#: Heights and widths of feature maps by name.
MAP_SIZES = {"square": (12, 12), "wide": (9, 16), "one_cell": (1, 1)}


def feature_map(
    trial: Trial, block: Any, size: tuple[int, int] = MAP_SIZES["wide"], images: int = 2
) -> Tensor:
    """Random features with the block's number of channels."""
    trial.note(f"random features of {images} images, {size}, seed={trial.seed}")
    channels = given(block, "in_channels", WIRED_CHANNELS)
    return torch.randn(images, channels, *size, generator=trial.generator())


@probe(Block)
def block_once(block: Any, trial: Trial) -> Any:
    """The result for two images."""
    with torch.no_grad():
        return block.eval()(feature_map(trial, block))


@check(Block, cases=MAP_SIZES)
def block_sizes_are_true(trial: Trial) -> None:
    """Its result has ``out_channels`` channels and, divided by ``stride``, the input's size; it is finite."""
    block = trial.component().eval()
    height, width = MAP_SIZES[trial.case]
    with torch.no_grad():
        result = block(feature_map(trial, block, (height, width)))
        zeros = block(torch.zeros_like(feature_map(trial, block, (height, width))))
    shape = (2, block.out_channels, -(-height // block.stride), -(-width // block.stride))
    trial.require(result.shape == shape, f"it has shape {list(result.shape)}, not {list(shape)}")
    trial.finite(result, "a feature")
    trial.finite(zeros, "a feature of zeros")


@check(Block)
def block_parameters_get_gradients(trial: Trial) -> None:
    """In training mode every trainable parameter gets a finite gradient."""
    block = trial.component().train()
    features = feature_map(trial, block)
    check_gradients(trial, block, lambda: total_of(block(features)))


@check(Block, compares=True)
def block_images_are_independent(trial: Trial) -> None:
    """In evaluation mode an image's result is the same alone and in a batch."""
    block = trial.component().eval()
    features = feature_map(trial, block)
    with torch.no_grad():
        both, alone = block(features), block(features[1:])
    trial.same(both[1:], alone, "the second image's features in the batch", atol=1e-3, rtol=1e-3)


@check(Block)
def block_evaluation_changes_nothing(trial: Trial) -> None:
    """In evaluation mode its state stays as it is."""
    block = trial.component()
    check_buffers_stay(trial, block, lambda: block(feature_map(trial, block)))


@check(Block)
def block_leaves_its_arguments(trial: Trial) -> None:
    """It does not write to the features that it is given."""
    block = trial.component().eval()
    features = feature_map(trial, block)
    with trial.unchanged("a feature", features), torch.no_grad():
        block(features)


@check(Block)
def block_keeps_float64(trial: Trial) -> None:
    """In float64 its features are float64."""
    block = trial.component().double().eval()
    with torch.no_grad():
        kind = block(feature_map(trial, block).double()).dtype
    trial.require(kind == torch.float64, f"they are {kind}")


@check(Block, slow=True, compares=True)
def block_compiles(trial: Trial) -> None:
    """``torch.compile(fullgraph=True)`` takes it and gives the same."""
    block = trial.component().eval()
    features = feature_map(trial, block)
    with torch.no_grad():
        wanted = block(features)
        got = compiled(block)(features)
    trial.same(got, wanted, "the compiled features", rtol=1e-3, atol=1e-3)
