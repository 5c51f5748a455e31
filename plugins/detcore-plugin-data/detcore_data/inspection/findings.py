"""What an inspection says."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from detcore_data.records import Records

#: ``error``: training stops there, or learns something wrong; ``warning``: it costs accuracy or misleads;
#: ``note``: to be known.
Severity: TypeAlias = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

Box: TypeAlias = tuple[float, float, float, float]


@dataclass(frozen=True)
class Instance:
    """One place where something was found.

    Args:
        file: Path of the image below the image folder; empty where it is about no image.
        image: Position of the image in the split, or None.
        annotation: Id of the annotation in its file (its position where the format has no ids), or None.
        box: xyxy in pixels of the file, or None.
        label: Name of its class, or None.
        detail: What is special about it.
    """

    file: str = ""
    image: int | None = None
    annotation: int | None = None
    box: Box | None = None
    label: str | None = None
    detail: str = ""

    def __str__(self) -> str:
        """The image, the annotation and the detail, as far as there are any."""
        number = "" if self.annotation is None else f"annotation {self.annotation}"
        where = ", ".join(part for part in (self.file, number) if part)
        return f"{where}: {self.detail}" if where and self.detail else where or self.detail


@dataclass(frozen=True)
class Finding:
    """One kind of thing that was found in a split.

    Args:
        check: Name of the check.
        split: ``train``, ``val``, or both for what concerns both.
        severity: See :data:`Severity`.
        count: How often.
        what: What was found.
        remedy: What to do about it.
        examples: The first ones.
    """

    check: str
    split: str
    severity: Severity
    count: int
    what: str
    remedy: str
    examples: tuple[Instance, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON; numbers that JSON does not have are texts."""
        content = dataclasses.asdict(self)
        for example in content["examples"]:
            if example["box"] is not None:
                example["box"] = [x if math.isfinite(x) else str(x) for x in example["box"]]
        content["examples"] = list(content["examples"])
        return content


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """The worst first; otherwise in their order."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def instances(records: Records, rows: Tensor, details: list[str] | None = None) -> tuple[Instance, ...]:
    """Annotations as examples.

    Args:
        records: Where they are.
        rows: Their positions.
        details: What is special about each; their boxes where None.
    """
    images = torch.searchsorted(records.offsets, rows, right=True) - 1
    found = []
    for number, (row, image) in enumerate(zip(rows.tolist(), images.tolist(), strict=True)):
        x, y, w, h = records.annotations.boxes[row].tolist()
        of_any = bool(records.annotations.any_class[row])
        found.append(
            Instance(
                file=records[image].file,
                image=image,
                annotation=int(records.annotations.ids[row]),
                box=(x, y, x + w, y + h),
                label=None if of_any else records.class_map.names[int(records.annotations.labels[row])],
                detail=f"x={x:g} y={y:g} w={w:g} h={h:g}" if details is None else details[number],
            )
        )
    return tuple(found)
