"""Detections, proposals and losses of imported models are torchvision's."""

import pytest
import torch
from detcore_torchvision import from_torchvision, import_detector

SIZES = (((128, 128),), ((120, 150), (200, 131)), ((64, 199), (97, 60), (300, 301)))
SMALL = [("retinanet_r18", SIZES[1]), ("retinanet_r18", SIZES[2]), ("faster_rcnn_r18", SIZES[1]),
         ("mask_rcnn_r18", SIZES[0])]  # fmt: skip
LARGE = ("retinanet", "retinanet_v2", "faster_rcnn", "faster_rcnn_v2", "mask_rcnn", "mask_rcnn_v2")
CASES = [
    *SMALL,
    *(pytest.param(name, SIZES[2], marks=pytest.mark.slow) for name in ("faster_rcnn_r18", "mask_rcnn_r18")),
    *(pytest.param(name, sizes, marks=pytest.mark.slow) for name in LARGE for sizes in SIZES[:2]),
]


@torch.no_grad()
def detect(detector, images):
    batch = detector.preprocess(images)
    return detector(batch).to_original(batch)


def assert_same(theirs, ours):
    """The same rows, in the same order but for equal scores; coordinates up to 1e-4 of the largest.

    Returns:
        The row here of each row there.
    """
    assert len(theirs["boxes"]) == len(ours.boxes) > 20
    assert len(theirs["labels"].unique()) > 5
    torch.testing.assert_close(ours.scores, theirs["scores"], rtol=1e-4, atol=1e-5)
    far = (theirs["boxes"][:, None] - ours.boxes).abs().amax(-1) > 1e-4 * float(theirs["boxes"].max())
    other = (theirs["labels"][:, None] - 1 != ours.labels) | far
    uneven = (theirs["scores"][:, None] - ours.scores).abs() > 1e-4 * theirs["scores"][:, None] + 1e-5
    rows = (~(other | uneven)).float().argmax(1)
    assert not (other | uneven)[torch.arange(len(rows)), rows].any()
    assert len(rows.unique()) == len(rows)
    return rows


@pytest.mark.parametrize(("name", "sizes"), CASES)
def test_detections(make, noise, exact_nms, name, sizes):
    model, images = make(name), noise(*sizes)
    detector = from_torchvision(model)
    assert not detector.training
    with torch.no_grad():
        theirs = model(images)
    found = detect(detector, images)
    for there, here in zip(theirs, found.unpad(whole_pixels=True), strict=True):
        rows = assert_same(there, here)
        if "masks" in there:
            wrong = (there["masks"][:, 0] >= 0.5) != here.masks[rows]
            near = (there["masks"][:, 0] - 0.5).abs() < 1e-3
            assert not (wrong & ~near).any()
            assert here.masks.flatten(1).any(1).float().mean() > 0.5


def test_detections_of_uint8_images(make, noise, exact_nms):
    model = make("retinanet_r18")
    images = [(image * 255).to(torch.uint8) for image in noise((120, 150))]
    with torch.no_grad():
        (there,) = model([image / 255 for image in images])
    (here,) = detect(from_torchvision(model), images).unpad()
    assert_same(there, here)


def test_torchvisions_own_suppression_decides_few_otherwise(make, noise):
    model, images = make("faster_rcnn_r18"), noise((120, 150), (200, 131))
    found = detect(from_torchvision(model), images).unpad()
    with torch.no_grad():
        for there, here in zip(model(images), found, strict=True):
            theirs = {
                (int(k) - 1, round(float(s), 4))
                for k, s in zip(there["labels"], there["scores"], strict=True)
            }
            ours = {(int(k), round(float(s), 4)) for k, s in zip(here.labels, here.scores, strict=True)}
            assert len(theirs & ours) > 0.8 * len(theirs)


def test_anchors(make, noise):
    for name in ("retinanet_r18", "faster_rcnn_r18"):
        model, (image,) = make(name), noise((130, 190))
        inner = model if name.startswith("retina") else model.rpn
        with torch.no_grad():
            batch = model.transform([image])[0]
            features = list(model.backbone(batch.tensors).values())
            (want,) = inner.anchor_generator(batch, features)
        detector = from_torchvision(model)
        head = detector.head if name.startswith("retina") else detector.rpn_head
        mine = detector.preprocess([image])
        output = head(detector.features(mine), mine)
        assert torch.equal(head.priors(output, mine).boxes, want)


def test_proposals(make, noise, exact_nms):
    model, images = make("faster_rcnn_r18"), noise((120, 150), (200, 131))
    detector = from_torchvision(model)
    with torch.no_grad():
        batch = model.transform(images)[0]
        want, _ = model.rpn(batch, model.backbone(batch.tensors))
        found = detector.propose(detector.preprocess(images))
    for boxes, mine, valid in zip(want, found.boxes, found.valid, strict=True):
        torch.testing.assert_close(mine[valid], boxes, rtol=1e-4, atol=1e-2)


def test_mask_probabilities(make, noise, exact_nms, monkeypatch):
    model, images = make("mask_rcnn_r18"), noise((120, 150))
    monkeypatch.setattr(model.transform, "postprocess", lambda result, *_: result)
    detector = from_torchvision(model)
    with torch.no_grad():
        (there,) = model(images)
        found = detector(detector.preprocess(images))
    torch.testing.assert_close(found.masks[0][found.valid[0]], there["masks"][:, 0], rtol=1e-3, atol=1e-3)


# ---------------------------------------------------------------------------------------------------- losses


def targets_for(model, seed=0, masks=False):
    """Boxes that do not overlap, so that both ways of settling several claims agree."""
    boxes = torch.tensor([[6.0, 9, 50, 60], [70, 20, 120, 90], [64, 98, 100, 126]])
    target = {"boxes": boxes, "labels": torch.tensor([5, 17, 90])}
    if masks:
        target["masks"] = torch.zeros(3, 128, 144, dtype=torch.uint8)
    return target


@pytest.mark.parametrize("name", ["retinanet_r18", pytest.param("retinanet_v2", marks=pytest.mark.slow)])
def test_losses_of_one_image(make, noise, name):
    model, images = make(name), noise((128, 144))
    detector, target = from_torchvision(model), targets_for(model)
    mine = [{"boxes": target["boxes"], "labels": target["labels"] - 1}]
    batch = detector.preprocess(images)
    want = _losses(model, images, [target])
    with torch.no_grad():
        output = detector.head(detector.features(batch), batch)
        got = detector.head.loss(output, detcore_targets(mine), batch)
    assert float(got.metrics["num_positives"]) > 10
    # the background's logits, left out here, are far below 0 and add next to nothing
    torch.testing.assert_close(got["loss_cls"], want["classification"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got["loss_bbox"], want["bbox_regression"], rtol=1e-4, atol=1e-5)


def test_losses_of_both_stages(make, noise, exact_nms):
    """With samplers that take everything, so that nothing is random."""
    model, images = make("faster_rcnn_r18"), noise((128, 144))
    everything = [model.rpn.fg_bg_sampler, model.roi_heads.fg_bg_sampler]
    before = [sampler.batch_size_per_image for sampler in everything]
    for sampler in everything:
        sampler.batch_size_per_image = 200_000
    try:
        detector, target = from_torchvision(model), targets_for(model)
        want = _losses(model, images, [target])
    finally:
        for sampler, number in zip(everything, before, strict=True):
            sampler.batch_size_per_image = number
    mine = [{"boxes": target["boxes"], "labels": target["labels"] - 1}]
    batch = detector.preprocess(images)
    detector.rpn_head.train()
    with torch.no_grad():
        got = detector.loss(batch, detcore_targets(mine))
    assert float(got.metrics["num_positives"]) >= 3
    for ours, theirs in (
        ("loss_rpn_cls", "loss_objectness"),
        ("loss_rpn_bbox", "loss_rpn_box_reg"),
        ("loss_cls", "loss_classifier"),
        ("loss_bbox", "loss_box_reg"),
    ):
        torch.testing.assert_close(got[ours], want[theirs], rtol=1e-3, atol=1e-5, msg=ours)


def detcore_targets(images):
    from detcore.structures import Targets

    return Targets.stack(images)


def _losses(model, images, targets):
    """The losses of torchvision, with its normalisations as in evaluation."""
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    try:
        with torch.no_grad():
            return model(images, targets)
    finally:
        model.eval()


def test_a_detector_that_trains_after_its_import(make, noise):
    detector = import_detector(make("faster_rcnn_r18")).detector.train()
    target = {"boxes": torch.tensor([[6.0, 9, 50, 60]]), "labels": torch.tensor([3])}
    torch.manual_seed(0)
    losses = detector(noise((100, 120)), [target])
    total = sum(losses.values())
    total.backward()
    assert torch.isfinite(total)
    assert detector.backbone.conv1.weight.grad is None
    assert detector.backbone.layer2[0].conv1.weight.grad is not None
