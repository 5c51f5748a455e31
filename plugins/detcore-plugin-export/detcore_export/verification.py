"""Whether a file gives what the detector gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from detcore_export.errors import ExportMismatchError

#: Runs a file, or the detector itself: images [B, 3, H, W] (and sizes) to outputs by name.
Runner = Callable[..., Mapping[str, Tensor]]


@dataclass(frozen=True)
class Tolerance:
    """By how much outputs may differ. Labels and the number of detections may not.

    Args:
        boxes: Pixels.
        scores: Probability.
        masks: Probability per cell.
    """

    boxes: float = 0.01
    scores: float = 1e-4
    masks: float = 1e-3


@dataclass(frozen=True)
class Comparison:
    """One run of the file beside the detector.

    Args:
        batch: Number of images.
        size: Their (h, w), in pixels.
        detections: How many the detector found.
        differences: Largest difference by output.
    """

    batch: int
    size: tuple[int, int]
    detections: int
    differences: dict[str, float]


def compare(
    want: Mapping[str, Tensor], got: Mapping[str, Tensor], size: tuple[int, int], tolerance: Tolerance
) -> Comparison:
    """Compares the outputs of one run.

    Detections are compared as a set per image, since scores that are equal but for rounding may change places. One
    that only one side has is accepted where its score is that of the image's last one: rounding decides which of
    them stays.

    Raises:
        ExportMismatchError: They differ by more than the tolerance.
    """
    batch = len(want["boxes"])
    where = f"in a batch of {batch} images of {size[0]}x{size[1]} pixels"
    if set(want) != set(got):
        raise ExportMismatchError(f"the file has the outputs {sorted(got)}, the detector {sorted(want)}")
    for name, wanted in want.items():
        if got[name].shape != wanted.shape or got[name].dtype != wanted.dtype:
            raise ExportMismatchError(
                f"output {name!r} has shape {list(got[name].shape)} of {got[name].dtype} {where}, the detector's "
                f"{list(wanted.shape)} of {wanted.dtype}"
            )
    differences = {field.name: 0.0 for field in fields(tolerance) if field.name in want}
    for image in range(batch):
        rows = {name: (values[image], got[name][image]) for name, values in want.items()}
        _compare_image(rows, f"in image {image} {where}", tolerance, differences)
    return Comparison(batch, size, int(want["valid"].sum()), differences)


def _compare_image(
    rows: Mapping[str, tuple[Tensor, Tensor]], where: str, tolerance: Tolerance, worst: dict[str, float]
) -> None:
    kept = tuple(valid.nonzero().squeeze(1) for valid in rows["valid"])
    wanted, found = ({name: pair[i][kept[i]] for name, pair in rows.items()} for i in (0, 1))
    partner = _partners(wanted, found, tolerance)
    last = min((float(side["scores"].min()) for side in (wanted, found) if len(side["scores"])), default=0.0)
    lonely = [
        (name, index, side)
        for name, side, indices in (
            ("the detector", wanted, (partner < 0).nonzero().flatten()),
            ("the file", found, _missing(partner, len(found["scores"]))),
        )
        for index in indices.tolist()
        if not float(side["scores"][index]) <= last + tolerance.scores
    ]
    if lonely:
        raise ExportMismatchError(_nearest(lonely[0], wanted, found, where, tolerance))
    own = (partner >= 0).nonzero().flatten()
    for name in worst:
        difference = (wanted[name][own] - found[name][partner[own]]).abs()
        worst[name] = max(worst[name], float(difference.max()) if difference.numel() else 0.0)
        if not worst[name] <= getattr(tolerance, name):
            raise ExportMismatchError(
                f"output {name!r} differs by {worst[name]:.3g} {where}; {getattr(tolerance, name):g} is tolerated"
            )


def _partners(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], tolerance: Tolerance) -> Tensor:
    """For each detection of the one side, that of the other which it is, or -1."""
    partner = torch.full((len(wanted["scores"]),), -1)
    if not len(found["scores"]) or not len(partner):
        return partner
    boxes = (wanted["boxes"][:, None] - found["boxes"]).abs().amax(-1)
    scores = (wanted["scores"][:, None] - found["scores"]).abs()
    possible = (boxes <= tolerance.boxes) & (scores <= tolerance.scores)
    possible &= wanted["labels"][:, None] == found["labels"]
    for row in range(len(partner)):
        choice = possible[row].nonzero().flatten()
        if len(choice):
            partner[row] = choice[0]
            possible[:, choice[0]] = False
    return partner


def _missing(partner: Tensor, count: int) -> Tensor:
    unused = torch.ones(count, dtype=torch.bool)
    unused[partner[partner >= 0]] = False
    return unused.nonzero().flatten()


def _nearest(
    lonely: tuple[str, int, Mapping[str, Tensor]],
    wanted: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    where: str,
    tolerance: Tolerance,
) -> str:
    """What to say of a detection that only one side has: by how much the other's most similar one differs."""
    name, index, side = lonely
    other = found if side is wanted else wanted
    score, label = float(side["scores"][index]), int(side["labels"][index])
    text = f"only {name} has a detection of label {label} with score {score:.4f} {where}"
    if not len(other["scores"]):
        return f"output 'valid' differs: {text}; the other finds nothing"
    boxes = (other["boxes"] - side["boxes"][index]).abs().amax(-1)
    near = int(boxes.nan_to_num(nan=torch.inf).argmin())
    differences = {
        "boxes": float(boxes[near]),
        "scores": abs(float(other["scores"][near]) - score),
        "labels": abs(int(other["labels"][near]) - label),
    }
    allowed = {"boxes": tolerance.boxes, "scores": tolerance.scores, "labels": 0}
    wrong = next((key for key in differences if not differences[key] <= allowed[key]), "valid")
    return (
        f"output {wrong!r} differs by {differences.get(wrong, 1):.3g}: {text}; the other's nearest differs by "
        f"{differences['boxes']:.3g} pixels and {differences['scores']:.3g} in the score; {tolerance.boxes:g} and "
        f"{tolerance.scores:g} are tolerated"
    )


def verify(
    reference: Runner,
    runner: Runner,
    cases: Sequence[tuple[Tensor, ...]],
    tolerance: Tolerance,
) -> tuple[Comparison, ...]:
    """Runs both on each case.

    Raises:
        ExportMismatchError: They differ, or the file cannot be run on a case.
    """
    done = []
    for case in cases:
        count, _, height, width = case[0].shape
        want = reference(*case)
        try:
            got = runner(*case)
        except Exception as cause:
            raise ExportMismatchError(
                f"the file cannot be run on a batch of {count} images of {height}x{width} pixels: {cause}"
            ) from cause
        done.append(compare(want, got, (height, width), tolerance))
    return tuple(done)


def made_up_images(count: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Pictures of noise and rectangles, uint8 [count, 3, h, w], in which an untrained eye may see objects."""
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    images = torch.randint(0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8)
    for image in images:
        for _ in range(8):
            y, x = (int(torch.randint(0, max(1, n - 8), (1,), generator=generator)) for n in (height, width))
            h, w = (int(torch.randint(8, max(9, n // 2), (1,), generator=generator)) for n in (height, width))
            colour = torch.randint(0, 256, (3, 1, 1), generator=generator, dtype=torch.uint8)
            image[:, y : y + h, x : x + w] = colour
    return images
