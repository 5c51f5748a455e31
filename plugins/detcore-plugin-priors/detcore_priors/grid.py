"""What generators on a grid share: base boxes repeated in each cell, kept between calls, valid per image."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detcore.errors import ConfigError
from detcore.structures import ImageBatch, PriorLevel, Priors

#: x1, y1, x2, y2 in pixels, relative to a cell's top left corner.
BaseBox = tuple[float, float, float, float]
#: An integer where the strides in x and y are the same, else (x, y).
Stride = int | tuple[int, int]


def stride_pairs(strides: Sequence[Stride]) -> tuple[tuple[int, int], ...]:
    """Strides as (x, y) pairs.

    Args:
        strides: Pixels per cell; an integer counts for x and y.
    """
    return tuple((s, s) if isinstance(s, int) else s for s in strides)


@dataclass(frozen=True)
class Grid:
    """The priors of one set of level sizes on one device, for whichever batch.

    Args:
        boxes: All levels, xyxy in pixels.
        strides: (x, y) of each prior's level, in pixels.
        corner_x: Left edge of each prior's cell, in pixels.
        corner_y: Top edge of each prior's cell, in pixels.
        levels: The grids, in order.
    """

    boxes: Float[Tensor, "N 4"]
    strides: Float[Tensor, "N 2"]
    corner_x: Int[Tensor, "N"]
    corner_y: Int[Tensor, "N"]
    levels: tuple[PriorLevel, ...]

    def valid(self, padded_sizes: Int[Tensor, "B 2"]) -> Bool[Tensor, "B N"]:
        """Which priors sit in cells that an image reaches.

        A level has ceil(size / stride) such cells per axis, at most its own number: exactly the cells whose
        corner lies before the image's end.
        """
        height, width = padded_sizes.to(self.corner_x.dtype).unsqueeze(-1).unbind(1)
        return (self.corner_x < width) & (self.corner_y < height)

    @property
    def version(self) -> tuple[int, int]:
        """Changes when somebody writes into the tensors that callers get."""
        return self.boxes._version, self.strides._version


class GridCache:
    """The grids used last; a copy or a pickle of it is empty.

    A grid that a caller has written into is not given out again.

    Args:
        size: How many grids are kept; with 200,000 priors each takes about 6 MB.
    """

    def __init__(self, size: int = 8) -> None:
        self.size = size
        self._entries: OrderedDict[Hashable, tuple[Grid, tuple[int, int]]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def __reduce__(self) -> tuple[type[GridCache], tuple[int]]:
        return GridCache, (self.size,)

    def get(self, key: Hashable, make: Callable[[], Grid]) -> Grid:
        """The grid kept under ``key``, or the one that ``make`` gives."""
        with self._lock:
            found = self._entries.get(key)
            if found is not None and found[0].version == found[1]:
                self._entries.move_to_end(key)
                return found[0]
            # Tensors made in inference mode could not be saved for a backward pass, nor tell their version.
            with torch.inference_mode(False), torch.no_grad():
                grid = make()
            self._entries[key] = (grid, grid.version)
            self._entries.move_to_end(key)
            while len(self._entries) > self.size:
                self._entries.popitem(last=False)
            return grid


class PriorGrid:
    """The same base boxes in every cell of a level, for every level of a pyramid.

    Grids are kept by level sizes and device, so that a repeated call costs only the validity of the batch.
    Callers share these tensors and must not write into them; a grid that was written into is made anew for
    the next call.

    Args:
        base: By level, the boxes of a cell xyxy in pixels, relative to the cell's top left corner.
        strides: By level, pixels per cell (x, y).
        owner: Name of the generator, for messages.
    """

    def __init__(
        self, base: Sequence[Sequence[BaseBox]], strides: Sequence[tuple[int, int]], owner: str = "PriorGrid"
    ) -> None:
        if len(base) != len(strides):
            raise ConfigError(f"got base boxes for {len(base)} levels and {len(strides)} strides", owner)
        self.base = tuple(tuple(boxes) for boxes in base)
        self.strides = tuple(strides)
        self.owner = owner
        self.cache = GridCache()

    def __call__(
        self,
        level_sizes: Sequence[tuple[int, int]],
        batch: ImageBatch,
        steps: tuple[tuple[int, int], ...] | None = None,
    ) -> Priors:
        """The priors of a batch.

        Args:
            level_sizes: (h, w) in cells, by level; a level may be empty.
            batch: Gives the device and, by ``padded_sizes``, the priors' validity.
            steps: Distance (x, y) of neighbouring cells, by level; the strides where None.

        Raises:
            ConfigError: The number of levels is not that of the strides.
        """
        if len(level_sizes) != len(self.strides):
            raise ConfigError(
                f"got {len(level_sizes)} feature levels but has {len(self.strides)} strides "
                f"{list(self.strides)}; give one stride per level of the pyramid",
                self.owner,
            )
        sizes, pixels = tuple((h, w) for h, w in level_sizes), batch.pixels
        # tensors that are traced or fake are not for keeping
        distances = self.strides if steps is None else steps
        if torch.compiler.is_compiling() or type(pixels) is not Tensor:
            grid = self._lay_out(sizes, distances, pixels.device)
        else:
            key = (sizes, distances, pixels.device)
            grid = self.cache.get(key, lambda: self._lay_out(sizes, distances, pixels.device))
        return Priors(grid.boxes, grid.strides, grid.levels, grid.valid(batch.padded_sizes))

    def _lay_out(
        self,
        sizes: tuple[tuple[int, int], ...],
        steps: tuple[tuple[int, int], ...],
        device: torch.device,
    ) -> Grid:
        boxes, strides, corners, levels = [], [], [], []
        for (h, w), base, (step_x, step_y) in zip(sizes, self.base, steps, strict=True):
            x = torch.arange(w, device=device, dtype=torch.int32) * step_x
            y = torch.arange(h, device=device, dtype=torch.int32) * step_y
            corner = torch.stack((x.expand(h, w), y[:, None].expand(h, w)), dim=-1)  # [h, w, 2]
            in_cell = torch.tensor(base, dtype=torch.float32, device=device).reshape(-1, 4)  # [A, 4]
            levels.append(PriorLevel(h, w, len(base), (float(step_x), float(step_y))))
            boxes.append((corner.repeat(1, 1, 2)[:, :, None] + in_cell).reshape(-1, 4))
            corners.append(corner[:, :, None].expand(h, w, len(base), 2).reshape(-1, 2))
            stride = torch.tensor((step_x, step_y), dtype=torch.float32, device=device)
            strides.append(stride.expand(h * w * len(base), 2))
        corner_x, corner_y = torch.cat(corners).unbind(-1)
        return Grid(
            torch.cat(boxes), torch.cat(strides), corner_x.contiguous(), corner_y.contiguous(), tuple(levels)
        )
