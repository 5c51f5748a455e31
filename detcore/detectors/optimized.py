"""A copy of a trained detector that is faster and can do nothing but predict."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from detcore.component import Part, wired
from detcore.detectors.wrapped import WrappedDetector
from detcore.errors import CheckpointError
from detcore.folding import fold_norms
from detcore.interfaces.bbox_head import BBoxHead
from detcore.interfaces.dense_head import DenseHead
from detcore.interfaces.detector import Detector
from detcore.interfaces.mask_head import MaskHead
from detcore.precision import InferencePrecision, resolve_precision
from detcore.structures import Detections, ImageBatch, Losses, Targets

_ONLY_PREDICTS = (
    "a detector that optimize_for_inference made can only predict; {} the one that it was made from"
)


def optimize_for_inference(detector: Detector, precision: InferencePrecision = "auto") -> OptimizedDetector:
    """A copy of a detector, for prediction only, that is faster on the device where the detector is now.

    Batch normalisation is folded into the convolutions, images and weights lie in memory with the channels last, and
    with "bf16" convolutions and linear layers compute in bfloat16, with sums in float32. What heads give is float32
    again before boxes are decoded.

    Against the detector itself, scores and boxes differ with "32" by rounding in float32, about 1e-6 relative, and
    with "bf16" by that of bfloat16, about 1e-2 in logits; detections near a threshold may come or go. "auto" is
    "bf16" on processors with AVX512_BF16 or AMX and on CUDA devices from compute capability 8.0 on, else "32".

    Args:
        detector: Stays as it is; training it further does not change the copy.
        precision: The arithmetic.

    Raises:
        ValueError: The precision is none of the choices.
    """
    return OptimizedDetector(detector=detector, precision=precision)


class OptimizedDetector(WrappedDetector):
    """See :func:`optimize_for_inference`. It is no registered component: it can be neither dumped nor saved.

    Args:
        detector: What is copied.
        precision: "auto", "32" or "bf16".
        num_classes: Not needed; the detector knows.
    """

    def __init__(
        self,
        *,
        detector: Part[Detector],
        precision: InferencePrecision = "auto",
        num_classes: int | None = wired(None),
    ) -> None:
        super().__init__(num_classes=num_classes, detector=detector)
        self.detector = copy.deepcopy(self.detector).eval().requires_grad_(False)
        parameter = next(self.detector.parameters(), None)
        device = torch.device("cpu") if parameter is None else parameter.device
        self.precision = resolve_precision(precision, device)
        fold_norms(self.detector)
        if self.precision == "bf16":
            _to_bfloat16(self.detector)
        self.detector.to(memory_format=torch.channels_last)
        self.register_state_dict_pre_hook(_no_state)  # type: ignore[no-untyped-call]
        self.eval()

    @torch.no_grad()
    def features(self, batch: ImageBatch) -> tuple[Tensor, ...]:
        """See :class:`~detcore.interfaces.Detector`."""
        with self._arithmetic(batch):
            return self.detector.features(_channels_last(batch))

    def forward(
        self,
        images: ImageBatch | Sequence[Tensor],
        targets: Targets | Sequence[Mapping[str, Any]] | None = None,
    ) -> Losses | Detections:
        """Detections; see :class:`~detcore.interfaces.Detector`.

        Raises:
            ValueError: It is in training mode.
        """
        if self.training:
            raise ValueError(_ONLY_PREDICTS.format("train"))
        return super().forward(images, targets)

    def loss(self, batch: ImageBatch, targets: Targets) -> NoReturn:
        """Not possible.

        Raises:
            ValueError: Always.
        """
        raise ValueError(_ONLY_PREDICTS.format("train"))

    @torch.no_grad()
    def predict(self, batch: ImageBatch) -> Detections:
        """See :class:`~detcore.interfaces.Detector`."""
        with self._arithmetic(batch):
            return self.detector.predict(_channels_last(batch))

    def train(self, mode: bool = True) -> OptimizedDetector:
        """Sets its own mode; the copy inside stays in evaluation mode."""
        self.training = mode
        return self

    def _arithmetic(self, batch: ImageBatch) -> torch.autocast:
        return torch.autocast(batch.pixels.device.type, torch.bfloat16, enabled=self.precision == "bf16")


def _channels_last(batch: ImageBatch) -> ImageBatch:
    return batch.replace(pixels=batch.pixels.contiguous(memory_format=torch.channels_last))


def _to_bfloat16(detector: nn.Module) -> None:
    """Weights as the products want them, so that they are not converted each time; heads give float32."""
    for module in detector.modules():
        if type(module) in (nn.Conv2d, nn.ConvTranspose2d, nn.Linear):
            module.to(torch.bfloat16)
        elif isinstance(module, (DenseHead, BBoxHead, MaskHead)):
            module.register_forward_hook(_float32)


def _float32(_: nn.Module, __: Any, output: Any) -> Any:
    """What a head gives, in float32."""
    if isinstance(output, Tensor):
        return output.float() if output.dtype == torch.bfloat16 else output
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        values = {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}
        changed = {name: _float32(_, __, value) for name, value in values.items()}
        return dataclasses.replace(output, **changed)
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return type(output)(*(_float32(_, __, value) for value in output))
    if isinstance(output, (tuple, list)):
        return type(output)(_float32(_, __, value) for value in output)
    return output


def _no_state(*_: Any) -> NoReturn:
    raise CheckpointError(_ONLY_PREDICTS.format("save"))
