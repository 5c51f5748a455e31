"""Detections on image files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from detcore_data import collate, run_lengths
from detcore_data.files import IMAGE_SUFFIXES
from detcore_data.images import ImageReader
from detcore_eval.drawing import Drawn, draw
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors

from detcore.errors import DataError
from detcore.interfaces import Detector, Example, Transform
from detcore.precision import InferencePrecision
from detcore.structures import ClassMap, ImageDetections, ImageGeometry
from detcore_train.evaluation import detect, device_of, evaluating, for_prediction

#: Largest height * width that is decoded unless more is asked for.
MAX_PIXELS = 100_000_000
#: Formats that pictures are written in as they came; others become PNG.
_WRITABLE = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class Prediction:
    """The detections on one file.

    Args:
        path: The file.
        image: Its pixels, upright.
        found: Detections in these pixels, best first.
    """

    path: Path
    image: Tensor
    found: ImageDetections

    def to_dict(self, class_map: ClassMap, root: Path) -> dict[str, object]:
        """Plain data for JSON: boxes as x1, y1, x2, y2 in pixels of the upright image, masks as run lengths."""
        found = self.found
        rows = zip(found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
        masks = [{} for _ in found.scores] if found.masks is None else map(_as_json, run_lengths(found.masks))
        return {
            "file": self.path.relative_to(root).as_posix(),
            "width": int(self.image.shape[-1]),
            "height": int(self.image.shape[-2]),
            "detections": [
                {
                    "class": class_map.names[label],
                    "label": label,
                    "class_id": class_map.ids[label],
                    "score": round(score, 5),
                    "box": [round(x, 2) for x in box],
                    **mask,
                }
                for (label, score, box), mask in zip(rows, masks, strict=True)
            ],
        }


def predict_files(
    detector: Detector,
    paths: Sequence[Path],
    transforms: Sequence[Transform] = (),
    *,
    score_thr: float = 0.0,
    batch_size: int = 1,
    max_pixels: int = MAX_PIXELS,
    precision: InferencePrecision = "auto",
) -> Iterator[Prediction]:
    """The detections on image files, in the files' pixels.

    Args:
        detector: Its modes are restored afterwards.
        paths: The images.
        transforms: What the detector's images went through for evaluation.
        score_thr: Detections with lower scores are left out.
        batch_size: Images per step.
        max_pixels: Largest height * width that is decoded.
        precision: See :func:`~detcore_train.evaluation.for_prediction`.

    Raises:
        DataError: A file is missing, no image, or too large.
    """
    device = device_of(detector)
    predictor = for_prediction(detector, precision)
    with evaluating(predictor):
        for start in range(0, len(paths), batch_size):
            chunk = paths[start : start + batch_size]
            images = [ImageReader(path.parent, max_pixels, "auto")(path.name) for path in chunk]
            examples = [_example(path, image, transforms) for path, image in zip(chunk, images, strict=True)]
            results = detect(predictor, collate(examples).to(device))
            for path, image, found in zip(chunk, images, results, strict=True):
                kept = found.scores >= score_thr
                yield Prediction(path, image, _select(found, kept))


def find_images(source: Path) -> tuple[Path, list[Path]]:
    """The images that a path means, and the folder that their names are relative to.

    Args:
        source: An image, or a folder; folders are searched to any depth.

    Raises:
        DataError: There is none.
    """
    if source.is_file():
        return source.parent, [source]
    if not source.is_dir():
        raise DataError(f"{source}: no such file or folder")
    found = sorted(
        path for path in source.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
    )
    if not found:
        raise DataError(f"{source}: no image in it; image files end in {', '.join(IMAGE_SUFFIXES)}")
    return source, found


def write_picture(prediction: Prediction, names: Sequence[str], root: Path, out: Path) -> Path:
    """Draws the detections and writes the picture under the file's name below ``out``."""
    found = prediction.found
    drawn = Drawn(found.boxes, found.labels, found.scores, found.masks)
    path = out / prediction.path.relative_to(root)
    if path.suffix.lower() not in _WRITABLE:
        path = path.with_name(path.name + ".png")
    write_image(draw(prediction.image, drawn, names), path)
    return path


def write_image(picture: Tensor, path: Path) -> None:
    """Writes a uint8 RGB picture [3, H, W] in the format that the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {} if path.suffix.lower() == ".png" else {"quality": 92}
    Image.fromarray(picture.permute(1, 2, 0).numpy()).save(path, **options)


def write_json(predictions: Sequence[dict[str, object]], class_map: ClassMap, model: str, path: Path) -> None:
    """Writes all detections of a run, with the classes and the model that they come from."""
    data = {"model": model, "classes": class_map.to_dict(), "images": list(predictions)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _example(path: Path, image: Tensor, transforms: Sequence[Transform]) -> Example:
    size = (int(image.shape[-2]), int(image.shape[-1]))
    example = Example(
        image=tv_tensors.Image(image),
        boxes=tv_tensors.BoundingBoxes(torch.zeros(0, 4), format="XYXY", canvas_size=size),
        labels=torch.zeros(0, dtype=torch.int64),
        ignore=torch.zeros(0, dtype=torch.bool),
        image_id=0,
        file=str(path),
        geometry=ImageGeometry(size),
    )
    for transform in transforms:
        example = transform(example)
    return example


def _as_json(mask: dict[str, Any]) -> dict[str, object]:
    """A mask in COCO's format, as other programs read it."""
    return {"segmentation": {"size": list(mask["size"]), "counts": mask["counts"].decode("ascii")}}


def _select(found: ImageDetections, kept: Tensor) -> ImageDetections:
    masks = None if found.masks is None else found.masks[kept]
    return ImageDetections(found.boxes[kept], found.scores[kept], found.labels[kept], masks)
