"""A detector from an MMDetection configuration and its weights."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from detcore.component import walk
from detcore.errors import CheckpointError, ConfigError, Problem
from detcore.interfaces import Detector, Loss
from detcore.serialize import build
from detcore.structures import ClassMap
from detcore.weights import AdaptedWeights, RenameRules, without_weights
from detcore_mmdet.checkpoints import Checkpoint
from detcore_mmdet.errors import TranslationError
from detcore_mmdet.options import Report
from detcore_mmdet.translation import Translation, translation_of

#: A counter that old files lack, and that nothing reads at the default momentum.
_OPTIONAL = "num_batches_tracked"


@dataclass(frozen=True)
class KeyReport:
    """What became of every weight; names are MMDetection's, but for ``missing``.

    Args:
        mapped: Name there -> name here.
        skipped: Names there that have no place here, as is to be expected.
        unused: Names there that have no place here, and should.
        missing: Names here that got no value.
        mismatched: Name there -> (shape there, shape here), where they differ.
    """

    mapped: dict[str, str]
    skipped: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    mismatched: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] | None = None

    @property
    def fits(self) -> bool:
        """Whether every weight has its place, and every place its weight."""
        return not (self.unused or self.missing or self.mismatched)

    def describe(self) -> str:
        """What does not fit, on one line."""
        shapes = [
            f"{n} ({list(there)} there, {list(here)} here)"
            for n, (there, here) in (self.mismatched or {}).items()
        ]
        parts = (("missing", self.missing), ("unused", self.unused), ("of another shape", shapes))
        return "; ".join(f"{len(names)} {what}: {_some(names)}" for what, names in parts if names)


@dataclass(frozen=True)
class Imported:
    """A detector, and how it came from its file.

    Args:
        detector: The detector, in evaluation mode.
        translation: Its configuration, and notes.
        keys: What became of the weights; None where none were given.
    """

    detector: Detector
    translation: Translation
    keys: KeyReport | None


def from_mmdet(cfg: Mapping[str, Any], state_dict: Mapping[str, Tensor] | None) -> Detector:
    """Builds the detector that an MMDetection configuration describes, with its weights.

    Args:
        cfg: The model's configuration, or a whole one with the key ``model``.
        state_dict: Weights by MMDetection's names (:func:`~detcore_mmdet.load_checkpoint` gives them); None
            keeps random ones. Names of classes are taken from a checkpoint that has them.

    Returns:
        The detector, in evaluation mode.

    Raises:
        TranslationError: Something of the configuration has no counterpart.
        ConfigError: The translated configuration cannot be built.
        CheckpointError: Weights are missing, left over, of another shape or not finite; nothing is loaded.
    """
    return import_detector(cfg, state_dict).detector


def import_detector(cfg: Mapping[str, Any], state_dict: Mapping[str, Tensor] | None) -> Imported:
    """As :func:`from_mmdet`, with the report on configuration and weights."""
    translation = translation_of(cfg)
    detector = _built(translation)
    keys = None
    if state_dict is not None:
        weights = _weights_of(state_dict)
        keys = match_keys(detector, weights, translation.report)
        load(detector, weights, keys, getattr(state_dict, "source", "") or "the given weights")
    classes = class_names(cfg, state_dict)
    if classes is not None and len(classes) == len(detector.class_map):
        detector.class_map = ClassMap(classes)
    return Imported(detector.eval(), translation, keys)


def _built(translation: Translation) -> Detector:
    with without_weights():
        detector = build(translation.config)
    if not isinstance(detector, Detector):
        raise TranslationError(
            f"{type(detector).__name__} is no detector; use detcore.build(translate(cfg)) for parts"
        )
    _check_channels(detector, translation.report)
    return detector


def _check_channels(detector: Detector, report: Report) -> None:
    """The reference states the channels of each part's input; here they are the part's before."""
    problems = []
    parts = dict(walk(detector))
    for place, stated in report.channels.items():
        before = parts.get("backbone") if place == "neck" else parts.get("neck") or parts.get("backbone")
        if before is None or not hasattr(before, "out_features"):
            continue
        actual = tuple(feature.channels for feature in before.out_features)
        if stated != actual and set(stated) != set(actual):
            message = f"in_channels {list(stated)} is stated, the part before gives {list(actual)}"
            problems.append(Problem(place, message, "correct in_channels, or the part before"))
    if problems:
        raise ConfigError(problems, type(detector).__name__)


def _weights_of(state_dict: Mapping[str, Any]) -> Mapping[str, Tensor]:
    inner = state_dict.get("state_dict")
    weights = inner if isinstance(inner, Mapping) else state_dict
    for name, value in weights.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"expected tensors by name, got {type(value).__name__} under {str(name)[:80]!r}"
            )
        if value.is_floating_point() and not value.isfinite().all():
            raise CheckpointError(
                f"{name} holds NaN or infinity; take a checkpoint from before training diverged"
            )
    return weights


def class_names(cfg: Mapping[str, Any], state_dict: object = None) -> tuple[str, ...] | None:
    """The names of the classes, from the checkpoint, else from the data sections; None if nowhere."""
    if isinstance(state_dict, Checkpoint) and state_dict.classes:
        return state_dict.classes
    for path in ("metainfo", "train_dataloader.dataset.metainfo", "data.train", "data.train.dataset", ""):
        place: Any = cfg
        for step in filter(None, path.split(".")):
            place = place.get(step) if isinstance(place, Mapping) else None
        for key in ("classes", "CLASSES"):
            names = place.get(key) if isinstance(place, Mapping) else None
            if isinstance(names, (list, tuple)) and names and all(isinstance(name, str) for name in names):
                return tuple(names)
    return None


# -------------------------------------------------------------------------------------------------- weights


def match_keys(module: torch.nn.Module, weights: Mapping[str, Tensor], report: Report) -> KeyReport:
    """Where each of the reference's weights belongs, and what does not fit.

    Args:
        module: A built component.
        weights: By the reference's names.
        report: Of the component's translation.

    Raises:
        CheckpointError: Two weights get the same name.
    """
    names = renamed(module, weights, report)
    own = module.state_dict()
    skipped = [n for n in names if n.startswith(tuple(report.unused)) or _is_constant(module, n)]
    mapped = {there: here for there, here in names.items() if there not in skipped and here in own}
    given = set(mapped.values()) | _statistics_of_losses(module)
    return KeyReport(
        mapped=mapped,
        skipped=tuple(skipped),
        unused=tuple(n for n in names if n not in skipped and n not in mapped),
        missing=tuple(n for n in own if n not in given and not n.endswith(_OPTIONAL)),
        mismatched={
            there: (tuple(weights[there].shape), tuple(own[here].shape))
            for there, here in mapped.items()
            if weights[there].shape != own[here].shape
        },
    )


def adapt(detector: Detector, weights: Mapping[str, Tensor], source: str) -> AdaptedWeights:
    """The weights of a detector of the reference by the names of one of the same architecture.

    Args:
        detector: A built detector.
        weights: By the reference's names.
        source: What to call their origin in errors.

    Raises:
        CheckpointError: Two weights get the same name, or one is not finite.
    """
    modules = [(name, "head") for name in ("bbox_head", "rpn_head")] if hasattr(detector, "head") else []
    try:
        names = renamed(detector, _weights_of(weights), Report(modules=modules))
    except CheckpointError as cause:
        raise CheckpointError(f"{source}: {cause}") from cause
    own = detector.state_dict()
    skipped = tuple(n for n, new in names.items() if new not in own and _is_constant(detector, n))
    return AdaptedWeights({new: weights[n] for n, new in names.items() if n not in skipped}, skipped)


def renamed(
    module: torch.nn.Module, names: Mapping[str, Any] | Sequence[str], report: Report
) -> dict[str, str]:
    """The reference's weight names -> the component's.

    Raises:
        CheckpointError: Two names become one.
    """
    tables = rename_tables(module)
    result = {name: _rename(name, report.modules, tables) for name in names}
    by_new: dict[str, str] = {}
    for old, new in result.items():
        if new in by_new:
            raise CheckpointError(
                f"{by_new[new]} and {old} both become {new!r}; the tables of names are wrong"
            )
        by_new[new] = old
    return result


def rename_tables(component: Any) -> list[tuple[str, RenameRules]]:
    """The tables ``reference_names`` of a component and its parts, by the part's path; owners come first."""
    found = ((path, getattr(type(part), "reference_names", ())) for path, part in walk(component))
    return [(path, rules) for path, rules in found if rules]


def _rename(name: str, modules: Sequence[tuple[str, str]], tables: Sequence[tuple[str, RenameRules]]) -> str:
    for there, here in modules:
        if name.startswith(f"{there}."):
            name = f"{here}.{name.removeprefix(f'{there}.')}"
            break
    for path, rules in tables:
        prefix = f"{path}." if path else ""
        if name.startswith(prefix):
            rest = name.removeprefix(prefix)
            for pattern, replacement in rules:
                rest = re.sub(pattern, replacement, rest)
            name = prefix + rest
    return name


def _statistics_of_losses(module: torch.nn.Module) -> set[str]:
    """The moving averages of losses: the reference's weights need not have them, and training begins them anew."""
    return {
        f"{path}.{name}" if path else name
        for path, part in module.named_modules()
        if isinstance(part, Loss)
        for name, _ in part.named_buffers(recurse=False)
    }


def _is_constant(module: torch.nn.Module, name: str) -> bool:
    """Whether a part says that a weight of the reference is a constant that it makes itself."""
    patterns = (getattr(type(part), "reference_constants", ()) for _, part in walk(module))  # type: ignore[arg-type]
    return any(re.search(pattern, name) for table in patterns for pattern in table)


def load(module: torch.nn.Module, weights: Mapping[str, Tensor], keys: KeyReport, source: str) -> None:
    """Loads matched weights.

    Raises:
        CheckpointError: They do not fit; nothing is loaded.
    """
    if not keys.fits:
        raise CheckpointError(
            f"{source}: the weights do not fit the {type(module).__name__} of this configuration "
            f"({keys.describe()}); nothing was loaded: give the configuration that they were trained with"
        )
    module.load_state_dict({here: weights[there] for there, here in keys.mapped.items()}, strict=False)


def _some(names: Sequence[str], limit: int = 5) -> str:
    more = f", ... and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
