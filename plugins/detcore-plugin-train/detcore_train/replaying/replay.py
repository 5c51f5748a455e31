"""Computing a kept batch's losses again: all of it, each image, each ground truth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from detcore_data.generators import seeded_generators
from torch import Tensor

from detcore.interfaces import Detector
from detcore.structures import Losses
from detcore_train.bad_batch import BadBatch, single
from detcore_train.engine.averaging import swap_in
from detcore_train.engine.determinism import deterministic_arithmetic
from detcore_train.engine.guard import bad_gradients
from detcore_train.engine.module import seed_step
from detcore_train.evaluation import as_images
from detcore_train.replaying.boxes import check_boxes
from detcore_train.replaying.trace import Origin, Trace, backward, bad_state

#: Ground truths of one image that are tried alone.
_MOST = 200
Advance = Callable[[int], None]


@dataclass(frozen=True)
class ImageReplay:
    """One image of the batch, computed alone.

    Args:
        image_id: The dataset's id.
        file: Path of its file.
        losses: Loss terms of this image alone.
        gradients: Parameters whose gradient is not finite, with this image alone.
        guilty: Rows of its ground truth with which alone a loss or gradient is not finite.
        without: Whether a loss or gradient is not finite without any ground truth too.
        boxes: What is odd about its boxes, by row.
    """

    image_id: int
    file: str
    losses: Mapping[str, float]
    gradients: tuple[str, ...] = ()
    guilty: tuple[int, ...] = ()
    without: bool = False
    boxes: Mapping[int, str] = field(default_factory=dict)

    @property
    def bad(self) -> bool:
        """Whether a loss or a gradient of the image alone is not finite."""
        return _bad(self.losses, self.gradients)


@dataclass(frozen=True)
class Replay:
    """What became of a batch when it was computed again.

    Args:
        batch: The batch.
        losses: Loss terms.
        gradients: Parameters whose gradient is not finite.
        origin: Where the first value that is not finite arises in the forward pass; None where there is none.
        derivative: The operation whose derivative is the first to be NaN; empty where there is none.
        images: Each image alone.
    """

    batch: BadBatch
    losses: Mapping[str, float]
    gradients: tuple[str, ...]
    origin: Origin | None
    derivative: str
    images: tuple[ImageReplay, ...]

    @property
    def bad(self) -> bool:
        """Whether a loss or a gradient is not finite again."""
        return _bad(self.losses, self.gradients)

    @property
    def same(self) -> bool:
        """Whether every loss term has the bits that it had in training."""
        before = self.batch.circumstances.losses
        return before.keys() == self.losses.keys() and all(
            value == before[name] or (math.isnan(value) and math.isnan(before[name]))
            for name, value in self.losses.items()
        )


def replay(kept: BadBatch, device: str = "cpu", advance: Advance = lambda _: None) -> Replay:
    """Computes the losses again.

    Args:
        kept: The batch.
        device: Where to compute; only on the kind of device that it was met on may the numbers be the same.
        advance: Called with 1 for the whole batch, and with 1 for each image.

    Raises:
        CheckpointError: The detector's files are damaged.
        ConfigError: The detector cannot be built with what is installed here.
    """
    with deterministic_arithmetic(False, device):  # as in training
        return _replay(kept, device, advance)


def _replay(kept: BadBatch, device: str, advance: Advance) -> Replay:
    again = _Again(kept, device)
    spoiled = bad_state(again.detector)
    losses, trace = again.forward(kept)
    gradients, derivative = again.gradients(kept) if _finite(losses) else ((), "")
    advance(1)
    origin = spoiled or trace.origin
    images = []
    for index in range(len(kept.batch)):
        images.append(_image(again, kept, index))
        advance(1)
    finite = not _bad(losses, gradients)
    return Replay(kept, losses, gradients, None if finite else origin, derivative, tuple(images))


def _image(again: _Again, kept: BadBatch, index: int) -> ImageReplay:
    losses, gradients = again.measure(_part(kept, index))
    targets = kept.batch.targets
    rows = targets.valid[index].nonzero().flatten().tolist()
    guilty, without = [], False
    if _bad(losses, gradients):
        alone = torch.eye(targets.valid.shape[1], dtype=torch.bool)
        without = _bad(*again.measure(_part(kept, index, torch.zeros_like(alone[0]))))
        if not without:
            guilty = [row for row in rows[:_MOST] if _bad(*again.measure(_part(kept, index, alone[row])))]
    return ImageReplay(
        kept.batch.image_ids[index],
        kept.batch.files[index],
        losses,
        gradients,
        tuple(guilty),
        without,
        check_boxes(kept.batch, index, len(again.detector.class_map)),
    )


def _part(kept: BadBatch, index: int, rows: Tensor | None = None) -> BadBatch:
    return BadBatch(kept.path, single(kept.batch, index, rows), kept.circumstances, kept.random)


class _Again:
    """The detector as it was before the batch, before each forward pass anew.

    Args:
        kept: The batch.
        device: Where to compute.
    """

    def __init__(self, kept: BadBatch, device: str) -> None:
        self.detector, self.device = kept.detector(device), torch.device(device)
        self.state = {name: value.clone() for name, value in self.detector.state_dict().items()}

    def forward(self, kept: BadBatch) -> tuple[dict[str, float], Trace]:
        """The losses, and what was seen on the way to them."""
        trace = Trace()
        with torch.no_grad(), trace.watching(self.detector):
            losses = self._losses(kept)
        return {name: float(value) for name, value in losses.items()}, trace

    def measure(self, kept: BadBatch) -> tuple[dict[str, float], tuple[str, ...]]:
        """The losses; and, where training stopped at a gradient, the parameters with a bad one."""
        losses, _ = self.forward(kept)
        wanted = kept.circumstances.reason == "gradient" and _finite(losses)
        return losses, self.gradients(kept)[0] if wanted else ()

    def gradients(self, kept: BadBatch) -> tuple[tuple[str, ...], str]:
        """The parameters whose gradient is not finite, and the first operation whose derivative is NaN."""
        self.detector.zero_grad()
        self._losses_total(kept).backward()  # type: ignore[no-untyped-call]
        found = tuple(bad_gradients(self.detector))
        if not found:
            return (), ""
        self.detector.zero_grad()
        with torch.autograd.set_detect_anomaly(True):
            return found, backward(self._losses_total(kept))

    def _losses_total(self, kept: BadBatch) -> Tensor:
        total: Tensor = self._losses(kept).total
        return total

    def _losses(self, kept: BadBatch) -> Losses:
        detector: Detector = self.detector
        detector.on_progress(kept.circumstances.epoch - 1, kept.circumstances.step)
        swap_in(detector, self.state)  # after the parts heard of the progress: they may have changed buffers
        batch = kept.batch.to(self.device)
        with _random(kept), _precision(kept.circumstances.precision, self.device):
            return detector(as_images(detector, batch), batch.targets)  # type: ignore[no-any-return]


@contextmanager
def _random(kept: BadBatch) -> Iterator[None]:
    """Random numbers as they were, and afterwards again as before."""
    states, was = kept.random, kept.circumstances
    with (
        seeded_generators(0),
        torch.random.fork_rng(devices=range(torch.cuda.device_count() if "cuda" in states else 0)),
    ):
        seed_step(was.seed, was.position, was.rank)
        torch.set_rng_state(states["cpu"])
        if "cuda" in states and torch.cuda.is_available():
            torch.cuda.set_rng_state(states["cuda"])
        yield


@contextmanager
def _precision(precision: str, device: torch.device) -> Iterator[None]:
    if precision == "32":
        yield
        return
    kind = torch.bfloat16 if precision.startswith("bf16") else torch.float16
    with torch.autocast(device.type, dtype=kind):
        yield


def _finite(losses: Mapping[str, float]) -> bool:
    return all(map(math.isfinite, losses.values()))


def _bad(losses: Mapping[str, float], gradients: tuple[str, ...]) -> bool:
    return not _finite(losses) or bool(gradients)
