"""Checks of box coders.

``Subject.inputs`` may hold ``boxes``: a function from (priors, generator) to boxes that the coder can express
exactly; boxes near their prior else.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from detcore.interfaces import BBoxCoder
from detcore.structures import Priors
from detcore.testing.checking import Trial, check, probe
from detcore.testing.modules import compiled

STRIDE = 8.0


def _priors(trial: Trial, count: int = 40, dtype: torch.dtype = torch.float32) -> Priors:
    """Boxes of 16 to 64 pixels around the centres of cells of 8 pixels."""
    generator = trial.generator()
    centre = (torch.randint(4, 16, (count, 2), generator=generator) + 0.5) * STRIDE
    half = 8 + 24 * torch.rand(count, 2, generator=generator)
    trial.note(f"{count} priors at stride {STRIDE:g}, seed={trial.seed}")
    boxes = torch.cat((centre - half, centre + half), -1)
    return Priors(boxes.to(dtype), torch.full((count, 2), STRIDE, dtype=dtype))


def _boxes(trial: Trial, priors: Priors) -> Tensor:
    """Boxes whose centre lies in the prior's cell, with sides of 0.8 to 1.25 times the prior's."""
    generator = trial.generator().manual_seed(trial.seed + 1)
    if "boxes" in trial.subject.inputs:
        return trial.subject.inputs["boxes"](priors, generator)  # type: ignore[no-any-return]
    draw = torch.rand(*priors.boxes.shape[:-1], 4, generator=generator).to(priors.boxes.dtype)
    centre = priors.centers + (draw[..., :2] - 0.5) * 0.6 * STRIDE
    half = (priors.boxes[..., 2:] - priors.boxes[..., :2]) / 2 * (0.8 + 0.45 * draw[..., 2:])
    return torch.cat((centre - half, centre + half), -1)


def _codes(trial: Trial, coder: BBoxCoder, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = trial.generator().manual_seed(trial.seed + 2)
    return (0.2 + 0.6 * torch.rand(*shape, coder.code_size, generator=generator)).to(dtype)


@probe(BBoxCoder)
def code_once(coder: BBoxCoder, trial: Trial) -> Any:
    """Codes of ordinary boxes, and boxes of ordinary codes."""
    priors = _priors(trial)
    encoded = coder.encode(priors, _boxes(trial, priors))
    return encoded, coder.decode(priors, _codes(trial, coder, len(priors)))


@check(BBoxCoder, compares=True)
def coder_inverts(trial: Trial) -> None:
    """Decoding the codes of boxes near their priors gives the boxes."""
    coder = trial.component()
    if coder.target_size != coder.code_size:
        trial.skip("what it encodes is not what the network predicts")
    priors = _priors(trial)
    boxes = _boxes(trial, priors)
    back = coder.decode(priors, coder.encode(priors, boxes).values)
    trial.same(back, boxes, "decode(encode(boxes))", atol=1e-3)


@check(BBoxCoder)
def coder_sizes_are_true(trial: Trial) -> None:
    """Targets have ``target_size`` values, boxes 4, and weights the targets' shape."""
    coder = trial.component()
    priors = _priors(trial)
    encoded = coder.encode(priors, _boxes(trial, priors))
    wanted = (len(priors), coder.target_size)
    trial.require(
        encoded.values.shape == wanted, f"codes have shape {list(encoded.values.shape)}, not {wanted}"
    )
    if encoded.weights is not None:
        shape = list(encoded.weights.shape)
        trial.require(encoded.weights.shape == wanted, f"weights have shape {shape}, not {list(wanted)}")
    boxes = coder.decode(priors, _codes(trial, coder, len(priors)))
    trial.require(boxes.shape == (len(priors), 4), f"boxes have shape {list(boxes.shape)}")


@check(BBoxCoder, compares=True)
def coder_encode_broadcasts(trial: Trial) -> None:
    """Leading dimensions of priors and boxes broadcast in ``encode``."""
    coder = trial.component()
    priors = _priors(trial, 6)
    boxes = _boxes(trial, priors)
    wanted = [coder.encode(_row(priors, i), boxes[i : i + 1]).values for i in range(6)]
    trial.same(coder.encode(priors, boxes).values, torch.cat(wanted), "codes of six pairs at once")
    batch = torch.stack((boxes, boxes + 1))
    both = torch.stack([coder.encode(priors, item).values for item in batch])
    trial.same(coder.encode(priors, batch).values, both, "codes of [2, 6, 4] boxes, priors [6, 4]")
    every = coder.encode(Priors(priors.boxes[:, None], priors.strides[:, None]), boxes[None]).values
    repeated = torch.stack([coder.encode(_row(priors, i), boxes[i : i + 1]).values[0] for i in range(6)])
    trial.same(every.diagonal().T, repeated, "codes of priors [6, 1, 4] and boxes [1, 6, 4]")


def _row(priors: Priors, index: int) -> Priors:
    return Priors(priors.boxes[index : index + 1], priors.strides[index : index + 1])


@check(BBoxCoder, compares=True)
def coder_decode_broadcasts(trial: Trial) -> None:
    """Leading dimensions of priors and codes broadcast in ``decode``: images and classes at once."""
    coder = trial.component()
    priors = _priors(trial, 6)
    codes = _codes(trial, coder, 2, 6)
    wanted = torch.stack([coder.decode(priors, item) for item in codes])
    trial.same(coder.decode(priors, codes), wanted, "boxes of codes [2, 6, D], priors [6, 4]")
    of_classes = _codes(trial, coder, 6, 3)
    spread = Priors(priors.boxes[:, None], priors.strides[:, None])
    wanted = torch.stack([coder.decode(priors, of_classes[:, k]) for k in range(3)], 1)
    trial.same(coder.decode(spread, of_classes), wanted, "boxes of codes [6, 3, D], priors [6, 1, 4]")


@check(BBoxCoder)
def coder_takes_nothing(trial: Trial) -> None:
    """No rows give no rows, of the right size."""
    coder = trial.component()
    for lead in ((0,), (2, 0)):
        priors = Priors(torch.zeros(0, 4), torch.zeros(0, 2))
        codes = coder.encode(priors, torch.zeros(*lead, 4)).values
        trial.require(codes.shape == (*lead, coder.target_size), f"codes have shape {list(codes.shape)}")
        boxes = coder.decode(priors, torch.zeros(*lead, coder.code_size))
        trial.require(boxes.shape == (*lead, 4), f"boxes have shape {list(boxes.shape)}")


@check(BBoxCoder, cases=("object", "prior", "both"))
def coder_survives_boxes_without_extent(trial: Trial) -> None:
    """Objects and priors without width and height give finite codes and boxes."""
    coder = trial.component()
    priors = _priors(trial, 4)
    boxes = _boxes(trial, priors)
    if trial.case in ("object", "both"):
        boxes = torch.cat((boxes[:, :2], boxes[:, :2]), -1)
    if trial.case in ("prior", "both"):
        priors = Priors(priors.centers.repeat(1, 2), priors.strides)
    trial.finite(coder.encode(priors, boxes), "the code")
    trial.finite(coder.decode(priors, _codes(trial, coder, 4)), "the box")


@check(BBoxCoder, compares=True)
def coder_clips(trial: Trial) -> None:
    """With ``sizes``, boxes lie in the image, per image where there are several."""
    coder = trial.component()
    if not getattr(coder, "clip_border", True):
        trial.skip("it is told not to")
    priors = _priors(trial, 8)
    codes = _codes(trial, coder, 2, 8)
    sizes = torch.tensor([[60, 70], [40, 90]])
    trial.note(f"sizes={sizes.tolist()}")
    boxes = coder.decode(priors, codes, sizes)
    limit = sizes.flip(-1).repeat(1, 2)[:, None]
    trial.require((boxes >= 0) & (boxes <= limit), "a box leaves its image", boxes)
    single = coder.decode(priors, codes[1], sizes[1])
    trial.same(single, boxes[1], "the second image's boxes alone")


@check(BBoxCoder, compares=True)
def coder_gradients_are_right(trial: Trial) -> None:
    """The gradient of ``decode`` is that of finite differences."""
    coder = trial.component()
    priors = _priors(trial, 3, torch.float64)
    codes = _codes(trial, coder, 3, dtype=torch.float64).requires_grad_()
    if not coder.decode(priors, codes).requires_grad:
        trial.fail("boxes are not connected to the codes")
    try:
        torch.autograd.gradcheck(lambda c: coder.decode(priors, c), (codes,))
    except RuntimeError as error:  # gradcheck's own; what the coder raises shows itself above
        trial.fail(str(error).splitlines()[0])


@check(BBoxCoder, cases=("-1e3", "-20", "20", "1e3"))
def coder_survives_large_codes(trial: Trial) -> None:
    """Codes far from any target give finite boxes and gradients."""
    coder = trial.component()
    priors = _priors(trial, 3)
    codes = torch.full((3, coder.code_size), float(trial.case), requires_grad=True)
    trial.note(f"codes of {trial.case}")
    boxes = coder.decode(priors, codes)
    trial.finite(boxes, "the box")
    (gradient,) = torch.autograd.grad(boxes.sum(), codes)
    trial.finite(gradient, "the gradient")


@check(BBoxCoder)
def coder_keeps_float64(trial: Trial) -> None:
    """In float64 it computes in float64."""
    coder = trial.component()
    priors = _priors(trial, 5, torch.float64)
    values = coder.encode(priors, _boxes(trial, priors)).values
    trial.require(values.dtype == torch.float64, f"codes are {values.dtype}")
    boxes = coder.decode(priors, _codes(trial, coder, 5, dtype=torch.float64))
    trial.require(boxes.dtype == torch.float64, f"boxes are {boxes.dtype}")


@check(BBoxCoder, compares=True)
def coder_takes_half_precision(trial: Trial) -> None:
    """Codes in bfloat16 give the boxes of float32, as far as they can be told apart."""
    coder = trial.component()
    priors = _priors(trial)
    codes = _codes(trial, coder, len(priors)).bfloat16()
    boxes, wanted = coder.decode(priors, codes).float(), coder.decode(priors, codes.float())
    trial.finite(boxes, "the box")
    trial.same(boxes, wanted, "the box", rtol=0.02, atol=1.0)


@check(BBoxCoder)
def coder_leaves_its_arguments(trial: Trial) -> None:
    """It writes to none of its arguments."""
    coder = trial.component()
    priors = _priors(trial)
    boxes, codes = _boxes(trial, priors), _codes(trial, coder, len(priors))
    with trial.unchanged("an argument", priors, boxes, codes):
        coder.encode(priors, boxes)
        coder.decode(priors, codes, torch.tensor([50, 60]))


@check(BBoxCoder, slow=True, compares=True)
def coder_compiles(trial: Trial) -> None:
    """``torch.compile(fullgraph=True)`` takes ``decode`` and gives the same."""
    coder = trial.component()
    priors = _priors(trial)
    codes = _codes(trial, coder, 2, len(priors))
    decode = compiled(lambda b, s, c: coder.decode(Priors(b, s), c))
    got = decode(priors.boxes, priors.strides, codes)
    trial.same(got, coder.decode(priors, codes), "the compiled result")
