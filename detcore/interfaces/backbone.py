"""The interface of backbones."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from detcore.component import Component
from detcore.structures import FeatureSpec


class Backbone(Component, nn.Module):
    """Images to a pyramid of features.

    Invariants: level i of the output has ``out_features[i].channels`` channels and height
    ``ceil(H / out_features[i].stride)`` (width likewise); strides do not decrease.
    """

    kind: ClassVar[str] = "backbones"

    #: Channels and strides of the output, known once constructed.
    out_features: tuple[FeatureSpec, ...]

    @abstractmethod
    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> tuple[Tensor, ...]:
        """One feature map [B, C_i, H_i, W_i] per level."""

    def depth_layers(self) -> tuple[tuple[str, ...], ...]:
        """What each layer consists of, from the image on: names of submodules, or of parameters of its own.

        Layer-wise learning rates and the recomputation of activations go by it. Every parameter belongs to
        exactly one layer. Unless overridden, the order is that of registration: the backbone's own parameters,
        then each child; of a container (``nn.Sequential``, ``nn.ModuleList``, ``nn.ModuleDict``) each entry.
        """
        own = tuple(name for name, _ in self.named_parameters(recurse=False))
        layers = [own] if own else []
        for name, child in self.named_children():
            entries = {name: child}
            if isinstance(child, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
                entries = {f"{name}.{entry}": module for entry, module in child.named_children()}
            layers += [(path,) for path, module in entries.items() if any(True for _ in module.parameters())]
        return tuple(layers)
