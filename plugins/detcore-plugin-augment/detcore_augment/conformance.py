"""Examples of this plugin's components for the conformance kit."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from detcore.hooks import hookimpl

if TYPE_CHECKING:
    from detcore.component import Component, Spec
    from detcore.testing import Subject


@hookimpl
def detcore_conformance_examples() -> Iterable[Spec[Any] | Component | Subject]:
    """Each transform for the kit's pictures of 80 x 60 pixels."""
    from detcore.testing import Subject
    from detcore_augment import (
        Albumentations,
        CopyPaste,
        Expand,
        FilterAnnotations,
        MinIoURandomCrop,
        MixUp,
        Mosaic,
        RandomAffine,
        RandomCrop,
    )

    turned = {"way_back": False}
    mixed = {"moves_pixels": False}  # the picture shows more than one object
    found = [
        Subject(Mosaic.spec(img_scale=(80, 60)), inputs={**mixed, **turned}),
        Subject(MixUp.spec(img_scale=(80, 60)), inputs=mixed),
        Subject(CopyPaste.spec(paste_by_box=True), inputs=mixed),
        Subject(RandomAffine.spec(border_val=0), inputs=turned, name="turned"),
        Subject(RandomAffine.spec(max_rotate_degree=0, max_shear_degree=0, border=(8, -6)), name="upright"),
        Subject(RandomCrop.spec(crop_size=(50, 40))),
        Subject(MinIoURandomCrop.spec()),
        Subject(Expand.spec(mean=0)),
        Subject(FilterAnnotations.spec(min_gt_bbox_wh=(12, 12))),
    ]
    if importlib.util.find_spec("albumentations") is not None:
        steps = ({"type": "HorizontalFlip"}, {"type": "RandomBrightnessContrast"}, {"type": "RandomRotate90"})
        found.append(Subject(Albumentations.spec(transforms=steps), inputs=turned))
    return found
