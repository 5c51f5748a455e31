"""Records of several datasets as one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detcore.interfaces import Dataset
from detcore_data.records import Annotations, Records
from detcore_data.segmentations import Segmentations
from detcore_data.source import ExampleSource


def id_shifts(members: Sequence[Dataset]) -> list[int]:
    """What has to be added to each dataset's image ids so that no two datasets share one.

    Nothing where they share none, or where one of them keeps no records, which would tell.
    """
    ids = [getattr(member, "records", None) for member in members]
    known = [records.image_ids for records in ids if isinstance(records, Records)]
    if len(known) < len(members):
        return [0] * len(members)
    own = [set(values.tolist()) for values in known]
    if len(set().union(*own)) == sum(map(len, own)):
        return [0] * len(members)
    shifts, top = [0], int(known[0].max())
    for values in known[1:]:
        shifts.append(top + 1 - int(values.min()))
        top += 1 + int(values.max()) - int(values.min())
    return shifts


def join_records(members: Sequence[Dataset], shifts: Sequence[int]) -> Records | None:
    """The records of all datasets, one after another; None where one keeps none.

    Args:
        members: The datasets, of one class map.
        shifts: What is added to their image ids.
    """
    parts = [getattr(member, "records", None) for member in members]
    known = [records for records in parts if isinstance(records, Records)]
    if len(known) < len(members):
        return None
    files = [path for member, part in zip(members, known, strict=True) for path in _paths(member, part)]
    ids = torch.cat([part.image_ids + shift for part, shift in zip(known, shifts, strict=True)])
    counts = torch.cat([part.offsets.diff() for part in known])
    return Records(
        class_map=known[0].class_map,
        source=" + ".join(dict.fromkeys(part.source for part in known)),
        files=np.array([path.encode() for path in files], dtype=np.bytes_),
        image_ids=ids,
        sizes=torch.cat([part.sizes for part in known]),
        offsets=torch.cat((counts.new_zeros(1), counts.cumsum(0))),
        annotations=_join_annotations(known),
        segmentations=_join_segmentations([part.segmentations for part in known]),
    )


def _paths(member: Dataset, records: Records) -> list[str]:
    """Whole paths, where the dataset tells its folder: the datasets need not share one."""
    names = [name.decode() for name in records.files.tolist()]
    source = getattr(member, "_source", None)
    return [str(source.reader.path(name)) for name in names] if isinstance(source, ExampleSource) else names


def _join_annotations(parts: Sequence[Records]) -> Annotations:
    columns: dict[str, Tensor] = {
        field.name: torch.cat([getattr(part.annotations, field.name) for part in parts])
        for field in dataclasses.fields(Annotations)
    }
    first, segments = 0, []
    for part in parts:
        segments.append(part.annotations.segments + first)
        first += 0 if part.segmentations is None else len(part.segmentations.annotation_ends)
    return Annotations(**{**columns, "segments": torch.cat(segments)})


def _join_segmentations(parts: Sequence[Segmentations | None]) -> Segmentations | None:
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    coordinates, polygons, annotations = 0, 0, 0
    polygon_ends, annotation_ends = [], []
    runs: dict[int, Mapping[str, Any]] = {}
    for part in known:
        polygon_ends.append(part.polygon_ends + coordinates)
        annotation_ends.append(part.annotation_ends + polygons)
        runs |= {annotations + index: run for index, run in part.runs.items()}
        coordinates += len(part.coordinates)
        polygons += len(part.polygon_ends)
        annotations += len(part.annotation_ends)
    return Segmentations(
        np.concatenate([part.coordinates for part in known]),
        np.concatenate(polygon_ends),
        np.concatenate(annotation_ends),
        runs,
    )
