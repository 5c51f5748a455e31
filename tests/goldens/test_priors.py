"""Anchors, points and inside flags against the reference's numbers."""

import pytest
import torch
from detcore_mmdet import translate

from detcore import build
from detcore.boxes import inside_flags
from detcore.structures import ImageBatch
from detcore.testing.goldens import missing, read, task_cases

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

GENERATORS = (
    "AnchorGenerator",
    "LegacyAnchorGenerator",
    "LegacySSDAnchorGenerator",
    "MlvlPointGenerator",
    "SSDAnchorGenerator",
    "YOLOAnchorGenerator",
)


def cases(method, *classes):
    found = task_cases(
        "priors", *(classes or GENERATORS), where=lambda c: c.get("call", {}).get("method") == method
    )
    return [pytest.param(case, id=case["id"]) for case in found]


def bases():
    return [
        pytest.param(c, id=c["id"])
        for c in task_cases("priors", *GENERATORS, where=lambda c: "call" not in c)
    ]


def generator(case):
    """As the bridge translates the reference's arguments: with the switches for its numbers."""
    return build(translate({"type": case["cls"], **case["args"]}))


def batch(height, width):
    return ImageBatch.of(torch.zeros(1, 3, 1, 1), padded_sizes=[(height, width)])


def by_level(priors, case):
    """Rows per level as the reference writes them: boxes, points, or points with strides."""
    rows = priors.boxes
    if case["cls"] == "MlvlPointGenerator":
        rows = (
            torch.cat((priors.centers, priors.strides), -1)
            if case["call"].get("with_stride")
            else priors.centers
        )
    return rows.split([level.count for level in priors.levels])


def check_exactly(actual, expected):
    """Equal to the last bit: assigners compare overlaps for equality."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@pytest.mark.parametrize("case", bases())
def test_base_anchors(case):
    outputs, made = read(case, "outputs"), generator(case)
    assert list(made.num_per_cell) == outputs["num_base_priors"]
    check_exactly(list(made.base_anchors), outputs["base_anchors"])


@pytest.mark.parametrize("case", cases("grid_priors"))
def test_grid(case):
    outputs = read(case, "outputs")
    levels = by_level(generator(case)(case["call"]["featmap_sizes"], batch(1, 1)), case)
    if "priors" in outputs:
        check_exactly(list(levels), outputs["priors"])
        return
    assert [len(rows) for rows in levels] == outputs["level_rows"].tolist()
    sums = torch.stack([rows.double().sum(0) for rows in levels])
    torch.testing.assert_close(sums, outputs["colsum64"], rtol=1e-9, atol=1e-6)
    check_exactly(torch.cat(levels)[outputs["sample_idx"]], outputs["sample_rows"])


@pytest.mark.parametrize("case", cases("valid_flags"))
def test_valid(case):
    outputs, call = read(case, "outputs"), case["call"]
    priors = generator(case)(call["featmap_sizes"], batch(*call["pad_shape"]))
    flags = priors.valid[0].split([level.count for level in priors.levels])
    if "flags" in outputs:
        check_exactly(list(flags), outputs["flags"])
        return
    expected = outputs["count"]
    counts = torch.stack([level.sum() for level in flags])
    assert counts.tolist() == list(expected)


@pytest.mark.parametrize("case", cases("sparse_priors"))
def test_sparse_priors_are_gathered(case):
    call, made = case["call"], generator(case)
    priors = made([call["featmap_size"]] * len(made.strides), batch(1, 1))
    before = sum(level.count for level in priors.levels[: call["level_idx"]])
    picked = priors.gather(read(case, "inputs")["prior_idxs"] + before)
    points = case["cls"] == "MlvlPointGenerator"
    check_exactly(picked.centers if points else picked.boxes, read(case, "outputs")["priors"])


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=c["id"]) for c in task_cases("priors", "anchor_inside_flags")]
)
def test_inside_flags(case):
    inputs, call = read(case, "inputs"), case["call"]
    flags = inside_flags(inputs["anchors"], torch.tensor([call["img_shape"]]), call["allowed_border"])
    check_exactly(flags[0] & inputs["valid_flags"], read(case, "outputs")["inside"])


def test_every_case_is_covered():
    covered = [*bases(), *(c for m in ("grid_priors", "valid_flags", "sparse_priors") for c in cases(m))]
    assert len(covered) == len(task_cases("priors", *GENERATORS)) > 0
