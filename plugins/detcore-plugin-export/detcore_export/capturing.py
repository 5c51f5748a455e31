"""A detector as one graph, and which part is to blame where it cannot be one."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from detcore_export.errors import NotExportableError
from detcore_export.module import ExportModule


def capture(module: ExportModule, example: tuple[Tensor, ...], *, batch: bool, size: bool) -> ExportedProgram:
    """The graph of a detector.

    Args:
        module: What is exported.
        example: Images [B, 3, H, W], and sizes [B, 2] where these are an input.
        batch: Whether the number of images may vary.
        size: Whether their height and width may.

    Raises:
        NotExportableError: A module cannot be captured; names it, and the reason.
    """
    rows: dict[int, Any] = {0: Dim.DYNAMIC if batch else Dim.STATIC}
    plane: dict[int, Any] = {2: Dim.DYNAMIC, 3: Dim.DYNAMIC} if size else {}
    shapes: dict[str, Any] = {"images": rows | plane}
    if len(example) > 1:
        shapes["sizes"] = rows
    try:
        with quietly():
            return torch.export.export(module, example, dynamic_shapes=shapes, strict=True)
    except Exception as cause:
        path, guilty, reason = blame(module, example, cause)
        raise NotExportableError(
            f"{path} ({type(guilty).__name__}) cannot be captured by torch.export: {describe(reason)}"
        ) from cause


@contextmanager
def quietly() -> Iterator[None]:
    """Without gradients, and without the warnings that torch gives of itself while it traces."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def blame(module: nn.Module, args: tuple[Any, ...], cause: Exception) -> tuple[str, nn.Module, Exception]:
    """The innermost module that cannot be captured on its own, its path, and why.

    Where all modules inside can, it is the one that holds them: what it does between them, or its post-processing.
    """
    path, kwargs = "", dict[str, Any]()
    while True:
        for name, child, given in _calls(module, args, kwargs):
            try:
                with quietly():
                    torch.export.export(child, *given, strict=True)
            except Exception as inner:
                path, module, (args, kwargs), cause = f"{path}.{name}", child, given, inner
                break
        else:
            return path.strip(".").removeprefix("detector").strip(".") or "the detector", module, cause


def _calls(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[tuple[str, nn.Module, tuple[tuple[Any, ...], dict[str, Any]]]]:
    """The direct children that a run calls, in order, with what they are given; the detector counts as called."""
    if isinstance(module, ExportModule):  # calls its detector's methods
        module = module.detector
        children = [(f"detector.{name}", child) for name, child in module.named_children()]
        run: Any = ExportModule(module)
    else:
        children, run = list(module.named_children()), module
    seen: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}
    with ExitStack() as stack, quietly():
        for name, child in children:

            def note(_: nn.Module, args: Any, kwargs: Any, name: str = name) -> None:
                seen.setdefault(name, (args, kwargs))

            hook = child.register_forward_pre_hook(note, with_kwargs=True)
            stack.callback(hook.remove)
        try:
            run(*args, **kwargs)
        except Exception:
            return []
    named = dict(children)
    return [(name, named[name], given) for name, given in seen.items()]


def describe(cause: BaseException) -> str:
    """The reason in one line, with the line of code where torch tells it."""
    text = str(cause).strip()
    first = text.splitlines()[0] if text else type(cause).__name__
    explained = re.search(r"Explanation: (.+)", text)
    frames = re.findall(r'File "([^"]+)", line (\d+), in (\w+)\n\s+(.+)', text)
    own = [frame for frame in frames if "/torch/" not in frame[0].replace("\\", "/")]
    where = ""
    if own:
        file, line, function, code = own[-1]
        name = file.replace("\\", "/").rsplit("/", 1)[-1]
        where = f" (at `{code.strip()}`, {name}:{line}, in {function})"
    return f"{first}{'; ' + explained[1] if explained else ''}{where}"
