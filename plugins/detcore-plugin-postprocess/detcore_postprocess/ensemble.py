"""Several detectors as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, cast

import torch
from jaxtyping import Int
from pydantic import Field
from torch import Tensor, nn

from detcore.component import Part, make, wired
from detcore.errors import DataError
from detcore.interfaces import Detector
from detcore.structures import ClassMap, Detections, ImageBatch, ImageGeometry, Losses, Targets
from detcore_postprocess.merger import Merger
from detcore_postprocess.nms_merger import NMSMerger
from detcore_postprocess.raw import device_of, raw_batch, raw_images

Weight = Annotated[float, Field(gt=0)]


class EnsembleDetector(Detector):
    """Detectors of the same classes that look at the same images; what they find is put together.

    Each prepares the images in its own way: mean, size, padding and strides may differ. Its classes may have
    another order too; labels are brought to the order of the first. That order is part of the state, so that it
    survives saving. Classes that differ are an error.

    A batch holds the images as they came (:mod:`detcore_postprocess.raw`). In training mode the losses of all
    detectors are given, as ``0.loss_cls``, ``1.loss_cls``, ...

    Args:
        num_classes: K; supplied by the owner or by the detectors.
        detectors: Trained ones are given as they are.
        merger: How their detections become one set.
        weights: How much each counts; the same for all where None.
        max_per_img: Rows of the result per image (Q).

    Raises:
        ConfigError: The detectors have different classes, or there is not one weight for each.
    """

    orders: Int[Tensor, "T K"]

    def __init__(
        self,
        *,
        num_classes: Annotated[int, Field(ge=1)] | None = wired(None),
        detectors: Annotated[tuple[Part[Detector], ...], Field(min_length=1)],
        merger: Part[Merger] = NMSMerger.spec(),
        weights: tuple[Weight, ...] | None = None,
        max_per_img: Annotated[int, Field(ge=1)] = 100,
    ) -> None:
        super().__init__()
        if weights is not None and len(weights) != len(detectors):
            raise ValueError(
                f"weights: {len(weights)} numbers for {len(detectors)} detectors; give one for each"
            )
        supplied = {} if num_classes is None else {"num_classes": num_classes}
        self.detectors = nn.ModuleList([make(detector, **supplied) for detector in detectors])
        self.merger = make(merger)
        self.weights = weights
        self.max_per_img = max_per_img
        members = self.members
        self.num_classes = len(members[0].class_map)
        orders = [_order(members[0].class_map, one.class_map, index) for index, one in enumerate(members)]
        self.register_buffer("orders", torch.tensor(orders, dtype=torch.int64))

    @property
    def members(self) -> list[Detector]:
        """The detectors."""
        return [cast(Detector, member) for member in self.detectors]

    @property
    def class_map(self) -> ClassMap:
        """Names and dataset ids of the classes, in the order of the first detector."""
        return self.members[0].class_map

    @class_map.setter
    def class_map(self, value: ClassMap) -> None:
        if len(value) != self.num_classes:
            raise DataError(
                f"the class map has {len(value)} classes, the detectors have {self.num_classes}: {value.names}"
            )
        for member, order in zip(self.members, self.orders.tolist(), strict=True):
            names = tuple(value.names[label] for label in order)
            member.class_map = ClassMap(names, tuple(value.ids[label] for label in order))

    def preprocess(
        self, images: Sequence[Tensor], geometry: Sequence[ImageGeometry] | None = None
    ) -> ImageBatch:
        """The images as they are, side by side; each detector prepares them itself."""
        return raw_batch(images, geometry, device_of(self))

    def features(self, batch: ImageBatch) -> tuple[Tensor, ...]:
        """The pyramids of all detectors, one after the other."""
        images = raw_images(batch)
        return tuple(level for member in self.members for level in member.features(member.preprocess(images)))

    def loss(self, batch: ImageBatch, targets: Targets) -> Losses:
        """The terms of all detectors, each with the number of its detector before its name."""
        images = raw_images(batch)
        terms: dict[str, Tensor] = {}
        metrics: dict[str, Tensor] = {}
        for index, (member, order) in enumerate(zip(self.members, self.orders, strict=True)):
            own = targets.replace(labels=order.argsort().to(targets.labels.device)[targets.labels])
            losses = member.loss(member.preprocess(images), own)
            terms |= {f"{index}.{name}": term for name, term in losses.items()}
            metrics |= {f"{index}.{name}": metric for name, metric in losses.metrics.items()}
        return Losses(terms, metrics)

    def predict(self, batch: ImageBatch) -> Detections:
        """See :class:`~detcore.interfaces.Detector`."""
        images, views = raw_images(batch), []
        for member, order in zip(self.members, self.orders, strict=True):
            own = member.preprocess(images)
            found = member.predict(own).to_original(own)
            labels = torch.where(found.valid, order.to(found.labels.device)[found.labels], 0)
            views.append(found.replace(labels=labels))
        return self.merger(views, max_per_img=self.max_per_img, weights=self.weights)


def _order(first: ClassMap, own: ClassMap, index: int) -> list[int]:
    """The first detector's label of each label of another.

    Raises:
        ValueError: Their classes differ; names them.
    """
    missing = [name for name in first.names if name not in own.names]
    strange = [name for name in own.names if name not in first.names]
    if missing or strange:
        said = [
            f"{what} {', '.join(names)}" for what, names in (("lacks", missing), ("has", strange)) if names
        ]
        raise ValueError(
            f"detectors[{index}] {' and '.join(said)}, unlike detectors[0], whose classes are "
            f"{', '.join(first.names)}; members of an ensemble have the same classes, in any order"
        )
    return [first.names.index(name) for name in own.names]
