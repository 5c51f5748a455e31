"""Images that are in the training set and in the validation set."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from detcore_data.inspection.findings import Finding, Instance
from detcore_data.inspection.split import Inspected


def inspect_overlap(train: Inspected, val: Inspected, limit: int = 5) -> list[Finding]:
    """One finding where images are in both splits: the same file, or a file of the same content.

    Args:
        train: The training set.
        val: The validation set.
        limit: Largest number of examples.
    """
    paths = {path: i for i, path in enumerate(_paths(train))}
    by_path = {i: paths[path] for i, path in enumerate(_paths(val)) if path in paths}
    digests = {row.tobytes(): i for i, row in enumerate(train.digests) if row.any()}
    shared = dict(by_path)
    for i, row in enumerate(val.digests):
        if row.any() and i not in shared and row.tobytes() in digests:
            shared[i] = digests[row.tobytes()]
    if not shared:
        return []
    examples = tuple(
        Instance(
            val.records[i].file,
            i,
            detail="" if i in by_path else f"the same picture as {train.records[j].file}",
        )
        for i, j in sorted(shared.items())[:limit]
    )
    return [
        Finding(
            "train-val-overlap",
            val.name,
            "warning",
            len(shared),
            f"images of {val.name} that are in {train.name} too ({len(shared) / len(val.records):.0%})",
            "take them out of one of the two: what is measured on images that were trained on says little",
            examples,
        )
    ]


def _paths(split: Inspected) -> list[str]:
    """Every image's path, without links and dots in its folder."""
    root = str(split.root.resolve()) if split.root is not None else ""
    return [str(Path(root, name.decode())) for name in np.asarray(split.records.files)]
