"""The inspection of one split."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from detcore.interfaces import Dataset, Transform
from detcore_data.checks import Counts, Policy
from detcore_data.ground_truth import records_of
from detcore_data.images import ImageReader
from detcore_data.inspection.annotations import check_boxes, check_classes, check_duplicates, check_listing
from detcore_data.inspection.facts import ClassFacts, class_facts, split_facts
from detcore_data.inspection.files import FileFacts, look_at_files
from detcore_data.inspection.findings import Finding, instances
from detcore_data.inspection.pictures import check_copies
from detcore_data.inspection.seen import seen_objects
from detcore_data.records import Records
from detcore_data.source import ExampleSource

Advance = Callable[[int], None]

_FILE_FAULTS = {
    "missing-image": ("images that are missing", "put them there, or take them off the list"),
    "undecodable-image": (
        "image files that cannot be decoded",
        "replace them, or take them off the list: training stops at the first",
    ),
    "wrong-image-size": (
        "images that are not of the annotated size",
        "correct the annotated size: boxes refer to it, and training stops at the first",
    ),
}


@dataclass(frozen=True)
class Options:
    """How closely to look.

    Args:
        small: Objects whose shorter side, as the network sees it, is below this are small, in pixels.
        limit: Largest number of images that are opened, spread over the split; None for all. Annotations are
            all checked.
        workers: Threads that read images.
        examples: Examples that are kept of each finding.
        seed: Of random transforms.
    """

    small: float = 8.0
    limit: int | None = None
    workers: int = 2
    examples: int = 5
    seed: int = 0

    def chosen(self, count: int) -> list[int]:
        """Positions of the images that are opened, out of ``count``."""
        if self.limit is None or self.limit >= count:
            return list(range(count))
        return [i * count // self.limit for i in range(self.limit)]


@dataclass(frozen=True)
class Inspected:
    """What an inspection of a split saw.

    Args:
        name: Of the split.
        source: Its annotations' file or folder.
        root: Its image folder; None where the dataset does not tell.
        reader: Reads its images, likewise.
        records: All that its files have, bad boxes included.
        sizes: (h, w) of the images: as decoded where they were opened, else as annotated, zeros where neither.
        digests: Per image 16 bytes that tell its file's content, zeros where it was not opened.
        facts: Numbers that describe it.
        classes: Its classes.
        findings: What was found.
    """

    name: str
    source: str
    root: Path | None
    reader: ImageReader | None
    records: Records
    sizes: Int[Tensor, "I 2"]
    digests: np.ndarray
    facts: dict[str, Any]
    classes: tuple[ClassFacts, ...]
    findings: tuple[Finding, ...]


def inspect_split(
    name: str,
    dataset: Dataset,
    options: Options = Options(),
    *,
    policy: Policy | None = None,
    trained_on: bool = True,
    advance: Advance = lambda number: None,
) -> Inspected:
    """Looks at annotations, images, and objects as the network sees them.

    Args:
        name: Of the split.
        dataset: Made with ``filter_empty=False`` and a policy that does not raise, so that all can be seen.
            Of a dataset that is not of this package every item is read, and image files are not looked at.
        options: How closely to look.
        policy: What training will do about bad boxes; that of the dataset where None.
        trained_on: Whether it is a training set: a class without objects is worse there.
        advance: Called with a number of images that are done, out of :func:`steps`.
    """
    source = _source_of(dataset)
    records = source.every if source is not None else records_of(dataset)
    files = FileFacts(torch.zeros_like(records.sizes), np.zeros((len(records), 16), np.uint8))
    if source is not None:
        files = look_at_files(
            records,
            source.reader,
            options.chosen(len(records)),
            workers=options.workers,
            examples=options.examples,
            advance=advance,
        )
    opened = (files.sizes > 0).all(-1, keepdim=True)
    sizes = torch.where(opened, files.sizes, records.sizes)
    counts = source.counts if source is not None else Counts()
    policy = policy or (source.policy if source is not None else "clip")
    transforms = source.transforms if source is not None else ()
    findings = [
        *_file_findings(name, files),
        *check_boxes(name, records, sizes, policy, options.examples),
        *check_duplicates(name, records, options.examples),
        *check_listing(name, records, options.examples),
        *check_copies(name, records, files.digests, options.examples),
        *check_classes(name, records, options.examples, trained_on=trained_on),
        *_left_out(name, counts, policy),
        *_small(name, records, sizes, transforms, options, advance),
    ]
    return Inspected(
        name=name,
        source=records.source,
        root=source.reader.root if source is not None else None,
        reader=source.reader if source is not None else None,
        records=records,
        sizes=sizes,
        digests=files.digests,
        facts=split_facts(records, sizes, counts),
        classes=class_facts(records),
        findings=tuple(findings),
    )


def steps(dataset: Dataset, options: Options) -> int:
    """How many images :func:`inspect_split` tells ``advance`` of: those that are opened, and as many again."""
    count = len(options.chosen(len(dataset)))
    return count * 2 if _source_of(dataset) is not None else count


def _source_of(dataset: Dataset) -> ExampleSource | None:
    source = getattr(dataset, "_source", None)
    return source if isinstance(source, ExampleSource) else None


def _file_findings(name: str, files: FileFacts) -> Iterator[Finding]:
    for fault, count in files.faults.items():
        what, remedy = _FILE_FAULTS[fault]
        yield Finding(fault, name, "error", count, what, remedy, tuple(files.examples[fault]))


def _left_out(name: str, counts: Counts, policy: Policy) -> Iterator[Finding]:
    if counts.dangling:
        yield Finding(
            "unlisted-image",
            name,
            "error" if policy == "error" else "warning",
            counts.dangling,
            "annotations of images that the file does not list",
            "list the images, or remove the annotations; "
            + ("policy='error' stops there" if policy == "error" else "training leaves them out"),
        )
    if counts.other_classes:
        yield Finding(
            "other-classes",
            name,
            "note",
            counts.other_classes,
            "annotations of classes that were not asked for",
            "they are background; name their classes in `classes` if they are wanted",
        )


def _small(
    name: str,
    records: Records,
    sizes: Tensor,
    transforms: tuple[Transform, ...],
    options: Options,
    advance: Advance,
) -> Iterator[Finding]:
    count, total = 0, 0
    rows: list[int] = []
    details: list[str] = []
    for image in options.chosen(len(records)):
        for seen in seen_objects(records, sizes, transforms, (image,), options.seed):
            extents = seen.boxes[:, 2:] - seen.boxes[:, :2]
            small = (extents.amin(-1) < options.small) & ~seen.ignore
            count, total = count + int(small.sum()), total + int((~seen.ignore).sum())
            for i in small.nonzero().flatten().tolist()[: options.examples - len(rows)]:
                rows.append(int(seen.rows[i]))
                width, height = extents[i].tolist()
                details.append(
                    f"{width:.1f} x {height:.1f} pixels in an image of {seen.size[1]} x {seen.size[0]}"
                )
        advance(1)
    if count:
        yield Finding(
            "small-object",
            name,
            "warning" if count > total / 10 else "note",
            count,
            f"objects whose shorter side is below {options.small:g} pixels after the transforms "
            f"({count / total:.1%} of them)",
            "use larger images (scale of Resize), tiles, or a pyramid with a finer level",
            instances(records, torch.tensor(rows), details),
        )
