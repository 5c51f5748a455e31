"""Collecting (prior, class) pairs piece by piece, as :class:`~detcore.structures.Pairs`."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from detcore.structures import Pairs


class ClassPairs:
    """Pairs of a prior and a class, each with the first ground truth that made it.

    One pair per class, however many ground truths of it there are: never more pairs than logits. Their number
    depends on the data, so it waits for the device; compiled, every prior and ground truth have a row.

    Args:
        labels: Classes of the ground truths.
    """

    def __init__(self, labels: Int[Tensor, "B M"]) -> None:
        self.labels = labels
        self._dense_rows: list[tuple[Tensor, Tensor, Tensor]] = []
        # image, prior and row; grown by doubling: a list of small results kept between large temporaries would
        # keep the heap from reusing those
        self._found, self._count = labels.new_zeros((3, 1024)), 0

    def add(self, flags: Bool[Tensor, "B M n"], start: int) -> None:
        """Pairs of the ground truths and priors ``start`` to ``start`` + n."""
        if torch.compiler.is_compiling():
            self._dense_rows.append(self._dense(flags, start))
            return
        count = flags.shape[2]
        image, prior, row = flags.transpose(1, 2).nonzero(as_tuple=True)
        classes = self.labels.amax() + 1 if self.labels.numel() else 1
        key = (image * count + prior) * classes + self.labels[image, row]
        kinds, kind = torch.unique(key, return_inverse=True)
        order = torch.arange(len(key), device=key.device)
        first = torch.full_like(kinds, len(key)).scatter_reduce(0, kind, order, "amin")
        stop = self._count + len(first)
        if stop > self._found.shape[1]:
            grown = self._found.new_zeros((3, max(stop, 2 * self._found.shape[1])))
            grown[:, : self._count] = self._found[:, : self._count]
            self._found = grown
        self._found[:, self._count : stop] = torch.stack((image[first], prior[first] + start, row[first]))
        self._count = stop

    def stacked(self) -> Pairs:
        """All pairs, padded to the image that has the most."""
        images = len(self.labels)
        if torch.compiler.is_compiling():
            none = self.labels.new_zeros((images, 0))
            columns = zip(*self._dense_rows, strict=True) if self._dense_rows else ((none,), (none,), (none,))
            prior, gt, valid = (torch.cat(column, dim=1) for column in columns)
            return Pairs(prior, gt, valid.bool())
        a, b, c = self._found[:, : self._count]
        image, order = a.sort(stable=True)
        counts = torch.bincount(image, minlength=images)
        place = torch.arange(len(image), device=image.device) - (counts.cumsum(0) - counts)[image]
        prior = image.new_zeros((images, int(counts.amax()) if images else 0))
        gt, valid = torch.zeros_like(prior), torch.zeros_like(prior, dtype=torch.bool)
        prior[image, place], gt[image, place], valid[image, place] = b[order], c[order], True
        return Pairs(prior, gt, valid)

    def _dense(self, flags: Bool[Tensor, "B M n"], start: int) -> tuple[Tensor, Tensor, Tensor]:
        """Prior, ground truth and validity of all rows."""
        _, rows, count = flags.shape
        same = (self.labels[:, :, None] == self.labels[:, None]).tril(-1)  # with earlier ones
        first = flags & ((same.float() @ flags.float()) == 0)
        prior = torch.arange(start, start + count, device=flags.device).expand(flags.shape)
        row = torch.arange(rows, device=flags.device)[:, None].expand(flags.shape)
        return prior.flatten(1), row.flatten(1), first.flatten(1).long()
