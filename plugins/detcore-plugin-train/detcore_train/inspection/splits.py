"""The datasets of an experiment, made so that they hide nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from detcore_data import ConcatDataset, RepeatDataset, with_transforms
from detcore_data.inspection import Finding
from detcore_data.inspection.findings import Instance

from detcore.component import Spec, make
from detcore.errors import ConfigError, DataError
from detcore.interfaces import Dataset
from detcore.signature import signature_of

SPLITS = ("train", "val")


@dataclass(frozen=True)
class Split:
    """One dataset to look at.

    Args:
        name: ``train``, ``val``, or a part of them: ``train[0]``.
        dataset: The dataset.
        policy: What training will do about bad boxes; None where the dataset's specification does not say.
    """

    name: str
    dataset: Dataset
    policy: Any

    @property
    def of(self) -> str:
        """``train`` or ``val``."""
        return self.name.partition("[")[0]


@dataclass(frozen=True)
class _Part:
    """A dataset, or its specification, that holds no others."""

    name: str
    dataset: Any
    given: Mapping[str, Any] = field(default_factory=dict)
    transforms: tuple[Any, ...] = ()


def splits_of(data: Any) -> tuple[list[Split], list[Finding]]:
    """The datasets of an experiment with their own policies; and what cannot be made.

    Of datasets that are made of others (``ConcatDataset``, ``RepeatDataset``) each one is looked at once.

    Args:
        data: A data module, or its specification.

    Raises:
        ConfigError: It has neither a training nor a validation set.
    """
    parts = (
        data.complete() if isinstance(data, Spec) else {name: getattr(data, name, None) for name in SPLITS}
    )
    if not any(parts.get(name) is not None for name in SPLITS):
        raise ConfigError("data has neither 'train' nor 'val', so there is nothing to inspect")
    shared = {key: parts[key] for key in ("root", "classes") if parts.get(key) is not None}
    found: list[Split] = []
    findings: list[Finding] = []
    for name in SPLITS:
        if parts.get(name) is None:
            continue
        before = len(found)
        for part in _parts(_Part(name, parts[name], shared)):
            try:
                found.append(_made(part))
            except (ConfigError, DataError) as error:
                findings.append(_unreadable(part.name, error))
        if len(found) > before:
            shared = {"classes": found[before].dataset.class_map.names, **shared}
    return found, findings


def _parts(part: _Part) -> Iterator[_Part]:
    """The datasets that a dataset is made of, or itself."""
    kind = part.dataset.type if isinstance(part.dataset, Spec) else type(part.dataset)
    if not issubclass(kind, (ConcatDataset, RepeatDataset)):
        yield part
        return
    values = part.dataset.complete() if isinstance(part.dataset, Spec) else vars(part.dataset)
    own = {key: values[key] for key in ("root", "classes") if values.get(key) is not None}
    given = {**part.given, **own}
    if issubclass(kind, RepeatDataset):
        yield from _parts(_Part(part.name, values["dataset"], given, part.transforms))
        return
    transforms = (*values["transforms"], *part.transforms)
    for number, member in enumerate(values["datasets"]):
        yield from _parts(_Part(f"{part.name}[{number}]", member, given, transforms))


def _made(part: _Part) -> Split:
    policy = part.dataset.complete().get("policy") if isinstance(part.dataset, Spec) else None
    with _quiet():
        dataset: Dataset = make(_hiding_nothing(part.dataset), **part.given)
    if part.transforms:
        own = getattr(dataset, "transforms", ())
        dataset = with_transforms(dataset, (*own, *(make(transform) for transform in part.transforms)))
    return Split(part.name, dataset, policy)


def _hiding_nothing(part: Any) -> Any:
    if not isinstance(part, Spec):
        return part
    parameters = signature_of(part.type).parameters
    changes = {"policy": "clip", "filter_empty": False}
    return part.replace(**{name: value for name, value in changes.items() if name in parameters})


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the datasets' own warnings about what the report will say anyway."""
    logger = logging.getLogger("detcore_data")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _unreadable(name: str, error: Exception) -> Finding:
    return Finding(
        "cannot-be-read",
        name,
        "error",
        1,
        "the dataset cannot be made",
        "correct what the message names, then inspect again",
        (Instance(detail=str(error)),),
    )
