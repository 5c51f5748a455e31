"""Images that are the same, told by their files' bytes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from detcore_data.inspection.findings import Finding, Instance
from detcore_data.records import Records


def check_copies(split: str, records: Records, digests: np.ndarray, limit: int) -> Iterator[Finding]:
    """Different image files with the same content.

    Args:
        split: Its name.
        records: The split.
        digests: Per image 16 bytes, zeros where it was not looked at.
        limit: Largest number of examples.
    """
    keys = as_keys(digests)
    order = np.argsort(keys, kind="stable")
    ordered, files = keys[order], records.files[order]
    copies = (ordered[1:] == ordered[:-1]) & digests[order[1:]].any(-1) & (files[1:] != files[:-1])
    second = np.flatnonzero(copies) + 1
    if len(second):
        examples = tuple(
            Instance(
                records[int(order[i])].file,
                int(order[i]),
                detail=f"the same picture as {records[int(order[i - 1])].file}",
            )
            for i in second[:limit]
        )
        yield Finding(
            "same-picture-twice",
            split,
            "warning",
            len(second),
            "image files with the content of another one",
            "remove the copies, or they count double and their annotations may differ",
            examples,
        )


def as_keys(digests: np.ndarray) -> np.ndarray:
    """Digests [I, 16] as I comparable values."""
    return np.ascontiguousarray(digests).view(f"S{digests.shape[1]}").ravel()
