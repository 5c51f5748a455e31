"""Which package to install for a component's name, for the error that a missing package causes."""

from __future__ import annotations

#: Component name -> first-party distribution. A test keeps it equal to the plugins' entry points.
PACKAGE_OF: dict[str, str] = {
    "ATSSAssigner": "detcore-plugin-assigners",
    "AdamW": "detcore-plugin-train",
    "AnchorGenerator": "detcore-plugin-priors",
    "CosineSchedule": "detcore-plugin-train",
    "DeltaXYWHBBoxCoder": "detcore-plugin-coders",
    "DetectionData": "detcore-plugin-train",
    "DistancePointBBoxCoder": "detcore-plugin-coders",
    "EMA": "detcore-plugin-train",
    "Experiment": "detcore-plugin-train",
    "FPN": "detcore-plugin-fpn",
    "MaxIoUAssigner": "detcore-plugin-assigners",
    "PointGenerator": "detcore-plugin-priors",
    "PolySchedule": "detcore-plugin-train",
    "ResNet": "detcore-plugin-resnet",
    "RetinaHead": "detcore-plugin-retina",
    "SGD": "detcore-plugin-train",
    "StepSchedule": "detcore-plugin-train",
    "TBLRBBoxCoder": "detcore-plugin-coders",
}
