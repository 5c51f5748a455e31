"""From a box head's output on all proposals to detections, and to what samplers look at."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detcore.interfaces import BBoxHead, Postprocess
from detcore.interfaces.bbox_head import BBoxOutput
from detcore.interfaces.sampler import SamplingPredictions
from detcore.structures import Assignment, Detections, ImageBatch, Proposals, Targets
from detcore.targets import class_labels
from detcore_rcnn.box_losses import of_class
from detcore_rcnn.sampling import flat


def detect_regions(
    head: BBoxHead,
    output: BBoxOutput,
    proposals: Proposals,
    batch: ImageBatch,
    postprocess: Postprocess,
    scores: Float[Tensor, "P K"] | None = None,
) -> Detections:
    """Detections, with only the chosen candidates decoded and clipped to the images.

    Args:
        head: Decodes.
        output: What it predicted for all proposals as one list, padding too.
        proposals: N per image.
        batch: The images.
        postprocess: Chooses candidates and suppresses duplicates.
        scores: Probabilities of the classes; the head's own where None.
    """
    shape = proposals.scores.shape
    scores = head.scores(output) if scores is None else scores

    def decode(prior: Int[Tensor, "B T"], label: Int[Tensor, "B T"]) -> Float[Tensor, "B T 4"]:
        image = torch.arange(shape[0], device=prior.device)[:, None].expand_as(prior)
        codes = of_class(output.codes, label.flatten(), (image * shape[1] + prior).flatten())
        boxes = proposals.boxes[image, prior].flatten(0, 1)
        return head.decode(codes, boxes, batch.sizes[image].flatten(0, 1)).reshape(*prior.shape, 4)

    return postprocess(scores.reshape(*shape, scores.shape[1]), decode, batch, valid=proposals.valid)


def refine(
    head: BBoxHead,
    output: BBoxOutput,
    boxes: Float[Tensor, "P 4"],
    sizes: Int[Tensor, "P 2"],
    labels: Int[Tensor, "P"] | None = None,
) -> Float[Tensor, "P 4"]:
    """The boxes of one class per region, clipped to its image.

    Args:
        head: Decodes.
        output: Its prediction.
        boxes: The regions.
        sizes: (h, w) of each region's image.
        labels: The class; where None or background (K), the best scored one.
    """
    scores = head.scores(output)
    best = scores.argmax(-1)
    labels = best if labels is None else labels.where(labels < scores.shape[1], best)
    return head.decode(of_class(output.codes, labels), boxes, sizes)


def sampling_predictions(
    head: BBoxHead,
    output: BBoxOutput,
    regions: Proposals,
    assignment: Assignment,
    targets: Targets,
    num_classes: int,
) -> SamplingPredictions:
    """What samplers look at, of all regions [B, T]: classification losses, logits, scores, boxes of the best class.

    Args:
        head: The box head.
        output: What it predicted for all regions as one list.
        regions: T per image.
        assignment: Of the regions.
        targets: Ground truth.
        num_classes: K.
    """
    shape = regions.scores.shape
    labels = class_labels(assignment, assignment.positive, targets, num_classes).flatten()
    boxes, _ = flat(regions)
    scores = head.scores(output)
    best = scores.argmax(-1)
    return SamplingPredictions(
        head.class_losses(output, labels).reshape(shape),
        output.logits.reshape(*shape, output.logits.shape[1]),
        head.decode(of_class(output.codes, best), boxes).reshape(*shape, 4),
        scores.reshape(*shape, scores.shape[1]),
    )
