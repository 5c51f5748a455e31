"""A detector of detcore from one of torchvision, or from its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from detcore.errors import CheckpointError, Problem
from detcore.interfaces import Detector
from detcore.serialize import build
from detcore.weights import AdaptedWeights, without_initial_values, without_weights
from detcore_torchvision.classes import Classes, classes_of
from detcore_torchvision.description import describe
from detcore_torchvision.errors import TorchvisionImportError
from detcore_torchvision.names import conversion_of, converted, detcore_names, outputs_of
from detcore_torchvision.report import KeyReport
from detcore_torchvision.skeletons import is_detector, skeleton_of
from detcore_torchvision.sources import Source, categories_of, source_of

#: A counter that frozen normalisation lacks, and that nothing reads at the default momentum.
_OPTIONAL = "num_batches_tracked"


@dataclass(frozen=True)
class Imported:
    """A detector, and how it came here.

    Args:
        detector: The detector, in evaluation mode.
        keys: What became of the weights.
        classes: Which of torchvision's classes it has.
        notes: What was decided, or differs in training.
    """

    detector: Detector
    keys: KeyReport
    classes: Classes
    notes: tuple[Problem, ...]


def from_torchvision(
    source: nn.Module | Mapping[str, Tensor] | str,
    *,
    categories: Sequence[str] | None = None,
    keep_unused: bool = False,
    frozen_bn_eps: float | None = None,
) -> Detector:
    """Builds the detector that a model of torchvision, or a state dict, is; with its weights.

    Its detections are torchvision's: ``detector(batch).to_original(batch).unpad()`` with
    ``batch = detector.preprocess(images)``. Labels count from 0, without background.

    Args:
        source: RetinaNet, Faster R-CNN or Mask R-CNN on a ResNet with a feature pyramid; the state dict of one
            with torchvision's default settings; or the name of published weights,
            ``"RetinaNet_ResNet50_FPN_Weights.COCO_V1"``.
        categories: Names by torchvision's label, the background's first; those of the weights where they are
            published ones.
        keep_unused: Whether labels whose category is "N/A" stay; see :mod:`detcore_torchvision.classes`.
        frozen_bn_eps: For a state dict: the number added to the variance in a frozen normalisation of the
            backbone, 1e-5 where omitted. torchvision takes 0 for its own COCO_V1 weights, and for nothing else.

    Returns:
        The detector, in evaluation mode, on the device of the model.

    Raises:
        TorchvisionImportError: Parts or settings have no counterpart; all of them are named.
        CheckpointError: Weights are missing, left over, of another shape or not finite; nothing is loaded.
    """
    return import_detector(
        source, categories=categories, keep_unused=keep_unused, frozen_bn_eps=frozen_bn_eps
    ).detector


def import_detector(
    source: nn.Module | Mapping[str, Tensor] | str,
    *,
    categories: Sequence[str] | None = None,
    keep_unused: bool = False,
    frozen_bn_eps: float | None = None,
) -> Imported:
    """As :func:`from_torchvision`, with the report on weights and settings."""
    return import_source(
        source_of(source, categories=categories, frozen_bn_eps=frozen_bn_eps), keep_unused=keep_unused
    )


def import_source(source: Source, *, keep_unused: bool = False) -> Imported:
    """As :func:`import_detector`, of something that was looked up before."""
    weights = checked(source.weights, source.title)
    model = source.model or skeleton_of(weights, frozen_bn_eps=source.frozen_bn_eps)
    description = describe(model)
    outputs = outputs_of(weights)
    if outputs is None:
        raise TorchvisionImportError(f"{source.title}: the weights do not tell the number of classes")
    classes = classes_of(outputs, source.categories, keep_unused=keep_unused)
    config = {**description.config, "num_classes": len(classes.labels)}
    with without_weights(), without_initial_values():
        detector = build(config, kind="detectors", title=source.title)
    keys = _load(detector, weights, classes, source.title)
    detector.class_map = classes.class_map
    if source.device is not None:
        detector.to(source.device)
    return Imported(detector.eval(), keys, classes, description.notes)


def _load(detector: Detector, weights: Mapping[str, Tensor], classes: Classes, title: str) -> KeyReport:
    """Loads converted weights, all of them or none.

    Raises:
        CheckpointError: They do not fit.
    """
    ours, own = converted(weights, classes.labels), detector.state_dict()
    names = detcore_names(list(weights))
    mapped = {there: here for there, here in names.items() if here in own}
    given = set(mapped.values())
    conversions = {there: found.describe for there in mapped if (found := conversion_of(there)) is not None}
    keys = KeyReport(
        mapped=mapped,
        converted=conversions,
        unused=tuple(name for name in names if name not in mapped),
        missing=tuple(name for name in own if name not in given and not name.endswith(_OPTIONAL)),
        mismatched={
            there: (tuple(ours[here].shape), tuple(own[here].shape))
            for there, here in mapped.items()
            if ours[here].shape != own[here].shape
        },
    )
    if not keys.fits:
        raise CheckpointError(
            f"{title}: the weights do not fit the {type(detector).__name__} that they describe "
            f"({keys.describe()}); nothing was loaded: give the model itself, rather than its state dict"
        )
    detector.load_state_dict({name: ours[name] for name in given}, strict=False)
    return keys


def checked(weights: Mapping[str, Tensor], title: str) -> Mapping[str, Tensor]:
    """The weights, if they are finite tensors by name.

    Raises:
        CheckpointError: They are not.
    """
    for name, value in weights.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            what = f"{type(value).__name__} under {str(name)[:80]!r}"
            raise CheckpointError(f"{title}: expected tensors by name, got {what}")
        if value.is_floating_point() and not value.isfinite().all():
            raise CheckpointError(f"{title}: {name} holds NaN or infinity; take weights from before that")
    return weights


def adapt(detector: Detector, weights: Mapping[str, Tensor], address: str) -> AdaptedWeights | None:
    """The weights of a detector of torchvision by the names of one of detcore's; None for other weights.

    The labels that COCO's files leave out are kept where the detector has a class for each of them.

    Args:
        detector: What they are for.
        weights: By the names in the file.
        address: Where they came from; tells the categories of published weights.
    """
    outputs = outputs_of(weights)
    if outputs is None or not is_detector(weights):
        return None
    count = len(detector.class_map)
    classes = classes_of(outputs, categories_of(address), keep_unused=count == outputs - 1)
    return AdaptedWeights(converted(checked(weights, address), classes.labels))
