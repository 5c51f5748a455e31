"""MMDetection's Python configuration files, read without running them.

A file is a list of assignments. ``_base_`` names other files, whose keys are merged first. The syntax tree is
interpreted (:mod:`detcore_mmdet.expressions`): code that is no data is an error that names file and line.
"""

from __future__ import annotations

import ast
import copy
import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from detcore import config as detcore_config
from detcore.errors import ConfigError, Problem
from detcore_mmdet.expressions import Scope, evaluate
from detcore_mmdet.limits import Refused, check_size

#: Largest file that is read, and longest chain of bases.
MAX_BYTES, MAX_BASES = 2_000_000, 20
_DELETE, _BASE = "_delete_", "_base_"
_DATA_SUFFIXES = (".yaml", ".yml", ".json")


def read_config(path: str | Path) -> dict[str, Any]:
    """Reads a configuration file of MMDetection, 2.x or 3.x, with its bases; nothing in it is executed.

    Understood are assignments of literals, ``dict(...)`` and other harmless built-in calls, arithmetic,
    comprehensions over lists, variables of the same file, ``_base_`` with ``_delete_``, ``{{_base_.key}}``
    and ``_base_.key``. Tuples stay tuples.

    Args:
        path: A ``.py`` file (or ``.yaml``, ``.json``).

    Returns:
        Every variable of the file, merged over those of its bases.

    Raises:
        ConfigError: A file is missing or damaged, or does something that data does not need; names file and
            line.
    """
    return _read(Path(path), ())


def _read(path: Path, chain: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in chain:
        names = " -> ".join(str(p) for p in (*chain, path.resolve()))
        raise ConfigError(f"{names}: a file cannot be its own base", str(path))
    if len(chain) >= MAX_BASES:
        raise ConfigError(f"more than {MAX_BASES} files, each the base of the one before", str(path))
    if path.suffix in _DATA_SUFFIXES:
        return dict(detcore_config.read(path).data)
    return _Reader(path, (*chain, path.resolve())).read()


def _source(path: Path) -> str:
    if path.suffix != ".py":
        raise ConfigError(f"{path}: expected a .py file")
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_BYTES} bytes; this is no configuration")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as cause:
        if isinstance(cause, ConfigError):
            raise
        raise ConfigError(f"{path}: cannot be read: {cause}") from cause


def _parse(source: str, path: Path) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in texts are none of our business
            return ast.parse(source, str(path))
    except SyntaxError as cause:
        raise ConfigError(
            [Problem("", f"no Python: {cause.msg}", "", f"{path}:{cause.lineno or 1}")]
        ) from cause
    except (ValueError, RecursionError, MemoryError) as cause:
        raise ConfigError(f"{path}: cannot be parsed: {cause}") from cause


class _Reader:
    def __init__(self, path: Path, chain: tuple[Path, ...]) -> None:
        self.path, self.chain = path, chain
        words = {
            "fileDirname": str(path.parent),
            "fileBasename": path.name,
            "fileBasenameNoExtension": path.stem,
            "fileExtname": path.suffix,
        }
        self.scope = Scope(str(path), words=words)

    def read(self) -> dict[str, Any]:
        """The file's variables over those of its bases."""
        for statement in _parse(_source(self.path), self.path).body:
            try:
                self._run(statement)
            except RecursionError:
                raise self.scope.error(statement, "nested too deeply") from None
        own = {name: value for name, value in self.scope.names.items() if not name.startswith("__")}
        own.pop(_BASE, None)
        try:
            merged = merge(self.scope.base or {}, own)
            check_size(merged)
        except Refused as refusal:
            raise ConfigError(str(refusal), str(self.path)) from None
        result: dict[str, Any] = _without_marks(merged)
        return result

    def _run(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            return  # a docstring
        if isinstance(statement, ast.Pass):
            return
        if isinstance(statement, ast.AnnAssign) and statement.value is not None:
            self._assign(statement.target, evaluate(statement.value, self.scope))
        elif isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
            load = ast.copy_location(ast.Name(statement.target.id, ast.Load()), statement)
            both = ast.copy_location(ast.BinOp(load, statement.op, statement.value), statement)
            self._assign(statement.target, evaluate(both, self.scope))
        elif isinstance(statement, ast.Assign):
            value = evaluate(statement.value, self.scope)
            for target in statement.targets:
                self._assign(target, value)
        else:
            raise self._refused(statement)

    def _refused(self, statement: ast.stmt) -> ConfigError:
        kind = type(statement).__name__
        if isinstance(statement, (ast.Import, ast.ImportFrom, ast.With)):
            message = "imports are not followed, since that would execute code"
            remedy = "write classes as type='Name' and bases as _base_ = [...]"
        elif isinstance(statement, ast.Expr):
            message, remedy = f"the expression {ast.unparse(statement)[:60]!r} has no effect on data", ""
        else:
            message, remedy = f"a statement of kind {kind} would have to be executed", ""
        return self.scope.error(statement, message, remedy or "a configuration is a list of assignments")

    def _assign(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Name):
            self.scope.names[target.id] = value
            if target.id == _BASE:
                self.scope.base = self._load_bases(target, value)
        elif isinstance(target, (ast.Tuple, ast.List)):
            self._unpack(target, value)
        elif isinstance(target, ast.Subscript):
            owner = evaluate(target.value, self.scope)
            if not isinstance(owner, (MutableMapping, list)):
                raise self.scope.error(target, f"{ast.unparse(target)} cannot be assigned to")
            with _refusing(self.scope, target):
                index = evaluate(target.slice, self.scope)
                try:
                    owner[index] = copy.deepcopy(value)
                except (TypeError, IndexError) as cause:
                    raise Refused(f"{ast.unparse(target)} cannot be assigned to: {cause}") from None
        else:
            raise self.scope.error(target, f"{ast.unparse(target)} cannot be assigned to")

    def _unpack(self, target: ast.Tuple | ast.List, value: Any) -> None:
        if not isinstance(value, (list, tuple)) or len(value) != len(target.elts):
            raise self.scope.error(target, f"{len(target.elts)} names cannot be unpacked from {value!r:.60}")
        for name, item in zip(target.elts, value, strict=True):
            self._assign(name, item)

    def _load_bases(self, node: ast.AST, value: Any) -> dict[str, Any]:
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
            raise self.scope.error(
                node, f"_base_ should be a file's name or a list of them, got {value!r:.60}"
            )
        merged: dict[str, Any] = {}
        for name in names:
            if "::" in name or "://" in name:
                remedy = "put that file beside this one, and name it by its path"
                raise self.scope.error(node, f"the base {name!r} is not in a file here", remedy)
            try:
                layer = _read(self.path.parent / name, self.chain)
            except ConfigError as error:
                raise ConfigError(error.problems, error.title or f"{self.path} (base {name})") from error
            twice = sorted(set(merged) & set(layer))
            if twice:
                raise self.scope.error(
                    node, f"several bases set {', '.join(twice)}", "set a key in one base only"
                )
            merged.update(layer)
        return merged


@contextmanager
def _refusing(scope: Scope, node: ast.AST) -> Iterator[None]:
    """Turns a refusal inside into an error at ``node``."""
    try:
        yield
    except Refused as refusal:
        raise scope.error(node, str(refusal)) from None


def merge(base: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    """``layer`` over ``base`` by MMDetection's rules; neither is changed.

    Mappings are merged key by key, everything else replaces. ``_delete_=True`` in a mapping makes it
    replace, too.

    Raises:
        ConfigError: A mapping stands where the base has something else.
    """
    return _merge(base, layer, "")


def _merge(base: Mapping[str, Any], layer: Mapping[str, Any], path: str) -> dict[str, Any]:
    result = dict(base)
    for key, value in layer.items():
        here = f"{path}.{key}".strip(".")
        if not isinstance(value, Mapping) or key not in base or value.get(_DELETE):
            result[key] = value
        elif isinstance(base[key], Mapping):
            result[key] = _merge(base[key], value, here)
        else:
            message = f"a dict cannot be merged into the {type(base[key]).__name__} of the base"
            raise ConfigError([Problem(here, message, f"add {_DELETE}=True to replace it")])
    return result


def _without_marks(value: Any) -> Any:
    """A deep copy without ``_delete_``, so that nothing is shared between the places of the result."""
    if isinstance(value, Mapping):
        return {key: _without_marks(item) for key, item in value.items() if key != _DELETE}
    if isinstance(value, (list, tuple)):
        return type(value)(_without_marks(item) for item in value)
    return value
