"""The choice of candidates: (prior, class) pairs above a score, the best of each level.

Ties are broken by index: the first prior wins, then the first class. That makes the choice the same on every
device, in every batch, and both ways in which it is made here: eager mode looks at the pairs above the
threshold only, of which there are few; the compiler needs fixed shapes and gets a top-k over all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detcore.errors import ConfigError
from detcore_postprocess.onnx import wants_onnx

#: Pairs of a level above the threshold, over the batch, beyond which a top-k precedes the sorting.
CROWD = 1 << 20
_INDEX_BITS = 32
_LAST_INDEX = (1 << _INDEX_BITS) - 1


class Candidates(NamedTuple):
    """(prior, class) pairs of each image, padded to T; by level, then by descending score.

    Args:
        prior: Index of the prior, 0 in padded rows.
        label: Class, 0 in padded rows.
        score: 0 in padded rows.
        valid: Which rows are candidates rather than padding.
    """

    prior: Int[Tensor, "B T"]
    label: Int[Tensor, "B T"]
    score: Float[Tensor, "B T"]
    valid: Bool[Tensor, "B T"]

    def scored(self, score: Float[Tensor, "B T"]) -> Candidates:
        """The same with other scores; ``_replace`` cannot be compiled by torch 2.8."""
        return Candidates(self.prior, self.label, score, self.valid)


def select_candidates(
    scores: Float[Tensor, "B N K"],
    *,
    score_thr: float = 0.0,
    nms_pre: int | None = None,
    levels: Sequence[int] = (),
    valid: Bool[Tensor, "B N"] | None = None,
    fixed_shape: bool = False,
) -> Candidates:
    """The pairs whose score is above ``score_thr``, at most the best ``nms_pre`` of each level and image.

    Args:
        scores: Not negative. A pair whose score is NaN is no candidate.
        score_thr: Scores must be greater, not equal.
        nms_pre: Most pairs per level and image; all where None.
        levels: Priors per level; one level where empty.
        valid: Priors that take part; all where None.
        fixed_shape: Whether to give ``nms_pre`` rows for each level, padded, as under the compiler: the same
            choice, in less time where most pairs are above the threshold.

    Raises:
        ConfigError: ``levels`` do not add up to N.
    """
    levels = tuple(levels) or (scores.shape[1],)
    if sum(levels) != scores.shape[1]:
        raise ConfigError(
            f"levels {list(levels)} add up to {sum(levels)} priors, "
            f"but there are scores for {scores.shape[1]}",
            "select_candidates",
        )
    above = scores > score_thr
    if valid is not None:
        above &= valid[..., None]
    if fixed_shape or torch.compiler.is_compiling():
        return _select_dense(scores, above, levels, nms_pre)
    return _select_sparse(scores, above, levels, nms_pre)


def _bounds(levels: Sequence[int]) -> Iterator[tuple[int, int]]:
    start = 0
    for count in levels:
        yield start, start + count
        start += count


# ------------------------------------------------------------------------------------------------- eager mode


def _select_sparse(scores: Tensor, above: Tensor, levels: Sequence[int], nms_pre: int | None) -> Candidates:
    """The choice among what is above the threshold; T is the most that an image has."""
    if nms_pre is not None and _at_most(above) > CROWD:
        for start, end in _bounds(levels):
            if above[:, start:end].count_nonzero() > CROWD:
                above[:, start:end] = _best(scores[:, start:end], above[:, start:end], nms_pre)
    pair = _nonzero(above)
    score = scores.take(pair)
    row, label = pair // scores.shape[2], pair % scores.shape[2]
    image, prior = row // scores.shape[1], row % scores.shape[1]
    level = torch.bucketize(prior, torch.tensor(levels, device=prior.device).cumsum(0), right=True)
    group = image * len(levels) + level
    order = _by_group_and_score(group, score)
    if nms_pre is not None:
        order = order[rank_in_group(group[order]) < nms_pre]
    return _pad(image[order], prior[order], label[order], score[order], len(scores))


def _eights(flags: Bool[Tensor, "*S"]) -> tuple[Int[Tensor, "E"], Bool[Tensor, "R"]]:
    """All flags in order: eight of them as one number, and the up to seven that are left."""
    flat = flags.reshape(-1)
    whole = len(flat) // 8 * 8
    return flat[:whole].view(torch.int64), flat[whole:]


def _at_most(flags: Bool[Tensor, "*S"]) -> int:
    """A number that is not below that of the flags that are set, and not above eight times that number and seven."""
    eights, rest = _eights(flags)
    return 8 * int(eights.count_nonzero()) + len(rest)


def _nonzero(flags: Bool[Tensor, "*S"]) -> Int[Tensor, "P"]:
    """Where flags are set, counted over all dimensions, ascending. Quick where few are: most are read as eights."""
    eights, rest = _eights(flags)
    some = eights.nonzero().squeeze(1)
    which, flag = eights[some].view(torch.bool).view(-1, 8).nonzero(as_tuple=True)
    last = rest.nonzero().squeeze(1) + 8 * len(eights)
    return torch.cat((8 * some[which] + flag, last))


def _by_group_and_score(group: Int[Tensor, "P"], score: Float[Tensor, "P"]) -> Int[Tensor, "P"]:
    """The order by ascending group, in it by descending score, in that as they come."""
    if score.dtype == torch.float64:
        order = score.argsort(descending=True, stable=True)
        return order[group[order].argsort(stable=True)]
    # one sorting instead of two: the bits of floats that are not negative ascend as they do
    bits = score.float().view(torch.int32).long()
    return ((group << _INDEX_BITS) - bits).argsort(stable=True)


def _best(scores: Float[Tensor, "B n K"], above: Bool[Tensor, "B n K"], count: int) -> Bool[Tensor, "B n K"]:
    """The best ``count`` of what is ``above`` in each image, of equal ones the first."""
    shape = scores.shape
    scores, above = scores.flatten(1), above.flatten(1)
    count = min(count, scores.shape[1])
    last = scores.masked_fill(~above, -1).topk(count).values[:, -1:]
    better = above & (scores > last)
    equal = above & (scores == last)
    room = count - better.sum(1, keepdim=True)
    equal &= equal.cumsum(1, dtype=torch.int32) <= room
    return (better | equal).reshape(shape)


def rank_in_group(groups: Int[Tensor, "P"]) -> Int[Tensor, "P"]:
    """Position of each row within its group; the groups ascend."""
    return torch.arange(len(groups), device=groups.device) - torch.searchsorted(groups, groups)


def _pad(image: Tensor, prior: Tensor, label: Tensor, score: Tensor, batch: int) -> Candidates:
    """Rows of ascending images as [B, T]."""
    slot = rank_in_group(image)
    width = int(slot.max()) + 1 if len(slot) else 0
    valid = torch.zeros(batch, width, dtype=torch.bool, device=image.device)
    valid[image, slot] = True

    def table(values: Tensor) -> Tensor:
        return values.new_zeros(batch, width).masked_scatter_(valid, values)

    return Candidates(table(prior), table(label), table(score), valid)


# ----------------------------------------------------------------------------------------- under the compiler


def _select_dense(scores: Tensor, above: Tensor, levels: Sequence[int], nms_pre: int | None) -> Candidates:
    """The choice in fixed shapes: ``nms_pre`` rows for each level. Scores are compared in float32."""
    pieces = [
        _best_of_level(scores[:, start:end], above[:, start:end], start, nms_pre)
        for start, end in _bounds(levels)
    ]
    return Candidates(*(torch.cat(column, dim=1) for column in zip(*pieces, strict=True)))


def _best_of_level(scores: Tensor, above: Tensor, start: int, nms_pre: int | None) -> Candidates:
    classes = scores.shape[2]
    flat, above = scores.flatten(1), above.flatten(1)
    size = flat.shape[1]
    if wants_onnx():  # its top-k breaks ties by index
        found = flat.masked_fill(~above, -1).topk(size if nms_pre is None else min(nms_pre, size))
        valid = found.values >= 0
        index = torch.where(valid, found.indices, 0)
        prior = torch.where(valid, start + index // classes, 0)
        return Candidates(prior, index % classes, torch.where(valid, found.values, 0), valid)
    # The bits of floats that are not negative ascend as they do; with the index below, no two keys are equal.
    bits = flat.float().view(torch.int32).long() << _INDEX_BITS
    keys = torch.where(above, bits | (_LAST_INDEX - torch.arange(size, device=flat.device)), -1)
    keys = keys.topk(size if nms_pre is None else min(nms_pre, size)).values
    valid = keys >= 0
    index = torch.where(valid, _LAST_INDEX - (keys & _LAST_INDEX), 0)
    prior = torch.where(valid, start + index // classes, 0)
    score = torch.where(valid, flat.gather(1, index), 0)
    return Candidates(prior, index % classes, score, valid)
