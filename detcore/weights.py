"""Weights from elsewhere into a module: resolving an address, renaming, and loading that is all or nothing.

An address is a path (``.safetensors``, a checkpoint's folder, or anything that :func:`torch.save` wrote), or
``scheme://...``, which an installed plugin resolves through the hook ``detcore_resolve_weights``. Whole
detectors of other libraries get detcore's names by the hook ``detcore_adapt_weights``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from detcore import hooks
from detcore.errors import CheckpointError, did_you_mean
from detcore.interfaces.detector import Detector
from detcore.weight_files import read_weights, some

__all__ = [
    "AdaptedWeights",
    "LoadReport",
    "RenameRules",
    "load_state",
    "load_weights",
    "read_weights",
    "rename",
    "skipping_weights",
    "without_initial_values",
    "without_weights",
]

#: (regular expression, replacement) pairs on the names of weights; see :func:`rename`.
RenameRules = Sequence[tuple[str, str]]

#: A counter that old files lack, and that nothing reads at the default momentum.
_OPTIONAL = "num_batches_tracked"

_skipping: ContextVar[bool] = ContextVar("detcore_without_weights", default=False)


@dataclass(frozen=True)
class LoadReport:
    """What was loaded from where.

    Args:
        address: Where the weights came from.
        loaded: Names in the module that were given values.
        skipped: Names in the file that were left out: they were expected to have no place in the module, or
            belong to parts that begin anew.
        kept: Names in the module that were expected to have no value in the file.
        reinitialised: Names in the module that begin anew, because that was asked for.
    """

    address: str
    loaded: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    reinitialised: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """All names, as plain data."""
        names = {kind: list(getattr(self, kind)) for kind in ("loaded", "skipped", "kept", "reinitialised")}
        return {"address": self.address, **names}

    def __str__(self) -> str:
        """Counts on the first line, then the names of what was not simply loaded."""
        kinds = (("skipped", self.skipped), ("kept", self.kept), ("re-initialised", self.reinitialised))
        counts = [f"{len(self.loaded)} loaded", *(f"{len(names)} {kind}" for kind, names in kinds)]
        lines = [f"  {kind}: {some(names, limit=12)}" for kind, names in kinds if names]
        return "\n".join([f"weights from {self.address}: {', '.join(counts)}", *lines])


class AdaptedWeights(NamedTuple):
    """The weights of another library's detector, by the names of one of detcore's.

    Args:
        weights: Tensors by the module's names.
        skipped: Names in the file that have no place here, as is to be expected.
    """

    weights: Mapping[str, Tensor]
    skipped: tuple[str, ...] = ()


@contextmanager
def without_weights() -> Iterator[None]:
    """Inside, :func:`load_weights` does nothing: for models that are given a checkpoint right afterwards."""
    token = _skipping.set(True)
    try:
        yield
    finally:
        _skipping.reset(token)


@contextmanager
def without_initial_values() -> Iterator[None]:
    """Inside, parameters are made without drawing random values: for modules all of whose weights are loaded next.

    They hold whatever the memory held: drawing takes as long as reading, for a ResNet-50. What else a constructor
    computes is computed, buffers among it.
    """
    with _NotDrawing():
        yield


class _NotDrawing(TorchFunctionMode):
    """Leaves out what fills parameters with random values."""

    #: The rest of ``torch.nn.init`` comes down to these.
    _DRAWING: ClassVar[tuple[Any, ...]] = (
        Tensor.uniform_, Tensor.normal_, nn.init.uniform_, nn.init.normal_, nn.init.kaiming_uniform_,
    )  # fmt: skip

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in self._DRAWING:
            tensor = args[0] if args else kwargs["tensor"]
            if isinstance(tensor, nn.Parameter):
                return tensor
        return func(*args, **kwargs)


def skipping_weights() -> bool:
    """Whether :func:`without_weights` is active."""
    return _skipping.get()


def rename(weights: Mapping[str, Tensor], rules: RenameRules) -> dict[str, Tensor]:
    """The weights under other names.

    Args:
        weights: Tensors by name.
        rules: Each is applied to every name with :func:`re.sub`, one after the other.

    Raises:
        ValueError: Two names become one.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        new = name
        for pattern, replacement in rules:
            new = re.sub(pattern, replacement, new)
        if new in renamed:
            raise ValueError(
                f"two weights get the name {new!r}, one of them {name!r}; correct the rename rules"
            )
        renamed[new] = tensor
    return renamed


def load_weights(
    module: nn.Module,
    address: str,
    *,
    prefix: str = "",
    renames: RenameRules = (),
    skip: Sequence[str] = (),
    may_lack: Sequence[str] = (),
    reinit: Sequence[str] = (),
) -> LoadReport | None:
    """Loads weights from an address into a module: everything fits, or nothing is changed.

    Args:
        module: The module. For a :class:`~detcore.interfaces.Detector`, weights of other libraries'
            detectors are adapted by the plugins that know them.
        address: A path, or ``scheme://...``.
        prefix: Only names that begin with it are used, without it (``"backbone."`` in a detector's file).
        renames: From the names in the file to those in the module, applied after ``prefix``.
        skip: Beginnings of renamed names that are left out (``"fc."`` of a classifier).
        may_lack: Beginnings of the module's names that keep the values they have.
        reinit: Parts of the module that begin anew, whatever the file has for them (``"head"``,
            ``"roi_head.bbox_head.fc_cls"``): how to change the number of classes. They keep the values that
            the module was made with.

    Returns:
        What was loaded; None inside :func:`without_weights` and for a module on the meta device.

    Raises:
        CheckpointError: The address cannot be resolved or read, the weights do not fit, or the module has no
            part that ``reinit`` names.
    """
    if skipping_weights() or any(tensor.is_meta for tensor in module.state_dict().values()):
        return None
    weights = read_weights(address)
    within = {
        name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)
    }
    if not within:
        raise CheckpointError(f"{address}: no weight's name begins with {prefix!r}; it has {some(weights)}")
    try:
        adapted = AdaptedWeights(rename(within, renames))
    except ValueError as cause:
        raise CheckpointError(f"{address}: {cause}") from cause
    whole = isinstance(module, Detector)
    if whole and not (prefix or renames):
        found = hooks.manager().hook.detcore_adapt_weights(address=address, weights=within, detector=module)
        adapted = found or adapted
    return load_state(
        module, adapted.weights, source=address, skip=skip, may_lack=may_lack,
        reinit=reinit if reinit or whole else None, left_out=adapted.skipped,
    )  # fmt: skip


def load_state(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    source: str,
    skip: Sequence[str] = (),
    may_lack: Sequence[str] = (),
    reinit: Sequence[str] | None = None,
    left_out: Sequence[str] = (),
) -> LoadReport:
    """Loads weights by name into a module: everything fits, or nothing is changed.

    Args:
        module: The module.
        weights: Tensors by the module's names. Of weights that share their storage, one may stand for all.
        source: What to call their origin in errors.
        skip: As for :func:`load_weights`.
        may_lack: As for :func:`load_weights`.
        reinit: As for :func:`load_weights`; None where the caller offers no such choice, so that errors do not
            name it as the remedy.
        left_out: Names in the file that were left out before, for the report.

    Raises:
        CheckpointError: Names are missing or left over, or shapes differ; the first of each are named.
    """
    own = module.state_dict()
    anew = [part.rstrip(".") for part in reinit or ()]
    _check_parts(anew, own)
    fresh = tuple(name for name in own if _inside(name, anew))
    skipped = tuple(name for name in weights if name.startswith(tuple(skip)) or _inside(name, anew))
    used = {name: tensor for name, tensor in weights.items() if name not in skipped}
    tied = _tied(own, used)
    absent = [name for name in own if name not in used and name not in fresh and name not in tied]
    kept = tuple(name for name in absent if name.startswith(tuple(may_lack)))
    missing = [name for name in absent if name not in kept and not name.endswith(_OPTIONAL)]
    unexpected = [name for name in used if name not in own]
    other_shape = [name for name in own if name in used and used[name].shape != own[name].shape]
    if missing or unexpected or other_shape:
        shapes = [
            f"{name} ({list(used[name].shape)} in the file, {list(own[name].shape)} in the model)"
            for name in other_shape
        ]
        problems = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
        found = "; ".join(f"{len(names)} {what}: {some(names)}" for what, names in problems.items() if names)
        remedy = "" if reinit is None else _reinit_remedy(missing, other_shape, own, anew)
        raise CheckpointError(
            f"{source}: the weights do not fit {type(module).__name__} ({found}); nothing was loaded: "
            f"give weights of this architecture, or change its parameters to those of the weights{remedy}"
        )
    module.load_state_dict(used, strict=False)
    loaded = tuple(name for name in own if name in used)
    return LoadReport(source, loaded, (*left_out, *skipped), kept, fresh)


def _inside(name: str, parts: Sequence[str]) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def _check_parts(parts: Sequence[str], own: Mapping[str, Tensor]) -> None:
    """Checks that the model has what is to begin anew.

    Raises:
        CheckpointError: It has not.
    """
    for part in parts:
        if any(_inside(name, [part]) for name in own):
            continue
        paths = {".".join(name.split(".")[:depth]) for name in own for depth in range(1, name.count(".") + 2)}
        near = did_you_mean(part, sorted(paths))
        top = ", ".join(dict.fromkeys(name.split(".")[0] for name in own))
        hint = f"; {near}" if near else ""
        raise CheckpointError(f"reinit: the model has no part {part!r} with weights{hint}; it has: {top}")


def _tied(own: Mapping[str, Tensor], used: Mapping[str, Tensor]) -> set[str]:
    """Names that share their storage with one that gets a value: tied weights are stored once."""
    given = {own[name].data_ptr() for name in used if name in own and own[name].numel()}
    return {n for n, tensor in own.items() if n not in used and tensor.numel() and tensor.data_ptr() in given}


def _reinit_remedy(
    missing: Sequence[str], other_shape: Sequence[str], own: Mapping[str, Tensor], anew: Sequence[str]
) -> str:
    """How to say that a difference is meant; empty where nothing would be left to load."""
    parts = list(dict.fromkeys(name.rpartition(".")[0] or name for name in other_shape))
    parts += list(dict.fromkeys(name.split(".")[0] for name in missing))
    parts = [part for part in parts if not _inside(part, [other for other in parts if other != part])]
    if not parts or all(_inside(name, parts) for name in own):
        return ""
    parts = [*anew, *parts]
    options = " ".join(f"--reinit {part}" for part in parts)
    return (
        "; where the difference is meant (another number of classes), let these parts begin anew: "
        f"reinit={parts} in Python and in the experiment, {options} for detcore train"
    )
