"""Instance masks of a batch, stored as crops to their own extent.

A pixel (row r, column c) covers the square from (x, y) = (c, r) to (c + 1, r + 1), so its centre lies at
(c + 0.5, r + 0.5). Whatever lies outside a mask's crop is zero.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from detcore.errors import DataError
from detcore.resampling import CHUNK, axis_weights, most_samples


@dataclass(frozen=True)
class Masks:
    """Binary masks of a batch, each kept as the crop to its own extent (a dense [B, M, H, W] is gigabytes).

    Shape letters: B images, M padded ground truths, P pairs of a box (or S points) and a ground truth.

    Args:
        values: The crops of all images one after another, row-major, 0 or 1.
        offsets: Where each mask's crop starts in ``values``.
        sizes: (h, w) of each crop in pixels; zeros in padded rows and for empty masks.
        origins: (x, y) of each crop's corner in the image, in pixels.
        image_size: (h, w) of the batch's images in pixels; smaller images are padded at the right and bottom.
    """

    values: UInt8[Tensor, "T"]
    offsets: Int[Tensor, "B M"]
    sizes: Int[Tensor, "B M 2"]
    origins: Int[Tensor, "B M 2"]
    image_size: tuple[int, int]

    @classmethod
    def stack(cls, images: Sequence[Bool[Tensor, "n h w"]], rows: int) -> Self:
        """Crops the masks of each image to their extent, without loss, and pads them to ``rows`` rows.

        Args:
            images: Per image the masks of its n objects; n and the size (h, w) may differ, n may be 0.
            rows: Rows per image M, at least the largest n.

        Raises:
            DataError: An entry is not [n, h, w], or has more than ``rows`` masks.
        """
        crops = [_crops(_checked(i, masks, rows)) for i, masks in enumerate(images)]
        device = crops[0][0].device if crops else torch.device("cpu")
        sizes = torch.zeros((len(images), rows, 2), dtype=torch.int64, device=device)
        origins = torch.zeros_like(sizes)
        for i, (_, size, origin) in enumerate(crops):
            sizes[i, : len(size)], origins[i, : len(origin)] = size, origin
        pixels = sizes.prod(-1).flatten()
        return cls(
            values=torch.cat([values for values, _, _ in crops]) if crops else sizes.new_zeros(0).byte(),
            offsets=(pixels.cumsum(0) - pixels).reshape(len(images), rows),
            sizes=sizes,
            origins=origins,
            image_size=(
                max((m.shape[1] for m in images), default=0),
                max((m.shape[2] for m in images), default=0),
            ),
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """A copy whose tensors are on ``device``."""
        names = ("values", "offsets", "sizes", "origins")
        return dataclasses.replace(
            self, **{name: getattr(self, name).to(device, non_blocking=non_blocking) for name in names}
        )

    def padded(self, more: int) -> Self:
        """The same masks with ``more`` rows of padding for each image."""
        return dataclasses.replace(
            self,
            offsets=F.pad(self.offsets, (0, more)),
            sizes=F.pad(self.sizes, (0, 0, 0, more)),
            origins=F.pad(self.origins, (0, 0, 0, more)),
        )

    def pad_to(self, size: tuple[int, int]) -> Self:
        """The same masks in images that are padded to (h, w) = ``size`` pixels at the right and bottom.

        Raises:
            ValueError: ``size`` is smaller than the images.
        """
        if size[0] < self.image_size[0] or size[1] < self.image_size[1]:
            raise ValueError(
                f"size should be at least {self.image_size}, that of the images, got {tuple(size)}"
            )
        return dataclasses.replace(self, image_size=(int(size[0]), int(size[1])))

    @torch.no_grad()
    def crop(
        self,
        boxes: Float[Tensor, "*P 4"],
        gt_index: Int[Tensor, "*P"],
        size: tuple[int, int] | int,
        image: Int[Tensor, "*P"] | None = None,
    ) -> Float[Tensor, "*P h w"]:
        """The mask of a ground truth inside a box, resampled to ``size``: what mask heads regress to.

        The numbers are those of ``roi_align(dense, boxes, size, sampling_ratio=0, aligned=True)``: each cell
        is the mean over ceil(box / size) bilinear samples per axis. They are soft, 0..1; threshold at 0.5 for
        binary targets. Boxes without extent, or not finite, give zeros.

        Args:
            boxes: xyxy in pixels, [B, P, 4]; or [n, 4] where ``image`` is given.
            gt_index: Row of the ground truth of each box, [B, P] or [n].
            size: (h, w) of the result, or one number for both, in cells.
            image: Image of each box, where the boxes are gathered from several images [n].
        """
        out = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        rows = self._rows(gt_index, image).flatten()
        if boxes.dtype != torch.float64:
            boxes = boxes.float()
        flat = boxes.reshape(-1, 4)
        result = flat.new_zeros((len(flat), *out))
        # Chunks of masks of like size: the sizes are needed on the host, once per call; callers have
        # synchronised already, to gather their positives.
        sizes = self.sizes.reshape(-1, 2)[rows]
        for chosen, extent in _chunks(sizes, most_samples(flat, out, self.image_size), max(out)):
            result[chosen] = self._crop_chunk(flat[chosen], rows[chosen], out, extent)
        return result.reshape(*gt_index.shape, *out)

    def sample(
        self,
        points: Float[Tensor, "*P S 2"],
        gt_index: Int[Tensor, "*P"],
        image: Int[Tensor, "*P"] | None = None,
    ) -> Float[Tensor, "*P S"]:
        """The masks at points, bilinear between the pixels' centres, zero outside.

        The numbers are those of ``grid_sample(dense, 2 * points / (W, H) - 1, align_corners=False)``: at a
        pixel's centre (c + 0.5, r + 0.5) the value is that pixel's own. Points not finite lie outside.

        Args:
            points: (x, y) in pixels, [B, P, S, 2]; or [n, S, 2] where ``image`` is given.
            gt_index: Row of the ground truth whose mask is read, [B, P] or [n].
            image: Image of each row of points, where they are gathered from several images [n].
        """
        rows = self._rows(gt_index, image)[..., None]
        if points.dtype != torch.float64:
            points = points.float()
        points = points.where(points.isfinite(), -1.0)
        position = points - 0.5  # in units of pixels, whole at the centres
        corner = position.detach().floor()
        ahead = position - corner
        result = torch.zeros_like(points[..., 0])
        for right in (0, 1):
            for down in (0, 1):
                weight_x = ahead[..., 0] if right else 1 - ahead[..., 0]
                weight_y = ahead[..., 1] if down else 1 - ahead[..., 1]
                pixel = self._read(rows, corner[..., 1] + down, corner[..., 0] + right)
                result = result + weight_x * weight_y * pixel
        return result

    def areas(self) -> Int[Tensor, "B M"]:
        """Pixels of each mask; 0 in padded rows."""
        before = F.pad(self.values.cumsum(0, dtype=torch.int64), (1, 0))
        return before[self.offsets + self.sizes.prod(-1)] - before[self.offsets]

    def dense(self, stride: int = 1) -> Bool[Tensor, "B M h w"]:
        """Whole images of ceil(H / stride) x ceil(W / stride) cells; the only method that materialises them.

        Args:
            stride: Cell (r, c) of the result is the pixel at (r, c) * stride + stride // 2: the one at the
                cell's centre (just behind it where the stride is even); False where outside the image.

        Raises:
            ValueError: ``stride`` is not positive.
        """
        if stride < 1:
            raise ValueError(f"stride should be a positive integer, got {stride!r}")
        device = self.values.device
        height, width = (-(-extent // stride) for extent in self.image_size)
        y = (torch.arange(height, device=device) * stride + stride // 2)[:, None]
        x = torch.arange(width, device=device) * stride + stride // 2
        rows = torch.arange(self.offsets.numel(), device=device)
        result = torch.zeros((len(rows), height, width), dtype=torch.bool, device=device)
        step = max(1, CHUNK // max(1, height * width))
        for start in range(0, len(rows), step):
            chunk = rows[start : start + step, None, None]
            result[start : start + step] = self._read(chunk, y, x) > 0
        return result.reshape(*self.offsets.shape, height, width)

    def _rows(self, gt_index: Tensor, image: Tensor | None) -> Tensor:
        """Positions in the flattened [B M] of the ground truths."""
        if image is None:
            image = torch.arange(self.offsets.shape[0], device=gt_index.device)[:, None]
        return image * self.offsets.shape[1] + gt_index

    def _read(self, rows: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """Pixels (y, x) of the images, in the masks ``rows``; 0 outside. All three broadcast."""
        sizes, origins = self.sizes.reshape(-1, 2)[rows], self.origins.reshape(-1, 2)[rows]
        y, x = y - origins[..., 1], x - origins[..., 0]
        inside = (y >= 0) & (y < sizes[..., 0]) & (x >= 0) & (x < sizes[..., 1])
        if not self.values.numel():
            return inside.to(self.values.dtype)
        # Clamped before the conversion (far points fit into no integer) and before broadcasting (cheaper).
        y = y.minimum(sizes[..., 0] - 1).clamp(min=0).long()
        x = x.minimum(sizes[..., 1] - 1).clamp(min=0).long()
        first = self.offsets.flatten()[rows].clamp(max=len(self.values) - 1)
        return self.values.take((first + y * sizes[..., 1]) + x) * inside

    def _crop_chunk(
        self, boxes: Tensor, rows: Tensor, out: tuple[int, int], extent: tuple[int, int]
    ) -> Tensor:
        """Resamples as two matrix products, since bilinear weights are the products of those of the axes."""
        origins = self.origins.reshape(-1, 2)[rows]
        y = torch.arange(extent[0], device=rows.device)[:, None] + origins[:, None, None, 1]
        x = torch.arange(extent[1], device=rows.device) + origins[:, None, None, 0]
        pixels = self._read(rows[:, None, None], y, x).to(boxes.dtype)
        along_y = axis_weights(boxes[:, 1], boxes[:, 3], out[0], self.image_size[0], origins[:, 1], extent[0])
        along_x = axis_weights(boxes[:, 0], boxes[:, 2], out[1], self.image_size[1], origins[:, 0], extent[1])
        with torch.autocast(boxes.device.type, enabled=False):
            return along_y @ pixels @ along_x.mT


def _checked(index: int, masks: Tensor, rows: int) -> Tensor:
    if masks.dim() != 3:
        raise DataError(f"targets[{index}]: masks should have shape [n, h, w], got {list(masks.shape)}")
    if len(masks) > rows:
        raise DataError(f"targets[{index}]: {len(masks)} masks do not fit into {rows} rows")
    return masks.bool()


def _crops(masks: Bool[Tensor, "n h w"]) -> tuple[UInt8[Tensor, "T"], Int[Tensor, "n 2"], Int[Tensor, "n 2"]]:
    """The pixels of all crops one after another, their sizes (h, w) and origins (x, y)."""
    first_y, last_y = _span(masks.any(2))
    first_x, last_x = _span(masks.any(1))
    y = torch.arange(masks.shape[1], device=masks.device)
    x = torch.arange(masks.shape[2], device=masks.device)
    inside_y = (y >= first_y[:, None]) & (y < last_y[:, None])
    inside_x = (x >= first_x[:, None]) & (x < last_x[:, None])
    values = masks[inside_y[:, :, None] & inside_x[:, None, :]].to(torch.uint8)
    return values, torch.stack((last_y - first_y, last_x - first_x), -1), torch.stack((first_x, first_y), -1)


def _span(occupied: Bool[Tensor, "n L"]) -> tuple[Int[Tensor, "n"], Int[Tensor, "n"]]:
    """First and one past the last True of each row; 0 and 0 where there is none."""
    length = occupied.shape[1]
    place = torch.arange(length, device=occupied.device).expand_as(occupied)
    if not length:
        return place.sum(1), place.sum(1)
    last = (place + 1).where(occupied, 0).amax(1)
    return place.where(occupied, length).amin(1).minimum(last), last


def _chunks(
    sizes: Int[Tensor, "n 2"], samples: Int[Tensor, "n"], cells: int
) -> Iterator[tuple[Int[Tensor, "k"], tuple[int, int]]]:
    """Groups of masks of like size and the (h, w) that holds each of the group; empty masks are in none."""
    order = sizes.prod(-1).argsort()
    needs = torch.cat((sizes, samples[:, None]), 1)[order].tolist()
    chosen: list[int] = []
    most = (0, 0, 0)
    for place, need in zip(order.tolist(), needs, strict=True):
        if not need[0] * need[1]:
            continue
        height, width, sampled = map(max, most, need)
        if chosen and (len(chosen) + 1) * (height * width + cells * (height + width) + sampled) > CHUNK:
            yield torch.tensor(chosen, device=sizes.device), most[:2]
            chosen, (height, width, sampled) = [], need
        chosen.append(place)
        most = (height, width, sampled)
    if chosen:
        yield torch.tensor(chosen, device=sizes.device), most[:2]
