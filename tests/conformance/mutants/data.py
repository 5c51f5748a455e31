"""Wrong datasets, transforms and metrics."""

import random

import torch
from detcore_data import CocoMetric, RandomFlip, Resize
from torchvision import tv_tensors

from detcore.testing.examples import MadeUpDataset


class RemembersWhatWasRead(MadeUpDataset):
    """An item depends on how many were read before."""

    def __init__(self, *, length: int = 5, seed: int = 0) -> None:
        super().__init__(length=length, seed=seed)
        self.reads = 0

    def __getitem__(self, index):
        item = super().__getitem__(index)
        self.reads += 1
        item["image"] = tv_tensors.Image(item["image"] + self.reads)
        return item


class CachesItsItems(MadeUpDataset):
    """Gives away what it keeps."""

    def __init__(self, *, length: int = 5, seed: int = 0) -> None:
        super().__init__(length=length, seed=seed)
        self.cache = {}

    def __getitem__(self, index):
        if index not in self.cache:
            self.cache[index] = super().__getitem__(index)
        return dict(self.cache[index])


class LabelsAreIds(MadeUpDataset):
    """The ids of the file in place of labels."""

    def __getitem__(self, index):
        item = super().__getitem__(index)
        item["labels"] = torch.tensor(self.class_map.ids)[item["labels"]]
        return item


class NeverEnds(MadeUpDataset):
    """Begins again."""

    def __getitem__(self, index):
        return super().__getitem__(index % self.length)


class OneIdForAll(MadeUpDataset):
    """Ids are not unique."""

    def __getitem__(self, index):
        item = super().__getitem__(index)
        item["image_id"] = 1
        return item


class MovesOnlyThePicture(RandomFlip):
    """Boxes stay where they are."""

    def __init__(self) -> None:
        super().__init__(prob=1.0)

    def __call__(self, example):
        changed = super().__call__(example)
        changed["boxes"] = example["boxes"]
        changed["geometry"] = example["geometry"]
        if "masks" in example:
            changed["masks"] = example["masks"]
        return changed


class ForgetsTheWay(Resize):
    """The geometry stays as it was."""

    def __init__(self) -> None:
        super().__init__(scale=(160, 120))

    def __call__(self, example):
        changed = super().__call__(example)
        changed["geometry"] = example["geometry"]
        return changed


class WritesToItsExample(RandomFlip):
    """Brightens in place."""

    def __init__(self) -> None:
        super().__init__(prob=0.5)

    def __call__(self, example):
        example["image"].clamp_(min=1)
        return super().__call__(example)


class ThrowsPythonsDice(RandomFlip):
    """Numbers that the owner does not seed."""

    def __init__(self) -> None:
        super().__init__(prob=0.5)

    def __call__(self, example):
        if random.random() < 0.5:
            return dict(example)
        return super().__call__(example)


class MasksLagBehind(RandomFlip):
    """Masks stay where they are."""

    def __init__(self) -> None:
        super().__init__(prob=1.0)

    def __call__(self, example):
        changed = super().__call__(example)
        if "masks" in example:
            changed["masks"] = example["masks"]
        return changed


class NeverForgets(CocoMetric):
    """Keeps the detections of earlier runs."""

    def start(self, dataset):
        kept = {} if self._collected is None else dict(self._collected.found)
        super().start(dataset)
        self._collected.found.update(kept)

    def update(self, image_ids, detections):
        known = self._collected.found
        fresh = [(i, d) for i, d in zip(image_ids, detections, strict=True) if i not in known]
        super().update([i for i, _ in fresh], [d for _, d in fresh])


class CountsOnlyTheLastBatch(CocoMetric):
    """Each update begins again."""

    def update(self, image_ids, detections):
        self._collected.found.clear()
        super().update(image_ids, detections)


class AlwaysTheSame(CocoMetric):
    """Does not look at detections."""

    def compute(self):
        return dict.fromkeys(super().compute(), 0.5)


class GivesTensors(CocoMetric):
    """Numbers of a type that no logger takes."""

    def compute(self):
        return {name: torch.tensor(value or 0.0) for name, value in super().compute().items()}


SOUND = [MadeUpDataset, RandomFlip, CocoMetric]
MUTANTS = [
    (RemembersWhatWasRead, {"dataset_items_depend_on_their_index"}, {"dataset_items_are_fresh"}),
    (CachesItsItems, {"dataset_items_are_fresh"}, set()),
    (LabelsAreIds, {"dataset_items_are_well_formed"}, set()),
    (NeverEnds, {"dataset_has_an_end"}, set()),
    (OneIdForAll, {"dataset_images_have_ids"}, set()),
    (MovesOnlyThePicture, {"transform_moves_boxes_with_the_image"}, set()),
    (ForgetsTheWay, {"transform_knows_the_way_back"}, set()),
    (WritesToItsExample, {"transform_leaves_its_argument"}, set()),
    (ThrowsPythonsDice, {"transform_draws_from_torch"}, {"component_is_deterministic"}),
    (MasksLagBehind, {"transform_moves_masks_with_boxes"}, set()),
    (NeverForgets, {"metric_start_forgets"}, set()),
    (
        CountsOnlyTheLastBatch,
        {"metric_ignores_batches"},
        set(),
    ),
    (AlwaysTheSame, {"metric_tells_good_from_bad"}, set()),
    (GivesTensors, {"metric_gives_numbers"}, set()),
]
