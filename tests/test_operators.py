"""torchvision's operators, with and without torchvision's Python package."""

import subprocess
import sys

import pytest
import torch
import torchvision.ops

from detcore.operators import nms, roi_align


def boxes(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 60
    sides = 10 + 30 * torch.rand(count, 2, generator=generator)
    scores = (torch.rand(count, generator=generator) * 8).round() / 8  # with ties
    return torch.cat((corner, corner + sides), 1), scores


@pytest.mark.parametrize("count", [0, 1, 2, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_suppression_is_torchvisions(count, dtype):
    some, scores = (tensor.to(dtype) for tensor in boxes(count))
    assert torch.equal(nms(some, scores, 0.4), torchvision.ops.nms(some, scores, 0.4))


@pytest.mark.parametrize("count", [0, 1, 30])
@pytest.mark.parametrize("gradient", [True, False])
@pytest.mark.parametrize("aligned", [True, False])
def test_alignment_is_torchvisions(count, gradient, aligned):
    feature = torch.rand(2, 3, 9, 12, generator=torch.Generator().manual_seed(0)).requires_grad_(gradient)
    rois = torch.cat((torch.arange(count)[:, None] % 2, boxes(count)[0]), 1)
    given = (feature, rois, (2, 3), 1 / 8, 0, aligned)
    wanted = torchvision.ops.roi_align(*given)
    assert torch.equal(roi_align(*given), wanted)
    with torch.no_grad():
        assert torch.equal(roi_align(*given), wanted)
    if gradient:
        of_ours, of_theirs = (torch.autograd.grad(f(*given).square().sum(), feature)[0]
                              for f in (roi_align, torchvision.ops.roi_align))  # fmt: skip
        assert torch.equal(of_ours, of_theirs)


def run(code):
    """In a process that has imported nothing yet."""
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split()


_PREDICT = """
import sys
import torch
from detcore import SingleStageDetector, TwoStageDetector
from detcore_fpn import FPN
from detcore_rcnn import RPNHead, StandardRoIHead
from detcore_resnet import ResNet
from detcore_retina import RetinaHead

torch.manual_seed(0)
given = {"num_classes": 3, "backbone": ResNet(depth=18), "neck": FPN.spec(num_outs=5)}
parts = {
    "SingleStageDetector": {"head": RetinaHead.spec(prior_prob=0.5)},
    "TwoStageDetector": {"rpn_head": RPNHead.spec(), "roi_head": StandardRoIHead.spec()},
}
model = globals()[detector](**given, **parts[detector]).eval()
image = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)
with torch.no_grad():
    found = model([image])
assert int(found.valid.sum()) > 10
"""


DETECTORS = pytest.mark.parametrize("detector", ["SingleStageDetector", "TwoStageDetector"])


@DETECTORS
def test_a_detector_predicts_without_torchvision_and_the_compiler(detector):
    heavy = "{'torchvision', 'torch._dynamo', 'sympy'}"
    assert run(f"detector = {detector!r}\n{_PREDICT}\nprint(len({heavy} & set(sys.modules)))") == ["0"]


_AFTERWARDS = """
import torchvision.ops
with torch.no_grad():
    again = model([image])
assert torch.equal(again.boxes, found.boxes) and torch.equal(again.scores, found.scores)
x = torch.rand(1, 2, 8, 8, requires_grad=True)
torchvision.ops.roi_align(x, [torch.tensor([[0.0, 0, 4, 4]])], 2).sum().backward()
assert x.grad.sum() == 8
print("same")
"""


@pytest.mark.slow
@DETECTORS
def test_torchvision_can_be_imported_afterwards(detector):
    assert run(f"detector = {detector!r}\n{_PREDICT}\n{_AFTERWARDS}") == ["same"]


_SUPPRESS = """
import sys
import torch
from detcore import operators
{change}
some = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 5], [9, 9, 12, 12]])
kept = operators.nms(some, torch.tensor([0.5, 0.9, 0.1]), 0.5)
print(*kept.tolist(), "torchvision" in sys.modules)
"""


@pytest.mark.parametrize(
    ("change", "imported"),
    [
        ("", "False"),
        ("operators._libraries = lambda: []", "True"),
        ("operators._libraries = lambda: [operators.__file__]", "True"),
    ],
    ids=["found", "not found", "not loadable"],
)
def test_torchvision_is_imported_where_its_library_is_no_help(change, imported):
    assert run(_SUPPRESS.format(change=change)) == ["1", "2", imported]


_CAPTURE = """
import warnings
warnings.simplefilter("ignore")
import torch
import torch._dynamo
from detcore.operators import nms

torch._dynamo.config.capture_dynamic_output_shape_ops = True  # torch 2.8 wants to be asked

class Best(torch.nn.Module):
    def forward(self, boxes, scores):
        return boxes[nms(boxes, scores, 0.5)]

some = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 5], [9, 9, 12, 12]])
scores = torch.tensor([0.5, 0.9, 0.1])
captured = {capture}
print(torch.equal(captured(some, scores), some[[1, 2]]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "capture",
    [
        "torch.compile(Best(), fullgraph=True, backend='eager')",
        "torch.export.export(Best(), (some, scores), strict=True).module()",
        "torch.export.export(Best(), (some, scores), strict=False).module()",
    ],
)
def test_the_compiler_finds_what_it_needs(capture):
    assert run(_CAPTURE.format(capture=capture)) == ["True"]
