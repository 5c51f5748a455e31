import json

import torch

from detcore.structures import ImageDetections


def test_detections_without_masks_are_selected():
    from detcore_train.prediction import _select

    found = ImageDetections(torch.rand(3, 4), torch.tensor([0.9, 0.5, 0.1]), torch.tensor([0, 1, 2]))
    assert _select(found, found.scores > 0.4).labels.tolist() == [0, 1]


def test_masks_are_written_as_run_lengths_of_the_file(tmp_path):
    from detcore_data.segmentations import quietly
    from detcore_train.prediction import Prediction
    from pycocotools import mask as coco_mask

    from detcore.structures import ClassMap

    masks = torch.rand(2, 20, 30) > 0.5
    found = ImageDetections(torch.rand(2, 4), torch.tensor([0.9, 0.5]), torch.tensor([0, 1]), masks)
    prediction = Prediction(tmp_path / "a.png", torch.zeros(3, 20, 30, dtype=torch.uint8), found)
    written = prediction.to_dict(ClassMap(("a", "b")), tmp_path)["detections"]
    for row, mask in zip(json.loads(json.dumps(written)), masks, strict=True):
        assert row["segmentation"]["size"] == [20, 30]
        assert (quietly(coco_mask.decode, row["segmentation"]) == mask.numpy()).all()
