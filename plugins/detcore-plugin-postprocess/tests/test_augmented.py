"""Test-time augmentation around a detector."""

import pytest
import torch
from detcore_postprocess import AugmentedDetector, NMSMerger, SoftNMS, WeightedBoxesFusion, scaled
from torch import nn
from torch.nn import functional as F

from detcore import build, dump
from detcore.component import wired
from detcore.errors import ConfigError
from detcore.interfaces import Detector
from detcore.structures import Detections, ImageBatch, ImageGeometry, Losses, Targets


class Bright(Detector):
    """Finds the one bright region of each image; its mask tells left from right."""

    def __init__(self, *, num_classes: int = wired(), threshold: float = 0.5) -> None:
        super().__init__()
        self.threshold = threshold
        self.num_classes = num_classes
        self.weight = nn.Parameter(torch.ones(1))
        self.seen = []

    def preprocess(self, images, geometry=None):
        return ImageBatch.of(torch.stack([image.float() / 255 for image in images]), geometry=geometry)

    def features(self, batch):
        return (batch.pixels * self.weight,)

    def loss(self, batch, targets):
        return Losses({"loss": batch.pixels.mean() * self.weight.sum()})

    def predict(self, batch):
        self.seen.append(batch)
        bright = batch.pixels[:, 0] > self.threshold
        valid = bright.flatten(1).any(1)
        rows, columns = bright.any(2).float(), bright.any(1).float()
        first = [mask.argmax(1) for mask in (columns, rows)]
        last = [mask.shape[1] - mask.flip(1).argmax(1) for mask in (columns, rows)]
        boxes = torch.stack((*first, *last), 1).float()
        inner = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]]).expand(len(batch), 2, 2)
        inner = torch.where(batch.flip[:, :1, None], inner.flip(-1), inner)
        return Detections(
            boxes=torch.where(valid[:, None], boxes, 0)[:, None],
            scores=torch.where(valid, 0.9, 0.0)[:, None],
            labels=torch.zeros(len(batch), 1, dtype=torch.int64),
            valid=valid[:, None],
            masks=inner[:, None],
        )


@pytest.fixture
def batch():
    """Three images of different true sizes, the last without anything to see; bright padding must not matter."""
    pixels = torch.zeros(3, 3, 64, 96)
    pixels[0, :, 10:30, 20:60] = 1
    pixels[1, :, 4:20, 6:16] = 1
    geometry = [ImageGeometry((128, 192), scale=(0.5, 0.5))] * 3
    return ImageBatch.of(
        pixels,
        sizes=[(64, 96), (40, 50), (64, 64)],
        padded_sizes=[(64, 96), (64, 64), (64, 64)],
        geometry=geometry,
    )


HOME = torch.tensor([[20.0, 10.0, 60.0, 30.0], [6.0, 4.0, 16.0, 20.0]])


def augmented(**kwargs):
    return AugmentedDetector(detector=Bright(num_classes=2), **kwargs).eval()


@pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.0, 2.0), (1.37,)])
@pytest.mark.parametrize("flip", [False, True])
def test_versions_agree(batch, scales, flip):
    model = augmented(scales=scales, flip=flip, max_per_img=4)
    found = model(batch)
    assert len(model.detector.seen) == len(scales) * (1 + flip)
    assert found.valid.sum(1).tolist() == [1, 1, 0]
    torch.testing.assert_close(found.boxes[:2, 0], HOME, atol=1.5, rtol=0)
    torch.testing.assert_close(found.masks[:2, 0], torch.tensor([[[0.0, 1.0]] * 2] * 2))
    assert found.to_original(batch).boxes[0, 0].tolist() == pytest.approx((HOME[0] * 2).tolist(), abs=3)


def test_versions_are_fused(batch):
    """Boxes that differ by a pixel become their mean; there are no masks then."""
    model = augmented(scales=(1.0, 1.37), max_per_img=4, merger=WeightedBoxesFusion.spec())
    found = model(batch)
    assert found.valid.sum(1).tolist() == [1, 1, 0]
    torch.testing.assert_close(found.boxes[:2, 0], HOME, atol=1.0, rtol=0)
    assert found.scores[:2, 0].tolist() == pytest.approx([0.9, 0.9])
    assert found.masks is None


def test_images_as_they_came_are_scaled_in_their_own_type(batch):
    whole = batch.replace(pixels=(batch.pixels * 200).to(torch.uint8))
    for version in augmented(scales=(1.0, 0.77)).versions(whole):
        assert version.pixels.dtype == torch.uint8
        assert 190 < int(version.pixels.max()) <= 200


def test_a_mirrored_version_is_exact(batch):
    model = augmented()
    plain, mirrored = model.versions(batch)
    assert torch.equal(plain.pixels, batch.pixels)
    for b, (height, width) in enumerate(batch.sizes.tolist()):
        own = batch.pixels[b, :, :height, :width]
        assert torch.equal(mirrored.pixels[b, :, :height, :width], own.flip(-1))
        assert not mirrored.pixels[b, :, height:].any()
    found = model.detector.predict(mirrored).to_original(mirrored)
    assert torch.equal(found.boxes[:2, 0], HOME)


@pytest.mark.parametrize("factor", [0.5, 0.77, 1.5])
def test_scaled_images_are_those_that_interpolation_gives(factor):
    pixels = torch.rand(2, 3, 40, 60)
    sizes = [(40, 60), (33, 47)]
    version = scaled(ImageBatch.of(pixels, sizes=sizes), factor, 8)
    for b, (height, width) in enumerate(sizes):
        new = version.sizes[b].tolist()
        assert new == [round(height * factor), round(width * factor)]
        expected = F.interpolate(pixels[b : b + 1, :, :height, :width], size=new, mode="bilinear")[0]
        torch.testing.assert_close(version.pixels[b, :, : new[0], : new[1]], expected, atol=1e-5, rtol=1e-5)
        assert not version.pixels[b, :, new[0] :].any()
        assert not version.pixels[b, :, :, new[1] :].any()
        assert version.padded_sizes[b].tolist() == [-(-side // 8) * 8 for side in new]
        assert version.scale[b].tolist() == pytest.approx([new[1] / width, new[0] / height])


def test_batch_equals_singles(batch):
    model = augmented(scales=(0.75, 1.0))
    together = model(batch)
    for b in range(3):
        alone = model(batch.replace(**{name: getattr(batch, name)[b : b + 1] for name in vars(batch)}))
        torch.testing.assert_close(alone.boxes[0], together.boxes[b])
        assert torch.equal(alone.valid[0], together.valid[b])


def test_images_are_preprocessed_by_the_detector(batch):
    images = [(255 * image).to(torch.uint8) for image in batch.pixels]
    assert augmented()(images).valid.sum(1).tolist() == [1, 1, 0]


def test_no_image():
    empty = ImageBatch.of(torch.zeros(0, 3, 32, 32))
    assert list(augmented(scales=(0.5,)).versions(empty))[1].pixels.shape == (0, 3, 32, 32)


def test_training_is_that_of_the_detector(batch):
    model = augmented().train()
    targets = Targets.stack([{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}] * 3)
    losses = model(batch, targets)
    losses.total.backward()
    assert model.detector.weight.grad is not None
    assert torch.equal(model.detector.loss(batch, targets)["loss"], losses["loss"])
    assert torch.equal(model.features(batch)[0], batch.pixels)


def test_the_number_of_classes_comes_from_either_side():
    assert augmented().num_classes == 2
    assert AugmentedDetector(num_classes=5, detector=Bright.spec()).num_classes == 5
    with pytest.raises(ConfigError) as caught:
        AugmentedDetector(num_classes=5, detector=Bright(num_classes=2))
    assert [problem.path for problem in caught.value.problems] == ["detector.num_classes"]


def test_round_trip():
    merger = NMSMerger.spec(nms=SoftNMS.spec(method="gaussian"), iou_threshold=0.4)
    model = augmented(scales=(1.0, 1.5), merger=merger)
    objects = {}
    config = dump(model, objects=objects)
    again = build(config, objects=objects)
    nms = again.merger.nms
    assert (again.scales, nms.method, nms.iou_threshold) == ((1.0, 1.5), "gaussian", 0.4)
    assert again.state_dict().keys() == {"detector.weight"}


@pytest.mark.parametrize(("name", "value"), [("scales", ()), ("scales", (0.0,)), ("max_per_img", 0)])
def test_parameters_are_checked(name, value):
    with pytest.raises(ConfigError, match=name):
        augmented(**{name: value})
