"""A detector that looks at large images piece by piece."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from detcore.boxes import pairwise_overlap
from detcore.component import Part, make, wired
from detcore.detectors import WrappedDetector
from detcore.interfaces import Detector
from detcore.structures import Detections, ImageBatch, ImageGeometry, Losses, Targets
from detcore_postprocess.merger import Merger
from detcore_postprocess.merging import best_detections
from detcore_postprocess.nms_merger import NMSMerger
from detcore_postprocess.raw import device_of, raw_batch, raw_images
from detcore_postprocess.tiles import Tile, cut_off, ends_at_a_border, tiles_of

Edge = Annotated[int, Field(ge=1)]


class TiledDetector(WrappedDetector):
    """Any detector, for images much larger than what it sees well at once.

    Tiles cover the image; those at its right and lower end are moved inside, so that all are of one size. Of a
    box that a border between tiles cuts off, the tile that sees more of the object has the better one; the other
    is dropped (see :func:`~detcore_postprocess.tiles.cut_off`). Objects larger than the overlap are cut in all
    tiles; the whole image, shrunk, is looked at for them, and where they are found there their parts are dropped.
    What remains is merged: ``NMS.spec(overlap="ios")`` as the merger's ``nms`` also drops what lies in a better box.

    An image that is not larger than a tile goes to the detector as it is. At most ``batch_size`` tiles are in work
    at once, whatever the size of the image. A batch holds the images as they came
    (:mod:`detcore_postprocess.raw`). Training goes to the detector, with whole images.

    Akyon et al., "Slicing Aided Hyper Inference and Fine-tuning for Small Object Detection" (arXiv:2202.06934).

    Args:
        num_classes: K; supplied by the owner or by the detector.
        detector: What predicts.
        tile: (h, w) in pixels, or the length of both edges.
        overlap: Least share of a tile that it has in common with its neighbour; objects up to this size are seen
            whole.
        full_image: Whether the whole image is looked at too.
        full_size: (h, w) in pixels that the whole image is shrunk to fit into for that; a tile's where None.
        border: How near to a tile's border a box counts as cut off, in pixels of the image.
        part_thr: A box that a border cuts off is dropped where at least this share of it lies in a box of its class
            that was found in the whole image.
        batch_size: Tiles per step.
        merger: How the detections of the tiles, and of the whole, become one set.
        max_per_img: Rows of the result per image (Q).
    """

    def __init__(
        self,
        *,
        num_classes: Annotated[int, Field(ge=1)] | None = wired(None),
        detector: Part[Detector],
        tile: Edge | tuple[Edge, Edge] = 640,
        overlap: Annotated[float, Field(ge=0, lt=1)] = 0.2,
        full_image: bool = True,
        full_size: tuple[Edge, Edge] | None = None,
        border: Annotated[float, Field(ge=0)] = 2.0,
        part_thr: Annotated[float, Field(gt=0, le=1)] = 0.8,
        batch_size: Annotated[int, Field(ge=1)] = 4,
        merger: Part[Merger] = NMSMerger.spec(),
        max_per_img: Annotated[int, Field(ge=1)] = 300,
    ) -> None:
        super().__init__(num_classes=num_classes, detector=detector)
        if full_size is not None and not full_image:
            raise ValueError("full_size is for the whole image; leave it out with full_image=False")
        self.tile = (tile, tile) if isinstance(tile, int) else tile
        self.overlap, self.border, self.batch_size = overlap, border, batch_size
        self.full_image, self.full_size, self.part_thr = full_image, full_size, part_thr
        self.merger = make(merger)
        self.max_per_img = max_per_img

    def preprocess(
        self, images: Sequence[Tensor], geometry: Sequence[ImageGeometry] | None = None
    ) -> ImageBatch:
        """The images as they are, side by side; the detector prepares the tiles."""
        return raw_batch(images, geometry, device_of(self))

    def features(self, batch: ImageBatch) -> tuple[Tensor, ...]:
        """See :class:`~detcore.interfaces.Detector`; of the whole images."""
        return self.detector.features(self.detector.preprocess(raw_images(batch)))

    def loss(self, batch: ImageBatch, targets: Targets) -> Losses:
        """See :class:`~detcore.interfaces.Detector`; of the whole images."""
        return self.detector.loss(self.detector.preprocess(raw_images(batch)), targets)

    def predict(self, batch: ImageBatch) -> Detections:
        """See :class:`~detcore.interfaces.Detector`."""
        found = [self._of_image(image) for image in raw_images(batch)]
        return _stacked(found, batch) if found else self._nothing(batch)

    def _of_image(self, image: Tensor) -> Detections:
        """The detections of one image [3, H, W], in its pixels."""
        size = (int(image.shape[1]), int(image.shape[2]))
        tiles = tiles_of(size, self.tile, self.overlap)
        if len(tiles) == 1:
            return best_detections(self._seen([image], [ImageGeometry(size)]), self.max_per_img)
        whole = [self._of_whole(image, size)] if self.full_image else []
        rows = [
            self._of_tiles(image, tiles[first : first + self.batch_size], whole)
            for first in range(0, len(tiles), self.batch_size)
        ]
        return self.merger([_one_after_the_other(rows), *whole], max_per_img=self.max_per_img)

    def _of_tiles(self, image: Tensor, tiles: Sequence[Tile], whole: Sequence[Detections]) -> Detections:
        height, width = int(image.shape[1]), int(image.shape[2])
        cuts = [image[:, y.start : y.end, x.start : x.end] for y, x in tiles]
        ways = [ImageGeometry((height, width), origin=(float(x.start), float(y.start))) for y, x in tiles]
        found = self._seen(cuts, ways)
        dropped = cut_off(found.boxes, tiles, self.border)
        for view in whole:
            inside = pairwise_overlap(found.boxes, view.boxes, "iof") >= self.part_thr
            inside &= found.labels[..., None] == view.labels[:, None]
            parts = (inside & view.valid[:, None]).any(-1)
            dropped |= parts & ends_at_a_border(found.boxes, tiles, self.border)
        return found.replace(valid=found.valid & ~dropped)

    def _of_whole(self, image: Tensor, size: tuple[int, int]) -> Detections:
        limit = self.full_size or self.tile
        factor = min(1.0, limit[0] / size[0], limit[1] / size[1])
        height, width = (max(1, round(edge * factor)) for edge in size)
        scale = (width / size[1], height / size[0])
        return self._seen([_shrunk(image, (height, width))], [ImageGeometry(size, scale=scale)])

    def _seen(self, images: list[Tensor], ways: list[ImageGeometry]) -> Detections:
        batch = self.detector.preprocess(images, ways)
        return self.detector.predict(batch).to_original(batch)

    def _nothing(self, batch: ImageBatch) -> Detections:
        rows = (len(batch), self.max_per_img)
        zeros = torch.zeros(rows, device=batch.pixels.device)
        return Detections(zeros[..., None].expand(*rows, 4), zeros, zeros.long(), zeros.bool())


def _one_after_the_other(rows: Sequence[Detections]) -> Detections:
    """The valid detections of several tiles as those of one image."""

    def column(name: str) -> Tensor:
        return torch.cat([getattr(own, name)[own.valid] for own in rows])[None]

    return Detections(
        boxes=column("boxes"),
        scores=column("scores"),
        labels=column("labels"),
        valid=column("valid"),
        masks=None if rows[0].masks is None else column("masks"),
        image_sizes=None if rows[0].image_sizes is None else rows[0].image_sizes[:1],
    )


def _stacked(found: Sequence[Detections], batch: ImageBatch) -> Detections:
    """The detections of the images as a batch; masks where all have some of one resolution."""
    masks = [own.masks for own in found if own.masks is not None]
    alike = len(masks) == len(found) and len({own.shape[2:] for own in masks}) == 1
    return Detections(
        boxes=torch.cat([own.boxes for own in found]),
        scores=torch.cat([own.scores for own in found]),
        labels=torch.cat([own.labels for own in found]),
        valid=torch.cat([own.valid for own in found]),
        masks=torch.cat(masks) if alike else None,
        image_sizes=batch.sizes,
    )


def _shrunk(image: Tensor, size: tuple[int, int]) -> Tensor:
    """An image at another size, averaged over what is left out; in its own dtype."""
    if size == (int(image.shape[1]), int(image.shape[2])):
        return image
    scaled = F.interpolate(image[None].float(), size, mode="bilinear", align_corners=False, antialias=True)[0]
    return scaled if image.is_floating_point() else scaled.round().clamp(0, 255).to(image.dtype)
