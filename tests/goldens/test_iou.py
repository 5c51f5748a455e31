"""Box overlaps against the reference's numbers, for the modes that ``detcore.boxes`` has."""

import pytest
import torch

from detcore.boxes import aligned_overlap, pairwise_overlap
from detcore.testing.goldens import missing, read, task_cases

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

MODES = ("iou", "iof")


def cases():
    """All but GIoU (a loss here) and the variant with boxes one pixel larger (no +1 anywhere)."""
    found = task_cases("iou", where=lambda c: c.get("call", {}).get("mode") in MODES)
    return [pytest.param(c, id=c["id"]) for c in found]


@pytest.mark.parametrize("case", cases())
def test_overlap(case):
    inputs = read(case, "inputs")
    a, b = (inputs[name][..., :4] for name in ("bboxes1", "bboxes2"))  # a fifth column is a score
    call = dict(case["call"])
    overlap = aligned_overlap if call.pop("is_aligned", False) else pairwise_overlap
    expected = read(case, "outputs")["overlaps"]
    torch.testing.assert_close(overlap(a, b, **call), expected, rtol=1e-6, atol=1e-7)


def test_all_cases_are_there():
    assert len(cases()) == 33
