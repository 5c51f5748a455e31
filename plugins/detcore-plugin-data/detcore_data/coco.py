"""COCO: one JSON file for all images."""

from __future__ import annotations

from pathlib import Path

from detcore.component import Part, make, wired
from detcore.interfaces import Dataset, Example, Transform
from detcore_data.checks import Counts, Policy
from detcore_data.coco_file import read_coco
from detcore_data.images import Exif, ImageReader, MaxPixels, below, check_folder
from detcore_data.source import ExampleSource


class CocoDataset(Dataset):
    """Images annotated in COCO's format (Lin et al., "Microsoft COCO", arXiv 1405.0312).

    Nothing but the annotation file is read at first. Labels follow the order of ``classes``, or of the
    file's categories; the file's own category ids, whatever they are, are kept in ``class_map.ids``. Crowd
    regions are marked in ``ignore``.

    Args:
        root: Folder that the other paths are relative to; a data module supplies one to all its datasets.
        annotations: The JSON file.
        images: Folder that its ``file_name`` entries are relative to.
        classes: The classes that are wanted, in the order of their labels; None for all. Annotations of
            others are left out, and counted.
        transforms: Applied to every example, in order.
        filter_empty: Whether images without objects are left out; kept, they are all background.
        policy: What to do with boxes that reach out of their image by more than a pixel: cut them off
            (``clip``), leave them out (``drop``) or raise (``error``). Boxes without an extent inside their
            image are left out, and raise with ``error``. Both are counted in ``counts`` and logged once.
        with_masks: Whether examples have instance masks, from polygons and run lengths.
        exif: What to do with the orientation that a camera noted in a file; ``auto`` does what the
            annotated size asks for.
        max_pixels: Largest height * width that is decoded, in pixels.

    Raises:
        DataError: The file or the folder is missing, the file is not of COCO's structure or contradicts
            itself, or a class is unknown; names the file, the record, the key and the value.
    """

    def __init__(
        self,
        *,
        root: Path | None = wired(None, may_override=True),
        annotations: Path,
        images: Path,
        classes: tuple[str, ...] | None = wired(None, may_override=True),
        transforms: tuple[Part[Transform], ...] = (),
        filter_empty: bool = False,
        policy: Policy = "clip",
        with_masks: bool = False,
        exif: Exif = "auto",
        max_pixels: MaxPixels = 100_000_000,
    ) -> None:
        self.transforms = tuple(make(transform) for transform in transforms)
        annotations, images = below(root, annotations), below(root, images)
        reader = ImageReader(check_folder(images, "images"), max_pixels, exif)
        content = read_coco(annotations, classes, with_masks)
        counts = Counts(dangling=content.dangling, other_classes=content.other_classes)
        self._source = ExampleSource(content.records, reader, self.transforms, policy, filter_empty, counts)
        #: What the files have, without the images; evaluation reads its ground truth here.
        self.records = self._source.records
        #: What was left out or found odd.
        self.counts = self._source.counts
        self.class_map = self.records.class_map

    def __len__(self) -> int:
        """Number of images."""
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        """See :class:`~detcore.interfaces.Dataset`."""
        return self._source[index]
