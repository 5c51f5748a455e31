"""What checks of networks have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from detcore.structures import FeatureSpec, ImageBatch
from detcore.testing.checking import Trial
from detcore.testing.compare import tensors
from detcore.testing.data import Size
from detcore.testing.subject import given

#: Sizes (h, w) of images by name, for statements about the sizes of features.
IMAGE_SIZES: dict[str, Size] = {"square": (64, 64), "wide": (64, 96), "odd": (97, 65)}
#: Images of heads: the smallest that has room for every case of ground truth.
HEAD_SIZE: Size = (64, 96)


def pixels(trial: Trial, size: Size, images: int = 2) -> Tensor:
    """Random normalised pixels [B, 3, H, W]."""
    trial.note(f"{images} images of {size}, seed={trial.seed}")
    return torch.randn(images, 3, *size, generator=trial.generator())


def features_for(
    trial: Trial, specs: Sequence[FeatureSpec], size: Size = HEAD_SIZE, images: int = 2
) -> tuple[Tensor, ...]:
    """Random features of a pyramid."""
    generator = trial.generator()
    trial.note(f"random features of {images} images of {size}, seed={trial.seed}")
    shapes = [(images, f.channels, -(-size[0] // f.stride), -(-size[1] // f.stride)) for f in specs]
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


def in_features(module: Any) -> tuple[FeatureSpec, ...]:
    """The pyramid that a module was built for."""
    return tuple(given(module, "in_features"))


def images_of(size: Size = HEAD_SIZE, images: int = 2, *, smaller: bool = True) -> ImageBatch:
    """A batch whose pixels do not matter; all images but the first are smaller unless told otherwise."""
    sizes = [size] + [(size[0] - 14, size[1] - 21) if smaller else size] * (images - 1)
    return ImageBatch.of(torch.zeros(images, 3, *size), sizes, [size] * images)


def enliven(module: Any, seed: int = 0) -> Any:
    """Random weights that pass signals on, in place of an untrained head's, which finds nothing at all."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.dim() >= 2:
                fan_in = max(parameter[0].numel(), 1)
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * (1.5 / fan_in) ** 0.5)
            elif name.endswith("bias"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return module


def compiled(module: Any) -> Any:
    """The module compiled as one graph; by the cheapest backend, since it is the graph that matters."""
    compile_it: Any = torch.compile
    return compile_it(module, fullgraph=True, backend="eager")


def check_gradients(trial: Trial, module: nn.Module, run: Callable[[], Tensor]) -> None:
    """Fails unless every trainable parameter gets a finite gradient from the scalar that ``run`` gives."""
    module.zero_grad()
    total = run()
    trial.finite(total, "the value")
    trainable = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not total.requires_grad:
        trial.require(not trainable, "the value is not connected to any parameter")
        return
    total.backward()  # type: ignore[no-untyped-call]
    without = [name for name, p in trainable.items() if p.grad is None]
    trial.require(not without, f"{len(without)} parameters get no gradient, first {', '.join(without[:3])}")
    for name, parameter in trainable.items():
        trial.finite(parameter.grad, f"the gradient of {name}")


def total_of(result: Any) -> Tensor:
    """A number that depends on every floating point value in a result, each weighted differently."""
    parts = [t for t in tensors(result) if t.is_floating_point()]
    return torch.stack(
        [
            ((t * torch.linspace(0.5, 1.5, max(t.numel(), 1))[: t.numel()].reshape(t.shape)).sum())
            for t in parts
        ]
    ).sum()


def check_buffers_stay(trial: Trial, module: nn.Module, run: Callable[[], Any]) -> None:
    """Fails where what is done in evaluation mode changes the module's state."""
    module.eval()
    before = {name.replace(".", "/"): value.clone() for name, value in module.state_dict().items()}
    run()
    after = {name.replace(".", "/"): value for name, value in module.state_dict().items()}
    trial.same(after, before, "in evaluation mode its state changes", rtol=0, atol=0)


def check_pyramid(
    trial: Trial, module: Any, result: Any, size: Size, images: int = 2, what: str = "out_features"
) -> None:
    """Fails where a pyramid is not what ``out_features`` says."""
    specs = module.out_features
    trial.require(isinstance(result, tuple), f"the result is a {type(result).__name__}, not a tuple")
    trial.require(len(result) == len(specs), f"there are {len(result)} levels, but {what} has {len(specs)}")
    for number, (feature, spec) in enumerate(zip(result, specs, strict=True)):
        channels = feature.shape[1]
        trial.require(
            channels == spec.channels, f"level {number} has {channels} channels, {what} says {spec.channels}"
        )
        shape = (images, *(-(-side // spec.stride) for side in size))
        got = (feature.shape[0], *feature.shape[2:])
        trial.require(
            got == shape, f"level {number} has (B, h, w) {got}, with {what}'s stride {spec.stride} {shape}"
        )
    strides = [spec.stride for spec in specs]
    trial.require(strides == sorted(strides), f"strides decrease: {strides}")
