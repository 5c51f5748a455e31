"""Augmentation of tests: ``tta_model`` and ``tta_pipeline`` of 3.x, as an ``AugmentedDetector`` around the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detcore.errors import Problem
from detcore.interfaces import Detector
from detcore.serialize import build
from detcore_mmdet.errors import TranslationError
from detcore_mmdet.families.postprocess import with_suppression
from detcore_mmdet.options import Options, Report

#: Largest relative difference of the factors of the long and the short edge that is rounding.
_ROUNDING = 0.01


@dataclass(frozen=True)
class Augmentation:
    """How images are looked at in tests, translated.

    Args:
        config: An ``AugmentedDetector`` without its ``detector``; None where something has no counterpart.
        notes: What was decided.
        problems: What has no counterpart.
    """

    config: dict[str, Any] | None
    notes: tuple[Problem, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def options(self) -> str:
        """The same for the command line of ``detcore predict`` and ``detcore eval``."""
        if self.config is None:
            return ""
        flip = " --flip" if self.config["flip"] else ""
        soft = " --merge soft_nms" if self.config["merger"].get("nms", {}).get("type") == "SoftNMS" else ""
        return f"--scales {','.join(f'{scale:g}' for scale in self.config['scales'])}{flip}{soft}"


def augmentation_of(cfg: Mapping[str, Any]) -> Augmentation | None:
    """The augmentation of a whole configuration; None where it has neither ``tta_model`` nor ``tta_pipeline``.

    MMDetection scales the file anew for each version. Here the image is first brought to the size of tests, and
    scaled by a factor from there, so that numbers differ a little.

    Args:
        cfg: The whole configuration, as read.
    """
    if not isinstance(cfg.get("tta_model"), Mapping) and not cfg.get("tta_pipeline"):
        return None
    report = Report()
    root = Options(cfg, "", report, lambda options: None)
    config: dict[str, Any] = {"type": "AugmentedDetector", **_versions(root), **_merging(root)}
    if report.problems:
        return Augmentation(None, tuple(report.notes), tuple(report.problems))
    root.note(
        "tta_pipeline", "images are brought to the size of tests first, and scaled by factors from there"
    )
    return Augmentation(config, tuple(report.notes))


def augmented(detector: Detector, cfg: Mapping[str, Any]) -> Detector:
    """A detector as the configuration's ``tta_model`` uses it.

    Args:
        detector: The model of the same configuration.
        cfg: The whole configuration, as read.

    Raises:
        TranslationError: It tells nothing about augmentation of tests, or something that has no counterpart.
    """
    found = augmentation_of(cfg)
    if found is None:
        raise TranslationError("the configuration has neither tta_model nor tta_pipeline")
    if found.config is None:
        raise TranslationError(found.problems, "augmentation of tests")
    config = {**found.config, "detector": None}
    result: Detector = build(config, kind="detectors", objects={"detector": detector}).eval()
    return result


def _merging(root: Options) -> dict[str, Any]:
    model = root.options("tta_model")
    kind = model.take("type", "DetTTAModel")
    if str(kind).rpartition(".")[2] != "DetTTAModel":
        model.problem("type", f"{kind!r} has no counterpart in detcore; DetTTAModel has")
        model.take_all()
        return {}
    for name in ("data_preprocessor", "init_cfg", "module"):
        model.take(name)
    settings = model.options("tta_cfg")
    found = with_suppression(settings.same("max_per_img"), settings.options("nms"), default=100)
    merger: dict[str, Any] = {"type": "NMSMerger"}
    merger |= {name: found[name] for name in ("iou_threshold", "nms") if name in found}
    model.finish()
    return {"max_per_img": found.get("max_per_img", 100), "merger": merger}


def _versions(root: Options) -> dict[str, Any]:
    scales: list[Any] = []
    flips: list[Any] = []
    for path, step in _alternatives(root):
        s = root.nested(path, step)
        if s.type == "Resize":
            scales.append(s.take("scale", s.take("img_scale")))
            s.take_all()
        elif s.type == "RandomFlip":
            s.only("direction", "horizontal")
            flips.append(s.take("prob", s.take("flip_ratio")))
        else:
            s.take_all()
        s.finish()
    mirrored = [bool(value) for value in flips]
    if any(value not in (0, 1) for value in flips) or (mirrored and False not in mirrored):
        root.problem("tta_pipeline", f"flips with probabilities {flips}; known are 0, and 0 with 1")
    return {"scales": _factors(root, scales), "flip": True in mirrored}


def _alternatives(root: Options) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The steps among which TestTimeAug chooses, and those beside it, each with its path."""
    for i, step in enumerate(root.take("tta_pipeline", [])):
        if not isinstance(step, Mapping) or str(step.get("type", "")).rpartition(".")[2] != "TestTimeAug":
            continue
        for j, several in enumerate(step.get("transforms", [])):
            for k, one in enumerate(several):
                if isinstance(one, Mapping):
                    yield f"tta_pipeline.{i}.transforms.{j}.{k}", one


def _factors(root: Options, scales: Sequence[Any]) -> list[float]:
    """The scales as factors of the size of tests."""
    if not scales:
        return [1.0]
    base = _edges(_scale_of_tests(root.data)) or _edges(scales[0])
    factors = []
    for scale in scales:
        edges = _edges(scale)
        if edges is None or base is None:
            root.problem("tta_pipeline", f"the scale {scale!r} should be two lengths in pixels")
            continue
        long, short = edges[0] / base[0], edges[1] / base[1]
        if abs(long - short) > _ROUNDING * short:
            root.problem("tta_pipeline", f"the scale {scale!r} is no multiple of the scale of tests, {base}")
        factors.append(round(long, 4))
    return list(dict.fromkeys(factors)) or [1.0]


def _edges(scale: Any) -> tuple[float, float] | None:
    numbers = isinstance(scale, (list, tuple)) and all(isinstance(edge, (int, float)) for edge in scale)
    return (max(scale), min(scale)) if numbers and len(scale) == 2 and min(scale) > 0 else None


def _scale_of_tests(cfg: Mapping[str, Any]) -> Any:
    for place in (
        ("test_pipeline",),
        ("test_dataloader", "dataset", "pipeline"),
        ("val_dataloader", "dataset", "pipeline"),
    ):
        steps: Any = cfg
        for name in place:
            steps = steps.get(name) if isinstance(steps, Mapping) else None
        for step in steps if isinstance(steps, (list, tuple)) else ():
            if isinstance(step, Mapping) and str(step.get("type", "")).rpartition(".")[2] == "Resize":
                return step.get("scale", step.get("img_scale"))
    return None
