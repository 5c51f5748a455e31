"""Objects that no prior of the experiment's detector answers for."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from detcore_data.inspection import Finding, Inspected, Options, Seen, seen_objects
from detcore_data.inspection.findings import Instance, instances
from torch import Tensor
from torch.utils import _pytree as pytree

from detcore.errors import DetcoreError
from detcore.interfaces import DenseHead, Detector, Transform
from detcore.structures import HeadOutput, ImageBatch, Targets

_SIZES_KEPT = 64


class PriorMatcher:
    """Matches ground truth with a detector's own priors and assigner; no pixel is computed.

    The detector's network runs on the meta device, which gives the sizes of its levels and nothing else, once
    per image size. The head then matches as in training, on predictions that are all zero.

    Args:
        detector: Any detector with a dense head (``head``, or ``rpn_head`` of a two-stage one).

    Raises:
        LookupError: It has no such head, or its matching looks at predictions, so that it depends on the
            weights.
    """

    def __init__(self, detector: Detector) -> None:
        head = _dense_head(detector)
        self.is_proposing = hasattr(detector, "rpn_head")
        assigner = getattr(head, "assigner", None)
        if assigner is None:
            raise LookupError(f"{type(head).__name__} has no assigner")
        if assigner.needs:
            needs = ", ".join(sorted(assigner.needs))
            raise LookupError(
                f"{type(assigner).__name__} looks at predictions ({needs}), so it depends on the weights"
            )
        self.head, self.detector = head, detector
        self._shape_only = copy.deepcopy(detector).to("meta").eval()
        self._head_shape_only = _dense_head(self._shape_only)
        self._outputs: dict[tuple[int, int], HeadOutput] = {}

    @torch.no_grad()
    def unmatched(self, seen: Seen) -> Tensor:
        """Which of the image's objects (not regions to ignore) are no prior's ground truth; bool [n]."""
        batch = self._batch(seen)
        labels = torch.zeros_like(seen.labels) if self.is_proposing else seen.labels
        targets = Targets.stack([{"boxes": seen.boxes, "labels": labels, "ignore": seen.ignore}])
        assignment = self.head.match(self._output(batch), targets, batch)
        found = torch.zeros(targets.boxes.shape[1], dtype=torch.bool)
        found[assignment.gt_index[assignment.positive]] = True
        if assignment.pairs is not None:
            found[assignment.pairs.gt[assignment.pairs.valid]] = True
        return ~found[: len(seen.boxes)] & ~seen.ignore

    def _batch(self, seen: Seen) -> ImageBatch:
        """The image as the preprocessor pads it, without memory for its pixels."""
        pixel = torch.zeros((), dtype=torch.uint8).expand(3, *seen.size)
        batch = self.detector.preprocess([pixel], [seen.geometry])
        return batch.replace(pixels=torch.zeros(()).expand(batch.pixels.shape))

    def _output(self, batch: ImageBatch) -> HeadOutput:
        """What the head would give for images of that size, zeros without memory."""
        size = (int(batch.pixels.shape[-2]), int(batch.pixels.shape[-1]))
        if size not in self._outputs:
            if len(self._outputs) >= _SIZES_KEPT:
                self._outputs.clear()
            on_meta = batch.to("meta")
            features = self._shape_only.features(on_meta)
            output = self._head_shape_only(features, on_meta)
            self._outputs[size] = pytree.tree_map_only(Tensor, _zeros, output)
        return self._outputs[size]


def _dense_head(detector: Detector) -> DenseHead:
    head = getattr(detector, "rpn_head", None) or getattr(detector, "head", None)
    if not isinstance(head, DenseHead):
        raise LookupError(f"{type(detector).__name__} has no dense head")
    return head


def _zeros(tensor: Tensor) -> Tensor:
    return torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)


def check_priors(
    detector: Detector,
    split: Inspected,
    transforms: tuple[Transform, ...],
    options: Options,
    advance: Callable[[int], None],
) -> Iterator[Finding]:
    """Objects of a training set that the detector's assigner leaves without any prior.

    Args:
        detector: The experiment's.
        split: The training set, inspected.
        transforms: Those of the training set.
        options: How closely to look.
        advance: Called with a number of images that are done.
    """
    try:
        matcher = PriorMatcher(detector)
        first: list[tuple[int, str]] = []
        count, total = 0, 0
        for image in options.chosen(len(split.records)):
            for seen in seen_objects(split.records, split.sizes, transforms, (image,), options.seed):
                missed = matcher.unmatched(seen)
                count, total = count + int(missed.sum()), total + int((~seen.ignore).sum())
                for i in missed.nonzero().flatten().tolist()[: options.examples - len(first)]:
                    first.append((int(seen.rows[i]), _described(seen, i)))
            advance(1)
    except (LookupError, NotImplementedError, RuntimeError, DetcoreError) as cause:
        yield _not_checked(split.name, str(cause))
        return
    if count:
        rows = torch.tensor([row for row, _ in first])
        yield Finding(
            "unmatched-object",
            split.name,
            "warning",
            count,
            f"objects that no prior answers for ({count / total:.1%}); they are trained as background, or not "
            "at all",
            "give the prior generator their sizes and ratios, lower the assigner's thresholds (min_pos_iou), or "
            "use larger images",
            instances(split.records, rows, [text for _, text in first]),
        )


def _described(seen: Seen, i: int) -> str:
    width, height = (seen.boxes[i, 2:] - seen.boxes[i, :2]).tolist()
    return f"{width:.1f} x {height:.1f} pixels in an image of {seen.size[1]} x {seen.size[0]}"


def _not_checked(split: str, why: str) -> Finding:
    return Finding(
        "priors-not-checked",
        split,
        "note",
        1,
        "whether every object has a prior was not checked",
        "nothing to do: only assigners that look at nothing but boxes can be checked before training",
        (Instance(detail=why.splitlines()[0] if why else "unknown"),),
    )
