"""Examples of this plugin's components for the conformance kit."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from detcore.hooks import hookimpl

if TYPE_CHECKING:
    from detcore.component import Component, Spec
    from detcore.testing import Subject


@hookimpl
def detcore_conformance_examples() -> Iterable[Spec[Any] | Component | Subject]:
    """Optimizers, an order of epochs, a data module with generated pictures, and an experiment with it."""
    from detcore_data import ShapesDataset

    from detcore.testing.subject import workspace
    from detcore_train import SGD, AdamW, AspectRatioGrouping, ClassBalancedOrder, DetectionData

    shapes = ShapesDataset.spec(root=workspace() / "detcore-plugin-train", length=4, size=(48, 64))
    data = DetectionData.spec(train=shapes, val=shapes, workers=0)
    order, grouping = ClassBalancedOrder.spec(oversample_thr=0.5), AspectRatioGrouping.spec()
    ordered = DetectionData.spec(
        train=shapes, order=order, grouping=grouping, final_transforms=(), final_epochs=1, workers=0
    )
    return [
        SGD.spec(lr=0.01),
        AdamW.spec(lr=1e-4, layer_decay=0.9, rules=({"match": "*.bias", "decay_mult": 0.0},)),
        order,
        data,
        ordered,
        *_experiments(data),
    ]


def _experiments(data: Spec[Any]) -> Iterator[Spec[Any]]:
    """One with a small RetinaNet, where there is one: this plugin has no detector of its own."""
    if importlib.util.find_spec("detcore_retina") is None:
        return
    from detcore.component import Spec
    from detcore.registry import resolve
    from detcore_train import SGD, Experiment

    model = {
        "type": "SingleStageDetector",
        "num_classes": 3,
        "backbone": {"type": "ResNet", "depth": 18, "base_channels": 8},
        "neck": {
            "type": "FPN",
            "out_channels": 16,
            "start_level": 1,
            "num_outs": 5,
            "add_extra_convs": "on_input",
        },
        "head": {"type": "RetinaHead", "feat_channels": 16, "stacked_convs": 1},
    }
    detector: Spec[Any] = Spec(resolve("detectors", str(model.pop("type"))), model)
    yield Experiment.spec(model=detector, data=data, optimizer=SGD.spec(lr=0.01))
