"""Large images in tiles."""

from itertools import pairwise

import pytest
import torch
from detcore_postprocess import NMS, NMSMerger, TiledDetector
from detcore_postprocess.tiles import cut_off, spans, tiles_of
from hypothesis import given, settings
from hypothesis import strategies as st

from detcore import build, dump
from detcore.errors import ConfigError
from detcore.structures import Detections, ImageBatch, ImageGeometry, Targets


@settings(deadline=None)
@given(st.integers(1, 500), st.integers(1, 120), st.floats(0, 0.95))
def test_spans_cover_everything(length, tile, overlap):
    found = spans(length, tile, overlap)
    covered = torch.zeros(length)
    for span in found:
        assert 0 <= span.start < span.end <= length
        assert span.end - span.start == min(tile, length)
        covered[span.start : span.end] = 1
    assert covered.all()
    for one, two in pairwise(found):
        assert one.start < two.start
        assert one.end - two.start >= min(overlap * tile, tile - 1) - 1e-4
        assert (one.next_start, two.previous_end) == (two.start, one.end)
    assert found[0].previous_end is None
    assert found[-1].next_start is None


def test_tiles_of_one_size():
    tiles = tiles_of((100, 130), (64, 64), 0.25)
    assert {(y.end - y.start, x.end - x.start) for y, x in tiles} == {(64, 64)}
    assert [(y.start, x.start) for y, x in tiles] == [(y, x) for y in (0, 36) for x in (0, 48, 66)]
    assert len(tiles_of((64, 20), (64, 64), 0.25)) == 1


def test_what_a_neighbour_sees_better_is_cut_off():
    tiles = tiles_of((50, 180), (50, 100), 0.2)  # x: 0..100 and 80..180
    boxes = torch.tensor([[85.0, 5, 100, 15], [70, 5, 100, 15], [85, 5, 97, 15], [0, 0, 9, 50]])
    assert cut_off(boxes[None], tiles[:1], 2.0).tolist() == [[True, False, False, False]]
    right = torch.tensor([[80.0, 5, 95, 15], [80, 5, 120, 15], [84, 5, 95, 15], [170, 0, 180, 50]])
    assert cut_off(right[None], tiles[1:], 2.0).tolist() == [[True, False, False, False]]


@st.composite
def scenes(draw):
    """An image's size, tile, overlap, border, and rectangles that are no larger than the overlap allows."""
    tile = draw(st.tuples(st.integers(12, 40), st.integers(12, 40)))
    overlap, border = draw(st.floats(0.3, 0.8)), draw(st.integers(0, 2))
    size = draw(st.tuples(st.integers(8, 110), st.integers(8, 110)))
    limits = [max(1, int(overlap * edge) - border) for edge in tile]
    taken, objects = torch.zeros(size, dtype=torch.bool), []
    for _ in range(draw(st.integers(0, 12))):
        height, width = (draw(st.integers(1, min(m, s))) for m, s in zip(limits, size, strict=True))
        y, x = draw(st.integers(0, size[0] - height)), draw(st.integers(0, size[1] - width))
        if not taken[y : y + height, x : x + width].any():
            taken[y : y + height, x : x + width] = True
            objects.append((x, y, x + width, y + height, draw(st.integers(0, 2))))
    return size, tile, overlap, border, objects


@pytest.mark.reliability(
    area="test-time",
    fault="objects cut by the borders of tiles, images of any size",
    outcome="the detections of the tiles equal those of the whole image, for objects that fit into the overlap",
)
def test_tiles_equal_the_whole_image(squares, painted, record_property):
    tried = 0

    @settings(deadline=None, max_examples=150)
    @given(scenes(), st.integers(1, 5))
    def check(scene, batch_size):
        nonlocal tried
        tried += 1
        size, tile, overlap, border, objects = scene
        image, whole = painted(size, objects), squares(num_classes=3).eval()
        tiled = TiledDetector(
            detector=squares(num_classes=3), tile=tile, overlap=overlap, border=border, full_image=False,
            batch_size=batch_size, max_per_img=20,
        ).eval()  # fmt: skip
        expected, found = whole([image]).unpad()[0], tiled([image]).unpad()[0]
        assert found.boxes.tolist() == expected.boxes.tolist()
        assert found.labels.tolist() == expected.labels.tolist()
        assert found.scores.tolist() == pytest.approx(expected.scores.tolist())

    check()
    record_property("tried", tried)


def test_no_more_tiles_than_asked_for_are_in_work(squares, painted):
    model = TiledDetector(detector=squares(num_classes=1), tile=16, batch_size=3, full_image=False).eval()
    model([painted((100, 90), [(3, 3, 8, 8, 0)])])
    assert {shape[2:] for shape in model.detector.sizes} == {(16, 16)}
    assert max(shape[0] for shape in model.detector.sizes) == 3
    assert sum(shape[0] for shape in model.detector.sizes) == len(tiles_of((100, 90), (16, 16), 0.2))


def test_an_image_that_fits_goes_straight_through(squares, painted):
    image = painted((40, 50), [(0, 0, 50, 40, 1), (10, 10, 12, 30, 2)])
    model = TiledDetector(detector=squares(num_classes=3), tile=(40, 50), max_per_img=9).eval()
    assert (
        model([image]).unpad()[0].boxes.tolist()
        == squares(num_classes=3).eval()([image]).unpad()[0].boxes.tolist()
    )
    assert model.detector.sizes == [(1, 3, 40, 50)]


def test_large_objects_are_seen_in_the_whole_image(squares, painted):
    """The tiles see parts of it, which are dropped where the whole is found; small objects stay."""
    image = painted((128, 128), [(0, 16, 128, 112, 1), (100, 117, 104, 121, 1)])

    def found(**options):
        model = TiledDetector(detector=squares(num_classes=2), tile=32, **options).eval()
        return model([image]).unpad()[0].boxes

    assert len(found(full_image=False)) > 4
    assert found(full_size=(128, 128)).tolist() == [[100, 117, 104, 121], [0, 16, 128, 112]]


def test_parts_that_lie_in_better_boxes_are_dropped(squares, painted):
    """By the share of the smaller box, a part that two tiles see is there once, however their extents differ."""
    image = painted((20, 90), [(5, 5, 60, 15, 0)])

    def found(**options):
        model = TiledDetector(
            detector=squares(num_classes=1), tile=40, overlap=0.5, full_image=False, **options
        )
        return model.eval()([image]).unpad()[0].boxes

    ios = NMSMerger.spec(nms=NMS.spec(overlap="ios", iou_threshold=0.5))
    assert len(found(merger=ios)) < len(found())


def test_whole_images_are_shrunk_to_fit(squares, painted):
    image = painted((60, 200), [(20, 10, 60, 50, 1)])
    model = TiledDetector(detector=squares(num_classes=2), tile=50, full_image=True).eval()
    model([image])
    assert model.detector.sizes[0] == (1, 3, 15, 50)
    assert model.detector.sizes[1] == (4, 3, 50, 50)


def test_batch_of_different_sizes_equals_singles(squares, painted):
    images = [
        painted((70, 30), [(3, 60, 9, 70, 1)]),
        painted((20, 30), [(3, 4, 9, 10, 2)]),
        painted((33, 64), []),
    ]
    model = TiledDetector(detector=squares(num_classes=3, zoom=2), tile=32, overlap=0.4).eval()
    together = model(images)
    assert together.image_sizes.tolist() == [[70, 30], [20, 30], [33, 64]]
    for index, image in enumerate(images):
        assert model([image]).boxes[0].tolist() == together.boxes[index].tolist()
    assert together.unpad()[0].boxes.tolist() == [[3, 60, 9, 70]]
    assert together.unpad()[1].boxes.tolist() == [[3, 4, 9, 10]]
    geometry = [ImageGeometry((140, 60), scale=(0.5, 0.5))]
    batch = model.preprocess(images[:1], geometry)
    assert model(batch).to_original(batch).unpad()[0].boxes.tolist() == [[6, 120, 18, 140]]
    nothing = ImageBatch.of(torch.zeros(0, 3, 8, 8))
    assert model(nothing).boxes.shape == (0, 300, 4)


def test_masks_come_along(squares, painted):
    class Masked(squares):
        def predict(self, batch):
            found = super().predict(batch)
            return found.replace(masks=found.scores[..., None, None].expand(*found.scores.shape, 2, 2))

    image = painted((20, 90), [(5, 5, 9, 9, 0), (60, 5, 64, 9, 0)])
    found: Detections = TiledDetector(detector=Masked(num_classes=1), tile=30, full_image=False).eval()(
        [image]
    )
    assert int(found.valid.sum()) == 2
    assert torch.equal(found.masks[0, :, 0, 0], found.scores[0])
    (pasted,) = found.unpad()
    assert pasted.masks.shape == (2, 20, 90)


def test_training_is_that_of_the_detector(squares, painted):
    model = TiledDetector(detector=squares(num_classes=2), tile=16).train()
    images = [painted((40, 40), [(3, 3, 30, 30, 1)])]
    targets = Targets.stack([{"boxes": torch.tensor([[3.0, 3, 30, 30]]), "labels": torch.tensor([1])}])
    losses = model(images, targets)
    losses.total.backward()
    assert model.detector.weight.grad is not None
    batch = model.preprocess(images)
    assert model(batch, targets)["loss"] == losses["loss"] == model.loss(batch, targets)["loss"]
    assert model.features(batch)[0].shape == (1, 3, 40, 40)


def test_round_trip(squares):
    model = TiledDetector(detector=squares(num_classes=2), tile=320, overlap=0.3, full_image=False)
    objects = {}
    again = build(dump(model, objects=objects), objects=objects)
    assert (again.tile, again.overlap, again.full_image) == ((320, 320), 0.3, False)
    assert again.num_classes == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overlap": 1.0}, "overlap"),
        ({"tile": 0}, "tile"),
        ({"full_image": False, "full_size": (9, 9)}, "leave it out with full_image=False"),
    ],
)
def test_parameters_are_checked(squares, options, message):
    with pytest.raises(ConfigError, match=message):
        TiledDetector(detector=squares(num_classes=2), **options)
