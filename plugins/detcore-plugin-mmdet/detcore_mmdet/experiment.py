"""Data sections, pipelines and schedules of an MMDetection configuration, as a file to train with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detcore.config import to_yaml
from detcore.errors import Problem
from detcore_mmdet.bridge import Imported


@dataclass(frozen=True)
class Experiment:
    """How to train, translated.

    Args:
        config: An experiment of detcore.
        notes: What was left out or decided.
    """

    config: dict[str, Any]
    notes: tuple[Problem, ...] = ()


def experiment_of(cfg: Mapping[str, Any], imported: Imported) -> Experiment | None:
    """The experiment of a configuration; None where it does not tell how to train."""
    return None


def write_experiment(experiment: Experiment, out: Path) -> Path:
    """Writes an experiment beside the imported model."""
    path = out / "train.yaml"
    path.write_text(to_yaml(experiment.config), encoding="utf-8")
    return path
