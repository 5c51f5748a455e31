"""What ``predict`` and ``eval`` can do at test time: several checkpoints, several versions of an image, tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from detcore_postprocess import (
    NMS,
    AugmentedDetector,
    EnsembleDetector,
    Merger,
    NMSMerger,
    SoftNMS,
    TiledDetector,
    TransformedDetector,
    WeightedBoxesFusion,
)

from detcore.component import Spec
from detcore.errors import ConfigError
from detcore.interfaces import Detector, Transform

Merge = Literal["nms", "soft_nms", "wbf"]
MERGES = ("nms", "soft_nms", "wbf")
#: What ``--tta`` stands for.
TTA_SCALES = (0.8, 1.0, 1.25)
#: Longest edge, in pixels, to which a whole image is shrunk when it is looked at beside its tiles.
WHOLE = 1333


@dataclass(frozen=True)
class TestTime:
    """The options as they were given.

    Args:
        tile: Edge of tiles in pixels; None for whole images.
        tile_overlap: Share of a tile that it has in common with the next.
        scales: Factors of the images' sizes.
        flip: Whether images are also looked at mirrored.
        merge: How detections of versions, tiles and models become one set.
        max_per_img: Detections per image.
    """

    __test__ = False  # for pytest, which takes the name for that of tests

    tile: int | None = None
    tile_overlap: float = 0.2
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    merge: Merge = "nms"
    max_per_img: int = 300

    @classmethod
    def of(
        cls, *, tile: int | None, tile_overlap: float, tta: bool, scales: str | None, flip: bool, merge: str
    ) -> TestTime:
        """From the command line's values.

        Raises:
            ConfigError: ``scales`` are no positive numbers, ``merge`` is none of the choices.
        """
        if merge not in MERGES:
            raise ConfigError(f"--merge should be one of {', '.join(MERGES)}, got {merge!r}")
        factors = TTA_SCALES if tta else (1.0,)
        return cls(
            tile=tile,
            tile_overlap=tile_overlap,
            scales=factors if scales is None else _scales(scales),
            flip=flip or tta,
            merge=cast(Merge, merge),
        )

    @property
    def augments(self) -> bool:
        """Whether more than the image as it is is looked at."""
        return self.flip or self.scales != (1.0,)

    @property
    def merger(self) -> Spec[Any]:
        """The part that merges."""
        made: dict[str, Spec[Any]] = {
            "nms": NMSMerger.spec(nms=NMS.spec()),
            "soft_nms": NMSMerger.spec(nms=SoftNMS.spec(min_score=0.001)),
            "wbf": WeightedBoxesFusion.spec(),
        }
        return made[self.merge]

    def compose(
        self, members: Sequence[tuple[Detector, Sequence[Transform]]]
    ) -> tuple[Detector, tuple[Transform, ...]]:
        """One detector, and what images go through before it.

        A single detector without tiles is given images that went through its transforms, as in training. Several
        detectors, and tiles, are given images as they are in the files; each detector then has its own transforms.

        Args:
            members: Detectors, each with the transforms of its evaluation.
        """
        looking = [(self._augmented(detector), tuple(transforms)) for detector, transforms in members]
        if len(looking) == 1 and self.tile is None:
            return looking[0]
        prepared = [self._prepared(detector, transforms) for detector, transforms in looking]
        whole = prepared[0] if len(prepared) == 1 else self._together(prepared)
        return (whole if self.tile is None else self._tiled(whole, self.tile)).eval(), ()

    def _augmented(self, detector: Detector) -> Detector:
        if not self.augments:
            return detector
        return AugmentedDetector(
            detector=detector,
            scales=self.scales,
            flip=self.flip,
            merger=cast(Spec[Merger], self.merger),
            max_per_img=self.max_per_img,
        ).eval()

    def _prepared(self, detector: Detector, transforms: tuple[Transform, ...]) -> Detector:
        return TransformedDetector(detector=detector, transforms=transforms) if transforms else detector

    def _together(self, detectors: Sequence[Detector]) -> Detector:
        return EnsembleDetector(
            detectors=tuple(detectors), merger=cast(Spec[Merger], self.merger), max_per_img=self.max_per_img
        )

    def _tiled(self, detector: Detector, tile: int) -> Detector:
        edge = max(tile, WHOLE)
        return TiledDetector(
            detector=detector,
            tile=tile,
            overlap=self.tile_overlap,
            full_size=(edge, edge),
            merger=cast(Spec[Merger], self.merger),
            max_per_img=self.max_per_img,
        )


def _scales(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(0 < factor <= 16 for factor in found):
        raise ConfigError(
            f"--scales should be factors of the images' sizes, above 0 and up to 16, with commas between "
            f"(0.8,1,1.25); got {text!r}"
        )
    return found
