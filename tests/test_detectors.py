"""The single-stage detector and its preprocessor, composed of toy parts."""

import copy
import pickle

import pytest
import torch
from torch import nn

import detcore
from detcore.detectors import ImagePreprocessor
from detcore.errors import ConfigError, DataError
from detcore.serialize import build
from detcore.structures import Detections, ImageBatch, ImageGeometry, Losses


def image(height=40, width=50):
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8)


@pytest.fixture
def model(toys, toy_config):
    return build(toy_config)


def test_losses_in_training_detections_in_evaluation(model):
    targets = [{"boxes": torch.tensor([[1.0, 2, 3, 4]]), "labels": torch.tensor([2])}]
    losses = model([image()], targets)
    assert isinstance(losses, Losses)
    losses.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert isinstance(model.eval()([image()]), Detections)


def test_training_without_objects(model):
    model(
        [image()], [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}]
    ).total.backward()


def test_pickle_and_deepcopy(model):
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert detcore.dump(again) == detcore.dump(model)


def test_in_somebody_elses_module(model):
    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, images, targets):
            return sum(self.model(images, targets).values())

    targets = [{"boxes": torch.tensor([[1.0, 2, 3, 4]]), "labels": torch.tensor([0])}]
    assert Wrapper()([image()], targets).dim() == 0


def test_neck_is_optional(toys, toy_config):
    toy_config["neck"] = None
    model = build(toy_config)
    assert model.head.conv.in_channels == 5
    model.eval()([image()])


class TestImagePreprocessor:
    def test_normalises_and_pads(self):
        batch = ImagePreprocessor(mean=(1, 2, 3), std=(2, 2, 2), size_divisor=16)(
            [image(20, 30), image(33, 10)]
        )
        assert batch.pixels.shape == (2, 3, 48, 32)
        assert batch.sizes.tolist() == [[20, 30], [33, 10]]
        assert batch.padded_sizes.tolist() == [[32, 32], [48, 16]]
        assert batch.pixels[0, :, 20:].abs().sum() == 0
        assert batch.pixels[1, :, :, 10:].abs().sum() == 0

    def test_values(self):
        source = image(32, 32)
        batch = ImagePreprocessor(mean=(10, 20, 30), std=(1, 2, 4))([source])
        want = (source.float() - torch.tensor([10.0, 20, 30]).view(3, 1, 1)) / torch.tensor([1.0, 2, 4]).view(
            3, 1, 1
        )
        torch.testing.assert_close(batch.pixels[0], want)

    def test_float_images_are_0_to_1(self):
        source = image(32, 32)
        prepare = ImagePreprocessor()
        torch.testing.assert_close(
            prepare([source / 255]).pixels, prepare([source]).pixels, rtol=1e-5, atol=1e-5
        )

    def test_bgr(self):
        prepare, bgr = ImagePreprocessor(), ImagePreprocessor(channel_order="bgr")
        source = image()
        torch.testing.assert_close(bgr([source]).pixels, prepare([source]).pixels.flip(1))

    def test_geometry_is_passed_on(self):
        batch = ImagePreprocessor()([image()], [ImageGeometry((80, 100), (0.5, 0.5), (0, 0), (True, False))])
        assert batch.original_sizes.tolist() == [[80, 100]]
        assert batch.flip.tolist() == [[True, False]]

    def test_batch_equals_singles(self):
        prepare, images = ImagePreprocessor(), [image(20, 30), image(64, 33)]
        batch = prepare(images)
        for i, one in enumerate(images):
            single = prepare([one]).pixels[0]
            torch.testing.assert_close(batch.pixels[i, :, : single.shape[1], : single.shape[2]], single)

    def test_has_no_weights(self):
        assert not ImagePreprocessor().state_dict()

    @pytest.mark.parametrize(
        ("images", "message"),
        [
            ([], "a batch needs at least one image"),
            ([torch.zeros(1, 4, 4)], r"images\[0\]: expected a tensor \[3, H, W\], got \[1, 4, 4\]"),
            ([torch.zeros(3, 0, 4)], r"images\[0\]: expected a tensor \[3, H, W\], got \[3, 0, 4\]"),
            (["a.jpg"], r"images\[0\]: expected a tensor \[3, H, W\], got str"),
            ([torch.zeros(3, 4, 4, dtype=torch.int64)], r"images\[0\]: expected uint8 .* got torch.int64"),
        ],
    )
    def test_bad_images(self, images, message):
        with pytest.raises(DataError, match=message):
            ImagePreprocessor()(images)

    def test_resizes_in_evaluation(self):
        prepare = ImagePreprocessor(min_size=60, max_size=100).eval()
        source = torch.rand(3, 90, 120)
        batch = prepare([source, torch.rand(3, 40, 100), torch.rand(3, 61, 77)])
        # 60 / 90; 100 / 100, since 60 / 40 would make the long edge 150; 60 / 61, rounded down
        assert batch.sizes.tolist() == [[60, 80], [40, 100], [60, 75]]
        assert batch.original_sizes.tolist() == [[90, 120], [40, 100], [61, 77]]
        torch.testing.assert_close(batch.scale[2], torch.tensor([75 / 77, 60 / 61]))
        want = torch.nn.functional.interpolate(source[None], (60, 80), mode="bilinear")
        plain = ImagePreprocessor()(list(want)).pixels
        torch.testing.assert_close(batch.pixels[0, :, :60, :80], plain[0, :, :60, :80], rtol=1e-4, atol=1e-4)

    def test_what_was_resized_before_stays(self):
        source = torch.rand(3, 60, 80)
        batch = ImagePreprocessor(min_size=60, max_size=100).eval()([source])
        assert torch.equal(batch.pixels, ImagePreprocessor()([source]).pixels)

    def test_training_resizes_nothing(self):
        assert ImagePreprocessor(min_size=60).train()([image(20, 30)]).sizes.tolist() == [[20, 30]]

    def test_boxes_go_home_through_both_scales(self):
        geometry = ImageGeometry((180, 240), (0.5, 0.5), (6.0, 3.0), (True, False))
        batch = ImagePreprocessor(min_size=174).eval()([torch.rand(3, 87, 114)], [geometry])
        box = torch.tensor([[[20.0, 30.0, 60.0, 80.0]]])  # in pixels of the image given
        ones = torch.ones(1, 1)
        found = Detections(2 * box, ones, ones.long(), ones.bool()).to_original(batch)
        plain = ImagePreprocessor()([torch.rand(3, 87, 114)], [geometry])
        torch.testing.assert_close(
            found.boxes, Detections(box, ones, ones.long(), ones.bool()).to_original(plain).boxes
        )

    @pytest.mark.parametrize(
        ("sizes", "message"),
        [
            ({"max_size": 100}, "max_size=100 limits what min_size asks for"),
            ({"min_size": 100, "max_size": 60}, "max_size=60 is shorter than the short edge min_size=100"),
        ],
    )
    def test_bad_sizes(self, sizes, message):
        with pytest.raises(ConfigError, match=message):
            ImagePreprocessor(**sizes)

    def test_bad_std(self):
        with pytest.raises(ConfigError, match="std should be positive"):
            ImagePreprocessor(std=(1, 0, 1))


def test_image_batch_defaults():
    batch = ImageBatch.of(torch.zeros(2, 3, 8, 6))
    assert batch.sizes.tolist() == [[8, 6], [8, 6]]
    assert len(batch) == 2
