"""Box coders against the reference's numbers."""

import pytest
import torch
from detcore_coders import (
    BucketingBBoxCoder,
    DeltaXYWHBBoxCoder,
    DistancePointBBoxCoder,
    LegacyDeltaXYWHBBoxCoder,
    PseudoBBoxCoder,
    TBLRBBoxCoder,
    YOLOBBoxCoder,
)
from detcore_mmdet import translate

from detcore import build
from detcore.structures import Priors
from detcore.testing.goldens import missing, read, task_cases

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

CLASSES = {
    c.__name__: c
    for c in (
        DeltaXYWHBBoxCoder,
        DistancePointBBoxCoder,
        LegacyDeltaXYWHBBoxCoder,
        PseudoBBoxCoder,
        TBLRBBoxCoder,
        YOLOBBoxCoder,
    )
}
CASES = task_cases("coders", *CLASSES)
METHODS = ("encode", "decode", "encode(b, decode(b, deltas))")
ENCODE_ARGUMENTS = {"max_dis", "eps"}
DECODE_ARGUMENTS = {"wh_ratio_clip"}


def cases(method):
    return [pytest.param(c, id=c["id"]) for c in CASES if c["call"]["method"] == method]


def coder(case, **kwargs):
    """The coder; what the reference takes per call are constructor parameters here."""
    of_call = {k: v for k, v in case["call"].items() if k in ENCODE_ARGUMENTS | DECODE_ARGUMENTS}
    switches = {"exact_decode": False} if case["cls"] == "LegacyDeltaXYWHBBoxCoder" else {}
    return CLASSES[case["cls"]](**case["args"], **of_call, **switches, **kwargs)


def priors(inputs):
    """With strides where the reference is given some."""
    stride = inputs.get("stride", 1)
    boxes = inputs["bboxes"] if "bboxes" in inputs else torch.cat((inputs["points"], inputs["points"]), -1)
    strides = torch.as_tensor(stride, dtype=torch.float32).reshape(-1, 1)
    return Priors(boxes, strides.expand(boxes.shape[-2], 2))


def sizes(case):
    """(h, w) of one image, of each image, or None; the reference's third number is the channels."""
    given = case["call"].get("max_shape")
    if given is None:
        return None
    return torch.tensor([row[:2] for row in given] if isinstance(given[0], list) else given[:2])


def check(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("case", cases("encode"))
def test_encode(case):
    inputs = read(case, "inputs")
    # the reference gives minus infinity for boxes without extent; that is the switch's other value
    kwargs = {"empty_size": 0} if case["id"].endswith("encode_zero_gt") else {}
    encoded = coder(case, **kwargs).encode(priors(inputs), inputs["gt_bboxes"])
    assert encoded.weights is None
    if "raises" in case:  # an integer normalizer, which is a number like any other here
        assert case["id"] == "coders.tblr.int_normalizer"
        as_float = TBLRBBoxCoder(normalizer=float(case["args"]["normalizer"]))
        assert encoded.values.equal(as_float.encode(priors(inputs), inputs["gt_bboxes"]).values)
        return
    (expected,) = read(case, "outputs").values()
    torch.testing.assert_close(encoded.values, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", cases("decode"))
def test_decode(case):
    inputs = read(case, "inputs")
    codes = inputs["deltas"] if "deltas" in inputs else inputs["distances"]
    boxes = priors(inputs)
    expected = read(case, "outputs")["bboxes"]
    groups = codes.shape[-1] // 4
    if groups > 1:  # (N, K * 4) in the reference
        codes, expected = codes.unflatten(-1, (groups, 4)), expected.unflatten(-1, (groups, 4))
        boxes = boxes.replace(boxes=boxes.boxes[:, None])
    check(coder(case).decode(boxes, codes, sizes(case)), expected)


@pytest.mark.parametrize("case", cases(METHODS[2]))
def test_encode_of_decode(case):
    inputs, made = read(case, "inputs"), coder(case)
    boxes = made.decode(priors(inputs), inputs["deltas"])
    encoded = made.encode(priors(inputs), boxes).values
    # the reference's own deltas come back changed by up to 2e-5: small differences of large coordinates
    torch.testing.assert_close(encoded, read(case, "outputs")["deltas"], rtol=1e-5, atol=3e-5)


BUCKETING = [pytest.param(c, id=c["id"]) for c in task_cases("coders", BucketingBBoxCoder.__name__)]


@pytest.mark.parametrize("case", BUCKETING)
def test_bucketing(case):
    """The reference gives four outputs, here they are the halves of values and of weights."""
    inputs, outputs = read(case, "inputs"), read(case, "outputs")
    made = build(translate({"type": case["cls"], **case["args"]}))
    if case["call"]["method"] == "encode":
        values, weights = made.encode(priors(inputs), inputs["gt_bboxes"])
        found = dict(zip(("bucket_labels", "offsets"), values.chunk(2, -1), strict=True))
        found |= dict(zip(("bucket_cls_weights", "offsets_weights"), weights.chunk(2, -1), strict=True))
        for name, value in found.items():
            torch.testing.assert_close(value, outputs[name], rtol=1e-5, atol=1e-4)
        return
    codes = torch.cat((inputs["cls_preds"], inputs["offset_preds"]), -1)
    check(made.decode(priors(inputs), codes, sizes(case)), outputs["bboxes"])
    torch.testing.assert_close(made.confidence(codes), outputs["loc_confidence"], rtol=1e-5, atol=1e-6)


def test_every_case_is_covered():
    assert sum(len(cases(method)) for method in METHODS) == len(CASES) > 0
    assert len(BUCKETING) == 9
