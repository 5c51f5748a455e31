"""A captured detector as a file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from detcore_export.capturing import describe, quietly
from detcore_export.errors import NotExportableError
from detcore_export.onnx_operators import translations
from detcore_export.runtime import KEY


def write_onnx(
    program: ExportedProgram,
    path: Path,
    facts: Mapping[str, Any],
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    opset: int | None,
) -> None:
    """Writes ONNX.

    Args:
        program: The graph.
        path: The file.
        facts: What it is to say of itself.
        inputs: Their names.
        outputs: Their names.
        opset: Version of ONNX's operators; torch's choice where None.

    Raises:
        NotExportableError: An operator has no translation; names it and the module that has it.
    """
    try:
        with quietly():
            written = torch.onnx.export(
                program,
                dynamo=True,
                custom_translation_table=translations(),
                input_names=list(inputs),
                output_names=list(outputs),
                opset_version=opset,
                verbose=False,
            )
    except Exception as cause:
        raise NotExportableError(_untranslated(program, cause)) from cause
    if written is None:
        raise NotExportableError("torch.onnx.export gave nothing")
    written.model.metadata_props[KEY] = json.dumps(facts, ensure_ascii=False)
    written.save(path)


def write_program(program: ExportedProgram, path: Path, facts: Mapping[str, Any]) -> None:
    """Writes a file of torch.export."""
    with quietly():
        torch.export.save(program, path, extra_files={KEY: json.dumps(facts, ensure_ascii=False)})


def _untranslated(program: ExportedProgram, cause: BaseException) -> str:
    """Which operator of which module cannot be said in ONNX."""
    reasons: list[str] = []
    error: BaseException | None = cause
    while error is not None:
        reasons.append(str(error))
        error = error.__cause__
    found = re.search(
        r"No ONNX function found for <OpOverload\(op='([^']+)', overload='([^']+)'", "\n".join(reasons)
    )
    if found is None:
        return f"the detector cannot be written as ONNX: {describe(cause)}"
    operator = f"{found[1].replace('::', '.')}.{found[2]}"
    module = _owner(program, operator)
    return (
        f"{module or 'the detector'} cannot be written as ONNX: its operator {operator} has no translation; "
        "export with --format torch-export, or replace that part"
    )


def _owner(program: ExportedProgram, operator: str) -> str:
    """The module that an operator was called in, by itself or as a piece of another."""
    used = [node.target for node in program.graph.nodes if isinstance(node.target, torch._ops.OpOverload)]
    with quietly():
        pieces = program.run_decompositions(torch._decomp.get_decompositions(used))
    for look in (program, pieces):
        for node in look.graph.nodes:
            if str(node.target) == operator and _module_of(node):
                return _module_of(node)
    return ""


def _module_of(node: torch.fx.Node) -> str:
    """``head.cls_convs.0 (Conv2d)``: the innermost module that an operator was called in."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if not stack:
        return ""
    path, kind = stack[-1]
    name = kind if isinstance(kind, str) else kind.__name__
    path = re.sub(r"^(L\['self'\]|self)?\.?", "", path).removeprefix("detector").strip(".")
    return f"{path or 'the detector'} ({name.rsplit('.', 1)[-1]})"
