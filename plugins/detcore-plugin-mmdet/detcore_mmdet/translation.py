"""From an MMDetection configuration to one of detcore."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from detcore.errors import BrokenPluginError, Problem, join_path
from detcore_mmdet.catalog import translator_for, why_missing
from detcore_mmdet.errors import TranslationError
from detcore_mmdet.options import Options, Report
from detcore_mmdet.reference_types import SETTINGS


@dataclass(frozen=True)
class Translation:
    """A translated configuration, and what to know about it.

    Args:
        config: detcore's configuration.
        report: Notes, and what loading weights needs.
    """

    config: dict[str, Any]
    report: Report

    @property
    def notes(self) -> tuple[Problem, ...]:
        """What was left out on purpose, or decided, each with its path in the reference's configuration."""
        return tuple(dict.fromkeys(self.report.notes))


def translate(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The detcore configuration of an MMDetection component or model, of the dialects of 2.x and 3.x.

    ``detcore.build`` makes the component of it. Parameters are set so that it gives the reference's numbers.

    Args:
        cfg: A component (``{"type": "FPN", ...}``), a model, or a whole configuration with the key
            ``model``. It is not changed.

    Raises:
        TranslationError: A type or an option has no counterpart; all of them are listed, with their paths.
    """
    return translation_of(cfg).config


def translation_of(cfg: Mapping[str, Any]) -> Translation:
    """As :func:`translate`, with the notes that were made on the way."""
    model, path = model_of(cfg)
    report = Report()
    config = _translate(Options(model, path, report, _translate))
    if report.problems:
        title = f"MMDetection's {model.get('type', 'configuration')}"
        raise TranslationError(report.problems, title)
    return Translation(_plain(config), report)


def model_of(cfg: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The model of a whole configuration, and its path; anything else as it is.

    2.x kept ``train_cfg`` and ``test_cfg`` beside the model once, and the normalisation of images in the
    pipelines.

    Raises:
        TranslationError: It is no mapping, or has neither ``type`` nor ``model``.
    """
    if not isinstance(cfg, Mapping):
        raise TranslationError(f"a configuration is a mapping with 'type', got {type(cfg).__name__}")
    model = cfg.get("model")
    if "type" in cfg or model is None:
        if not isinstance(cfg.get("type"), str):
            raise TranslationError(
                [Problem("type", f"expected the name of a component, got {cfg.get('type')!r}")]
            )
        return dict(cfg), ""
    if not isinstance(model, Mapping) or not isinstance(model.get("type"), str):
        raise TranslationError([Problem("model", f"expected a dict with 'type', got {str(model)[:60]}")])
    model = dict(model)
    for name in ("train_cfg", "test_cfg"):
        outside = cfg.get(name)
        if name not in model and isinstance(outside, Mapping) and not is_loop(outside):
            model[name] = outside
    if not model.get("data_preprocessor"):
        found = cfg.get("data_preprocessor") or _normalisation(cfg)
        if found:
            model["data_preprocessor"] = found
    return model, "model"


def is_loop(cfg: Mapping[str, Any]) -> bool:
    """In 3.x the keys of that name at the root configure the training loop."""
    return "by_epoch" in cfg or "max_epochs" in cfg or str(cfg.get("type", "")).endswith("Loop")


def _normalisation(cfg: Mapping[str, Any]) -> dict[str, Any] | None:
    """The preprocessor that the first ``Normalize`` and ``Pad`` of the pipelines amount to (2.x)."""
    steps = [step for step in _steps(cfg) if isinstance(step.get("type"), str)]
    norm = next((step for step in steps if step["type"] == "Normalize"), None)
    if norm is None:
        return None
    pad = next((step for step in steps if step["type"] == "Pad"), {})
    return {
        "type": "DetDataPreprocessor",
        "mean": norm.get("mean"),
        "std": norm.get("std"),
        "bgr_to_rgb": norm.get("to_rgb", True),
        "pad_size_divisor": pad.get("size_divisor", 1),
    }


def _steps(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        if "type" in value:
            yield value
        for item in value.values():
            yield from _steps(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _steps(item)


def _translate(o: Options) -> dict[str, Any] | None:
    try:
        translator = translator_for(o.type)
    except BrokenPluginError as error:
        o.problem("type", str(error))
        return None
    if translator is None:
        o.problem("type", *why_missing(o.type))
        _missing_below(o)
        return None
    try:
        result = translator(o)
    except (TypeError, ValueError, KeyError, AttributeError, IndexError) as cause:
        o.problem(
            "",
            f"the options of {o.type} cannot be read ({type(cause).__name__}: {cause})",
            "correct their types",
        )
        return None
    o.finish()
    return result


def _missing_below(o: Options) -> None:
    """Names the parts of an unknown component that are missing too, also in its owner's settings."""

    def visit(value: Any, path: str, root: bool = False) -> None:
        if isinstance(value, Mapping):
            name = value.get("type")
            if isinstance(name, str) and not root and _is_missing(name):
                message, remedy = why_missing(name.rpartition(".")[2])
                o.report.problems.append(Problem(join_path(path, "type"), message, remedy))
            for key, item in value.items():
                visit(item, join_path(path, key))
        elif isinstance(value, (list, tuple)):
            for index, item in enumerate(value):
                visit(item, join_path(path, index))

    for options in o.with_settings():
        visit(options.data, options.path, root=True)
        options.take_all()


def _is_missing(name: str) -> bool:
    bare = name.rpartition(".")[2]
    return bare not in SETTINGS and translator_for(bare) is None


def _plain(value: Any) -> Any:
    """Lists in place of tuples, and nothing shared with the input."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
