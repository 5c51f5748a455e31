"""MMDetection's checkpoint files, read without running anything that is in them.

A ``.pth`` file is a pickle: a program that builds objects. torch's restricted unpickler runs it here with a
short list of classes, each replaced by an inert stand-in: what training leaves in a file beside the weights
(histories, numpy scalars) is thrown away unseen.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detcore.errors import CheckpointError
from detcore.weights import read_weights

#: Under which keys programs of the OpenMMLab family keep the weights, the best first.
_WRAPPERS = ("state_dict", "model", "model_state")
#: What a wrapper for several devices puts before every name.
_PREFIX = "module."


class Inert:
    """Stands for an object that is not weights: takes any state, and has none."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Inert:
        """Takes any arguments."""
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        """Drops the state."""


#: Full names that may occur beside the weights, none of which is imported.
_INERT_NAMES = (
    "mmengine.logging.history_buffer.HistoryBuffer",
    "mmengine.logging.message_hub.MessageHub",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.ndarray",
    "numpy.dtype",
    "numpy.bool_",
    "numpy.float32",
    "numpy.float64",
    "numpy.int32",
    "numpy.int64",
    "numpy.dtypes.Float32DType",
    "numpy.dtypes.Float64DType",
    "numpy.dtypes.Int32DType",
    "numpy.dtypes.Int64DType",
    "numpy.dtypes.BoolDType",
    "numpy.dtypes.StrDType",
    "datetime.datetime",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
)


class Checkpoint(dict[str, Tensor]):
    """Weights by MMDetection's names, and what the file tells of them.

    Args:
        weights: The weights.
        meta: Plain data: texts, numbers, and collections of them.
        source: The file.
    """

    def __init__(
        self, weights: Mapping[str, Tensor], meta: Mapping[str, Any] | None = None, source: str = ""
    ) -> None:
        super().__init__(weights)
        self.meta = dict(meta or {})
        self.source = source

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the classes, in the order of their labels, or None where the file has none."""
        dataset = self.meta.get("dataset_meta")
        inner = dataset if isinstance(dataset, Mapping) else {}
        for value in (inner.get("classes"), inner.get("CLASSES"), self.meta.get("CLASSES")):
            if isinstance(value, str):
                return (value,)
            if isinstance(value, (list, tuple)) and value and all(isinstance(name, str) for name in value):
                return tuple(value)
        return None


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Reads a checkpoint of MMDetection; nothing in it is executed.

    Args:
        path: A ``.pth`` file, or ``.safetensors`` with MMDetection's names.

    Returns:
        The weights by name, on the CPU; averaged weights (EMA) are used by MMDetection's own naming only.

    Raises:
        CheckpointError: The file is missing or damaged, needs objects that are not on the short list, holds
            no weights, or holds weights that are not finite.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; give the path of a .pth or .safetensors file")
    if path.suffix == ".safetensors":
        content: Any = read_weights(str(path))
    else:
        content = _unpickle(path)
    weights = _weights_in(content, path)
    _check_finite(weights, path)
    meta = content.get("meta") if isinstance(content, Mapping) else None
    return Checkpoint(weights, _plain(meta) if isinstance(meta, Mapping) else {}, str(path))


def _unpickle(path: Path) -> Any:
    _check_archive(path)
    allowed: list[Any] = [(Inert, name) for name in _INERT_NAMES]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(allowed):
            warnings.simplefilter("ignore")  # of torch, about old files
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as cause:
        raise CheckpointError(f"{path}: {_needs(str(cause))}") from cause
    except Exception as cause:  # what a damaged file makes torch raise is not limited to a list of classes
        text = " ".join(str(cause).split())[:200]
        raise CheckpointError(
            f"{path}: damaged, or not a file of weights ({type(cause).__name__}: {text}); fetch it again"
        ) from cause


def _check_archive(path: Path) -> None:
    """Checks the sums of a zip archive, so that damage is found before it is interpreted."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except Exception as cause:  # zipfile, too, raises whatever a crafted header leads to
        raise CheckpointError(f"{path}: damaged archive ({cause}); fetch it again") from cause
    if broken is not None:
        raise CheckpointError(f"{path}: damaged at {broken!r} (its check sum is wrong); fetch it again")


def _needs(message: str) -> str:
    found = re.search(r"GLOBAL (\S+)", message)
    if found is None:
        return f"not a file of weights, or damaged ({' '.join(message.split())[:200]}); fetch it again"
    return (
        f"holds an object of {found[1]!r}, which would have to be executed to be read, so nothing of the "
        "file was loaded; where you trust it, open it with MMDetection, and save its 'state_dict' alone"
    )


def _weights_in(content: Any, path: Path) -> dict[str, Tensor]:
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"{path}: expected weights by name, found {type(content).__name__} without any")
    for name, value in content.items():
        if not isinstance(name, str) or not _is_plain_tensor(value):
            what = f"{type(value).__name__} under {str(name)[:80]!r}"
            raise CheckpointError(f"{path}: expected dense tensors by name, found {what}")
    weights = {name: value.detach() for name, value in content.items()}
    if all(name.startswith(_PREFIX) for name in weights):
        weights = {name.removeprefix(_PREFIX): value for name, value in weights.items()}
    return weights


def _is_plain_tensor(value: Any) -> bool:
    if type(value) not in (Tensor, nn.Parameter):
        return False
    return value.layout == torch.strided and not value.is_meta and not value.is_quantized


def _check_finite(weights: Mapping[str, Tensor], path: Path) -> None:
    bad = [
        n for n, t in weights.items() if (t.is_floating_point() or t.is_complex()) and not t.isfinite().all()
    ]
    if bad:
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise CheckpointError(
            f"{path}: NaN or infinity in {', '.join(bad[:5])}{more}; training diverged before this was "
            "saved: take an earlier checkpoint"
        )


def _plain(value: Any, depth: int = 0) -> Any:
    """Plain data without whatever else a file has; None in its place."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if depth > 20:
        return None
    if isinstance(value, Mapping):
        return {str(key): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, depth + 1) for item in value]
    return None
