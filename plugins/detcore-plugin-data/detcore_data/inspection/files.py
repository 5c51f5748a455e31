"""Whether every image is there, can be decoded and has the annotated size; and which are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from detcore.errors import DataError
from detcore_data.images import ImageReader
from detcore_data.inspection.findings import Instance
from detcore_data.records import Records

Fault: TypeAlias = Literal["missing-image", "undecodable-image", "wrong-image-size"]

_DIGEST = 16
_AT_ONCE = 64


@dataclass
class FileFacts:
    """What was seen in the image files.

    Args:
        sizes: (h, w) as decoded, zeros where the image was not looked at or could not be decoded.
        digests: A digest of each file's bytes, 16 bytes each; zeros where it was not looked at.
        faults: Per kind how many files have it.
        examples: Per kind the first of them.
    """

    sizes: Int[Tensor, "I 2"]
    digests: np.ndarray
    faults: dict[Fault, int] = field(default_factory=dict)
    examples: dict[Fault, list[Instance]] = field(default_factory=dict)


def look_at_files(
    records: Records,
    reader: ImageReader,
    images: Iterable[int],
    *,
    workers: int,
    examples: int,
    advance: Callable[[int], None],
) -> FileFacts:
    """Reads and decodes images, in threads, a few at once.

    Args:
        records: The split.
        reader: Reads its images.
        images: Positions of those to look at.
        workers: Number of threads.
        examples: How many faults of each kind are kept.
        advance: Called with a number of images that are done.
    """
    facts = FileFacts(torch.zeros_like(records.sizes), np.zeros((len(records), _DIGEST), np.uint8))
    with ThreadPoolExecutor(max(1, workers)) as pool:
        todo = list(images)
        for start in range(0, len(todo), _AT_ONCE):
            some = todo[start : start + _AT_ONCE]
            for image, seen in zip(some, pool.map(lambda i: _look(records, reader, i), some), strict=True):
                _note(facts, records, image, seen, examples)
                advance(1)
    return facts


@dataclass(frozen=True)
class _Look:
    """What one file is: its size, a digest, and what is wrong with it."""

    size: tuple[int, int] = (0, 0)
    digest: bytes = bytes(_DIGEST)
    fault: Fault | None = None
    detail: str = ""


def _look(records: Records, reader: ImageReader, image: int) -> _Look:
    record = records[image]
    path = reader.path(record.file)
    if not path.is_file():
        return _Look(fault="missing-image", detail="the image does not exist")
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=_DIGEST)).digest()
    except OSError as cause:
        return _Look(fault="undecodable-image", detail=str(cause))
    try:
        return _Look(_size(reader, record.file, record.size), digest)
    except DataError as error:
        detail = _without_path(str(error), str(path))
    try:
        return _Look(_size(reader, record.file, None), digest, "wrong-image-size", detail)
    except DataError:
        return _Look((0, 0), digest, "undecodable-image", detail)


def _size(reader: ImageReader, file: str, size: tuple[int, int] | None) -> tuple[int, int]:
    height, width = reader(file, size).shape[-2:]
    return int(height), int(width)


def _without_path(message: str, path: str) -> str:
    return message.removeprefix(f"{path}: ")


def _note(facts: FileFacts, records: Records, image: int, seen: _Look, limit: int) -> None:
    facts.sizes[image] = torch.tensor(seen.size)
    facts.digests[image] = np.frombuffer(seen.digest, np.uint8)
    if seen.fault is None:
        return
    facts.faults[seen.fault] = facts.faults.get(seen.fault, 0) + 1
    kept = facts.examples.setdefault(seen.fault, [])
    if len(kept) < limit:
        kept.append(Instance(records[image].file, image, detail=seen.detail))
