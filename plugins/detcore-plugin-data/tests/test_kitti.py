from __future__ import annotations

import numpy as np
import pytest
from detcore_data import KittiDataset
from detcore_data.kitti import KITTI_CLASSES
from PIL import Image

from detcore.errors import ConfigError, DataError


def line(name, *box):
    return f"{name} 0.00 0 -1.57 {' '.join(map(str, box))} 2.85 2.63 12.34 0.47 1.49 69.44 -1.56\n"


class Kitti:
    def __init__(self, folder):
        self.folder = folder
        for name in ("label_2", "image_2"):
            (folder / name).mkdir()

    def add(self, stem, *lines):
        Image.fromarray(np.full((30, 40, 3), 7, np.uint8)).save(self.folder / "image_2" / f"{stem}.png")
        (self.folder / "label_2" / f"{stem}.txt").write_text("".join(lines))

    def __call__(self, **parameters):
        return KittiDataset(root=self.folder, annotations="label_2", images="image_2", **parameters)


@pytest.fixture
def kitti(tmp_path):
    kitti = Kitti(tmp_path)
    kitti.add(
        "000000", line("Car", 1, 2, 11.25, 12), line("DontCare", 3, 3, 9, 8), line("Van", 20, 5, 35, 20)
    )
    kitti.add("000001")
    return kitti


def test_an_example(kitti):
    data = kitti()
    assert data.class_map.names == KITTI_CLASSES
    assert data[0]["boxes"].tolist() == [[1, 2, 11.25, 12], [3, 3, 9, 8], [20, 5, 35, 20]]
    assert data[0]["ignore"].tolist() == [False, True, False]
    assert data[0]["labels"].tolist()[::2] == [0, 1]
    assert 0 <= data[0]["labels"][1] < len(data.class_map)
    assert len(data[1]["boxes"]) == 0


def test_every_object_is_kept_for_evaluation(kitti):
    kitti.add(
        "000003", "Van 0.35 2 -1.57 1 2 5.5 6 1 1 1 1 1 1 1\nDontCare -1 -1 -10 0 0 4 4 1 1 1 1 1 1 1\n"
    )
    objects = kitti(classes=("Car",), merge={"Van": "Car"}).objects
    assert objects.names == ("Car", "DontCare", "Van", "Van", "DontCare")
    assert objects.image_ids.tolist() == [0, 0, 0, 2, 2]
    assert objects.boxes[3].tolist() == [1, 2, 5.5, 6]
    assert objects.truncation.tolist() == [0, 0, 0, 0.35, -1]
    assert objects.occlusion.tolist() == [0, 0, 0, 2, -1]


def test_occlusion_is_a_number(kitti):
    kitti.add("000003", "Van a 2 -1.57 1 2 5.5 6 1 1 1 1 1 1 1\n")
    with pytest.raises(
        DataError, match=r"000003.txt, line 1: fields 2 and 3 \(truncation, occlusion\) .* got \['a', '2'\]"
    ):
        kitti()


def test_subset(kitti):
    data = kitti(classes=("Pedestrian", "Car"))
    assert data[0]["labels"][0] == 1
    assert len(data[0]["boxes"]) == 2
    assert data.counts.other_classes == 1


def test_neighbours_are_ignored_on_request(kitti):
    data = kitti(classes=("Car",), ignored=("DontCare", "Van"))
    assert data[0]["ignore"].tolist() == [False, True, True]
    assert data.records.annotations.any_class.tolist() == [False, True, True]
    assert data.counts.other_classes == 0


def test_neighbours_are_merged_on_request(kitti):
    data = kitti(classes=("Car",), merge={"Van": "Car"})
    assert data[0]["labels"].tolist()[::2] == [0, 0]
    assert data[0]["ignore"].tolist() == [False, True, False]


def test_regions_may_be_left_out(kitti):
    assert kitti(ignored=())[0]["ignore"].tolist() == [False, False]


def test_other_classes_have_to_be_named(kitti):
    kitti.add("000002", line("Scooter", 1, 2, 5, 6))
    with pytest.raises(DataError, match=r"classes that the benchmark does not know: \['Scooter'\]"):
        kitti()
    assert kitti(classes=("Car", "Scooter"))[2]["labels"].tolist() == [1]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"classes": ("Cra",)}, "has no class 'Cra'; did you mean 'Car'"),
        ({"ignored": ("dontcare",)}, "ignored: .* has no class 'dontcare'; did you mean 'DontCare'"),
        ({"merge": {"Vans": "Car"}}, "merge: .* has no class 'Vans'; did you mean 'Van'"),
    ],
)
def test_unknown_names(kitti, parameters, message):
    with pytest.raises(DataError, match=message):
        kitti(**parameters)


def test_an_object_cannot_be_ignored_too(kitti):
    with pytest.raises(ConfigError, match=r"ignored and classes both name \['Van'\]"):
        kitti(classes=("Car", "Van"), ignored=("Van",))


@pytest.mark.reliability(
    area="data",
    fault="a broken line in a KITTI file",
    outcome="an error that names file and line",
)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Car 0 0\n", "line 1: a line should have 15 fields .* got 3"),
        (line("Car", 1, 2, 5, 6) + line("Car", 1, "x", 5, 6), "line 2: fields 5 to 8 should be numbers"),
    ],
)
def test_broken_lines(kitti, text, message):
    kitti.add("000002", text)
    with pytest.raises(DataError, match=rf"000002\.txt, {message}"):
        kitti()


def test_degenerate(kitti):
    kitti.add("000002", line("Car", 5, 5, 4, 9))
    assert kitti().counts.degenerate == 1
    with pytest.raises(DataError, match=r"image '000002\.png' has no extent"):
        kitti(policy="error")
