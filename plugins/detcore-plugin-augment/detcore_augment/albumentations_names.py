"""Which transforms of albumentations may be named, their plain form, and the package itself."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from detcore.errors import did_you_mean

#: Those that hold others.
COMPOSITIONS = frozenset({"OneOf", "OneOrOther", "RandomOrder", "Sequential", "SomeOf"})

#: What may be named: it needs an image and its objects only (no callables, further images or files), and keeps uint8.
_NAMES = """
    AdditiveNoise AdvancedBlur Affine AtLeastOneBBoxRandomCrop AutoContrast BBoxSafeRandomCrop Blur CLAHE
    CenterCrop ChannelDropout ChannelShuffle ChromaticAberration CoarseDropout ColorJitter
    ConstrainedCoarseDropout Crop CropAndPad D4 Defocus Downscale ElasticTransform Emboss Equalize Erasing
    FancyPCA GaussNoise GaussianBlur GlassBlur GridDistortion GridDropout GridElasticDeform HorizontalFlip
    HueSaturationValue ISONoise Illumination ImageCompression InvertImg LongestMaxSize MedianBlur
    Morphological MotionBlur MultiplicativeNoise NoOp OpticalDistortion Pad PadIfNeeded Perspective
    PiecewiseAffine PixelDropout PlanckianJitter PlasmaBrightnessContrast PlasmaShadow Posterize RGBShift
    RandomBrightnessContrast RandomCrop RandomCropFromBorders RandomFog RandomGamma RandomGravel
    RandomGridShuffle RandomRain RandomResizedCrop RandomRotate90 RandomScale RandomShadow
    RandomSizedBBoxSafeCrop RandomSizedCrop RandomSnow RandomSunFlare RandomToneCurve Resize
    RingingOvershoot Rotate SafeRotate SaltAndPepper Sharpen ShiftScaleRotate ShotNoise SmallestMaxSize
    Solarize Spatter SquareSymmetry Superpixels ThinPlateSpline ToGray ToSepia Transpose UnsharpMask
    VerticalFlip XYMasking ZoomBlur
"""
ALLOWED = COMPOSITIONS | frozenset(_NAMES.split())

_NAME = "__class_fullname__"
#: What a ``Compose`` says beside its transforms; boxes are the adapter's affair.
_OF_COMPOSE = ("additional_targets", "bbox_params", "is_check_shapes", "keypoint_params")


def package() -> Any:
    """The package, imported now.

    Raises:
        ValueError: It is not installed.
    """
    # it would ask a server for its newest version when it is imported
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        return importlib.import_module("albumentations")
    except ImportError as error:
        raise ValueError(
            f"needs the package albumentations ({error}): "
            'pip install "detcore-plugin-augment[albumentations]"'
        ) from error


def plain(value: Any) -> Any:
    """Transforms in any of the accepted forms, as a list of plain mappings with ``type``.

    Args:
        value: A list of transforms, or one: a mapping with ``type``, what albumentations' ``to_dict`` gives, or a
            transform of albumentations.

    Raises:
        ValueError: A name is not accepted, or a value is not plain.
    """
    several = isinstance(value, Sequence) and not isinstance(value, str) and not hasattr(value, "to_dict")
    steps = [_step(one, f"[{i}] ") for i, one in enumerate(value)] if several else [_step(value, "")]
    if not several and steps[0]["type"] == "Sequential" and steps[0].get("p", 1) == 1:
        return list(steps[0]["transforms"])
    return steps


def _step(value: Any, where: str) -> dict[str, Any]:
    if hasattr(value, "to_dict"):
        try:
            value = value.to_dict()
        except (NotImplementedError, ValueError, TypeError) as error:
            raise ValueError(
                f"{where}{type(value).__name__} cannot be written as plain data: {error}"
            ) from error
    if isinstance(value, Mapping) and set(value) <= {"__version__", "transform"} and "transform" in value:
        value = value["transform"]
    if not isinstance(value, Mapping):
        raise ValueError(
            f"{where}expected a mapping with 'type' or a transform of albumentations, got {value!r}"
        )
    name = value.get("type", value.get(_NAME))
    _check_name(name, where)
    rest = {key: one for key, one in value.items() if key not in ("type", _NAME)}
    if name == "Compose":
        name = "Sequential"
        rest = {key: one for key, one in rest.items() if key not in _OF_COMPOSE}
    if "transforms" in rest and isinstance(rest["transforms"], Sequence):
        rest["transforms"] = [_step(one, f"{where}{name}: ") for one in rest["transforms"]]
    return {"type": name, **{key: _value(one, f"{where}{name}: {key}") for key, one in rest.items()}}


def _check_name(name: Any, where: str) -> None:
    if isinstance(name, str) and (name in ALLOWED or name == "Compose"):
        return
    if isinstance(name, str) and "." in name:
        raise ValueError(
            f"{where}{name!r} is not a name of albumentations itself; write it as a transform of detcore"
        )
    near = did_you_mean(str(name), sorted(ALLOWED)) if name is not None else None
    raise ValueError(
        f"{where}{name!r} is not among the accepted transforms of albumentations"
        + (f"; {near}" if near else "")
    )


def _value(value: Any, where: str) -> Any:
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if hasattr(value, "tolist"):  # numpy
        return value.tolist()
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _value(one, where) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_value(one, where) for one in value]
    raise ValueError(f"{where} should be plain data, got a {type(value).__name__}")
