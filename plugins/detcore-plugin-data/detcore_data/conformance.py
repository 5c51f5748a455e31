"""Examples of this plugin's components for the conformance kit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detcore.hooks import hookimpl

if TYPE_CHECKING:
    from detcore.component import Component, Spec
    from detcore.testing import Subject


@hookimpl
def detcore_conformance_examples() -> Iterable[Spec[Any] | Component | Subject]:
    """Transforms to fixed sizes, and datasets with small files of each format."""
    from detcore_data import MultiScaleResize, Pad, Resize

    return [
        Resize.spec(scale=(120, 90)),
        MultiScaleResize.spec(scales=((120, 90), (200, 100))),
        Pad.spec(size_divisor=32),
        *_datasets(),
    ]


def _datasets() -> Iterator[Any]:
    from detcore.testing.subject import workspace
    from detcore_data import (
        CocoDataset,
        ConcatDataset,
        KittiDataset,
        RepeatDataset,
        ShapesDataset,
        VocDataset,
    )

    root = workspace() / "detcore-plugin-data"
    shapes = ShapesDataset.spec(root=root, length=6, size=(48, 64), empty=0.3)
    yield shapes
    yield RepeatDataset.spec(dataset=shapes, times=2)
    yield ConcatDataset.spec(datasets=(shapes, shapes.replace(length=4)))
    folder = shapes.build().folder
    yield CocoDataset.spec(annotations=folder / "instances.json", images=folder / "images", with_masks=True)
    yield KittiDataset.spec(annotations=_kitti(folder), images=folder / "images")
    yield VocDataset.spec(annotations=_voc(folder), images=folder / "images")


def _kitti(images: Path) -> Path:
    """Label files in KITTI's format: an object, one that does not matter, and images without any."""
    folder = images / "kitti"
    folder.mkdir(exist_ok=True)
    for number, image in enumerate(sorted((images / "images").glob("*.png"))):
        rest = "0.0 0 0.0 {} 0 0 0 0 0 0 0"
        lines = ["Car " + rest.format("10 12 30 40"), "DontCare " + rest.format("33 5 50 20")]
        text = "".join(f"{line}\n" for line in lines[: number % 3])
        (folder / f"{image.stem}.txt").write_text(text)
    return folder


def _voc(images: Path) -> Path:
    """Annotations in VOC's format: an object, a difficult one, and images without any."""
    folder = images / "voc"
    folder.mkdir(exist_ok=True)
    for number, image in enumerate(sorted((images / "images").glob("*.png"))):
        objects = "".join(
            f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{x}</xmin><ymin>8</ymin>"
            f"<xmax>{x + 20}</xmax><ymax>30</ymax></bndbox></object>"
            for name, difficult, x in (("cat", 0, 4), ("dog", 1, 30))[: number % 3]
        )
        size = "<size><width>64</width><height>48</height><depth>3</depth></size>"
        text = f"<annotation><filename>{image.name}</filename>{size}{objects}</annotation>"
        (folder / f"{image.stem}.xml").write_text(text)
    return folder
