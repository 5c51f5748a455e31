"""What captured graphs are made of: the forms for ONNX, and suppression that keeps little."""

from __future__ import annotations

import warnings

import pytest
import torch
from detcore_postprocess import NMS, nms_mask, select_candidates
from detcore_postprocess.lanes import image_groups
from detcore_postprocess.onnx import grouped_nms, onnx_forms, wants_onnx
from torch import nn

DYNAMIC = torch.export.Dim.DYNAMIC


class MaskOnly(nn.Module):
    def forward(self, boxes, scores, groups, valid):
        return nms_mask(boxes, scores, groups, 0.5, valid)


class Select(nn.Module):
    def forward(self, scores):
        return tuple(select_candidates(scores, score_thr=0.3, nms_pre=20, levels=(30, scores.shape[1] - 30)))


def crowd(count=2, rows=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, rows, 2, generator=generator) * 60
    boxes = torch.cat((corner, corner + 20 + 20 * torch.rand(count, rows, 2, generator=generator)), -1)
    scores = (torch.rand(count, rows, generator=generator) * 8).round() / 8  # with ties
    groups = torch.randint(0, 3, (count, rows), generator=generator)
    return boxes, scores, groups, torch.rand(count, rows, generator=generator) > 0.2


def captured(module, inputs):
    shapes = ({0: DYNAMIC, 1: DYNAMIC},) * len(inputs)
    with torch.no_grad(), warnings.catch_warnings():  # torchvision uses what torch deprecates
        warnings.simplefilter("ignore")
        return torch.export.export(module, inputs, dynamic_shapes=shapes, strict=True)


def operators(program):
    return {str(node.target) for node in program.graph.nodes}


def test_suppression_for_onnx_is_one_operator():
    nms = NMS(iou_threshold=0.5)

    class Whole(nn.Module):
        def forward(self, boxes, scores, groups, valid):
            return nms(boxes, scores, groups, valid=valid).kept

    with onnx_forms():
        program = captured(Whole(), crowd())
    assert "detcore.nms_mask.default" in operators(program)
    assert "torchvision.nms.default" not in operators(program)
    data = crowd(3, 50, seed=1)
    assert torch.equal(program.module()(*data), Whole()(*data))


def test_candidates_for_onnx_need_no_bits():
    with onnx_forms():
        program = captured(Select(), (torch.rand(2, 50, 3),))
    assert "aten.view.dtype" not in operators(program)
    assert "aten.view.dtype" in operators(captured(Select(), (torch.rand(2, 50, 3),)))
    scores = torch.randperm(2 * 60 * 3, generator=torch.Generator().manual_seed(0)).reshape(2, 60, 3) / 360
    for got, want in zip(program.module()(scores), Select()(scores), strict=True):
        assert torch.equal(got, want)


def test_nothing_changes_outside():
    assert not wants_onnx()
    with onnx_forms():
        assert not wants_onnx()  # nothing is captured
    boxes, scores, groups, valid = crowd()
    want = nms_mask(boxes, scores, image_groups(groups), 0.5, valid)
    assert torch.equal(grouped_nms(boxes, scores, groups, valid, 0.5), want)


@pytest.mark.reliability(
    area="export",
    fault="no box is kept by suppression, or one, or there is only padding",
    outcome="captured graphs keep what eager mode keeps",
)
def test_captured_suppression_that_keeps_little(record_property):
    program = captured(MaskOnly(), crowd()).module()
    boxes, scores, groups, valid = crowd()
    one = torch.tensor([0.0, 0.0, 10.0, 10.0]).expand_as(boxes).contiguous()
    same = torch.zeros_like(groups)
    cases = [
        (one, scores, same, torch.ones_like(valid)),
        (boxes, scores, groups, torch.zeros_like(valid)),
        (boxes, scores, groups - 7, valid),
        (boxes.masked_fill(~valid[..., None], torch.nan), scores, groups, torch.ones_like(valid)),
        (one[:1], scores[:1], same[:1], torch.zeros_like(valid[:1]).index_fill(1, torch.tensor([3]), True)),
    ]
    for case in cases:
        assert torch.equal(program(*case), MaskOnly()(*case))
    assert MaskOnly()(*cases[0]).sum() == 1
    record_property("tried", len(cases))
