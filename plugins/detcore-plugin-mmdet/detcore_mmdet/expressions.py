"""The values of Python expressions that hold data: interpreted from the syntax tree, never executed.

What an expression may do is listed here, one function per kind of node; whatever is not listed is refused.
Sizes are bounded, so that a short text cannot ask for gigabytes.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from detcore.errors import ConfigError, Problem, did_you_mean
from detcore_mmdet.limits import MAX_DEPTH, MAX_WORK, SCALARS, Refused, as_iterable, as_mapping, check_size
from detcore_mmdet.operations import COMPARISONS, FUNCTIONS, binary, unary

_REFERENCE = re.compile(r"\{\{\s*([A-Za-z_]\w*(?:\.\w+)*)\s*\}\}")


@dataclass
class Scope:
    """What an expression may refer to.

    Args:
        file: The file's name, for errors.
        names: Variables of the file.
        base: The merged configuration of the bases (``_base_.x``), or None.
        words: What ``{{ word }}`` in a text stands for.
    """

    file: str
    names: MutableMapping[str, Any] = field(default_factory=dict)
    base: Mapping[str, Any] | None = None
    words: Mapping[str, str] = field(default_factory=dict)
    depth: int = 0
    work: int = 0

    def count(self, value: Any) -> None:
        """Counts the work that went into a value.

        Raises:
            Refused: The value is too large, or the file as a whole.
        """
        self.work += check_size(value)
        if self.work > MAX_WORK:
            raise Refused(f"the file makes more than {MAX_WORK} values")

    def error(self, node: ast.AST, message: str, remedy: str = "") -> ConfigError:
        """The error that something is wrong at ``node``."""
        return ConfigError([Problem("", message, remedy, f"{self.file}:{getattr(node, 'lineno', 1)}")])


def evaluate(node: ast.expr, scope: Scope) -> Any:
    """The value of an expression.

    Raises:
        ConfigError: It does something that data does not need, or is too large; names file and line.
    """
    handler = _HANDLERS.get(type(node))
    if handler is None:
        raise scope.error(node, f"{_what(node)} is not plain data; configurations are read, never executed")
    if scope.depth > MAX_DEPTH:
        raise scope.error(node, f"nested more than {MAX_DEPTH} levels deep")
    scope.depth += 1
    try:
        value = handler(node, scope)
        scope.count(value)
        return value
    except Refused as refusal:
        raise scope.error(node, str(refusal)) from None
    except (TypeError, ValueError, ArithmeticError, LookupError) as cause:
        if isinstance(cause, ConfigError):
            raise
        raise scope.error(node, f"{_what(node)} cannot be computed: {cause}") from None
    finally:
        scope.depth -= 1


def _what(node: ast.AST) -> str:
    try:
        text = " ".join(ast.unparse(node).split())
    except (RecursionError, ValueError):
        text = type(node).__name__
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _constant(node: ast.Constant, scope: Scope) -> Any:
    if not isinstance(node.value, SCALARS):
        raise Refused(f"{type(node.value).__name__} {node.value!r} is not plain data")
    return fill_in(node.value, scope) if isinstance(node.value, str) else node.value


def fill_in(text: str, scope: Scope) -> Any:
    """A text with ``{{ word }}`` and ``{{ _base_.x }}`` replaced; one that is nothing else is the value."""
    whole = _REFERENCE.fullmatch(text.strip())
    if whole:
        return _refer(whole[1], scope)
    return _REFERENCE.sub(lambda match: str(_refer(match[1], scope)), text)


def _refer(name: str, scope: Scope) -> Any:
    if name in scope.words:
        return scope.words[name]
    first, *steps = name.split(".")
    if first != "_base_" or not steps:
        raise Refused(f"{{{{ {name} }}}} is unknown; known: _base_.KEY, {', '.join(scope.words)}")
    return _descend(_base_of(scope), steps)


def _base_of(scope: Scope) -> Mapping[str, Any]:
    if scope.base is None:
        raise Refused("_base_ is used before it is set, or in a file without one")
    return scope.base


def _descend(value: Any, steps: Sequence[str]) -> Any:
    done = "_base_"
    for step in steps:
        if isinstance(value, (list, tuple)) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        elif isinstance(value, Mapping) and step in value:
            value = value[step]
        else:
            near = did_you_mean(step, [str(k) for k in value]) if isinstance(value, Mapping) else ""
            raise Refused("; ".join(part for part in (f"{done} has no {step!r}", near) if part))
        done += f".{step}"
    return value


def _name(node: ast.Name, scope: Scope) -> Any:
    if node.id == "_base_":
        return _base_of(scope)
    if node.id not in scope.names:
        near = did_you_mean(node.id, scope.names)
        raise Refused(f"the name {node.id!r} is not defined in this file" + (f"; {near}" if near else ""))
    return scope.names[node.id]


def _attribute(node: ast.Attribute, scope: Scope) -> Any:
    steps: list[str] = []
    at: ast.expr = node
    while isinstance(at, ast.Attribute):
        steps.append(at.attr)
        at = at.value
    if not isinstance(at, ast.Name) or at.id != "_base_":
        raise Refused(f"{_what(node)}: only attributes of _base_ can be looked up")
    return _descend(_base_of(scope), steps[::-1])


def _set(node: ast.Set, scope: Scope) -> Any:
    """``{{_base_.x}}`` outside of a text is, to Python's grammar, a set within a set."""
    inner = node.elts[0] if len(node.elts) == 1 else None
    if isinstance(inner, ast.Set) and len(inner.elts) == 1 and isinstance(inner.elts[0], ast.Attribute):
        return evaluate(inner.elts[0], scope)
    raise Refused(f"{_what(node)}: sets are not plain data; use a list")


def _sequence(node: ast.List | ast.Tuple, scope: Scope) -> Any:
    items: list[Any] = []
    for element in node.elts:
        if isinstance(element, ast.Starred):
            items.extend(as_iterable(evaluate(element.value, scope)))
        else:
            items.append(evaluate(element, scope))
    return tuple(items) if isinstance(node, ast.Tuple) else items


def _mapping(node: ast.Dict, scope: Scope) -> dict[Any, Any]:
    result: dict[Any, Any] = {}
    for key, value in zip(node.keys, node.values, strict=True):
        if key is None:
            result.update(as_mapping(evaluate(value, scope)))
        else:
            name = evaluate(key, scope)
            if not isinstance(name, SCALARS):
                raise Refused(f"the key {_what(key)} should be a text or a number")
            result[name] = evaluate(value, scope)
    return result


def _binary(node: ast.BinOp, scope: Scope) -> Any:
    return binary(node.op, evaluate(node.left, scope), evaluate(node.right, scope))


def _unary(node: ast.UnaryOp, scope: Scope) -> Any:
    return unary(node.op, evaluate(node.operand, scope))


def _boolean(node: ast.BoolOp, scope: Scope) -> Any:
    stops_at = isinstance(node.op, ast.Or)
    value: Any = None
    for operand in node.values:
        value = evaluate(operand, scope)
        if bool(value) is stops_at:
            break
    return value


def _compare(node: ast.Compare, scope: Scope) -> bool:
    left = evaluate(node.left, scope)
    for op, comparator in zip(node.ops, node.comparators, strict=True):
        right = evaluate(comparator, scope)
        if not COMPARISONS[type(op)](left, right):
            return False
        left = right
    return True


def _choice(node: ast.IfExp, scope: Scope) -> Any:
    return evaluate(node.body if evaluate(node.test, scope) else node.orelse, scope)


def _subscript(node: ast.Subscript, scope: Scope) -> Any:
    owner = evaluate(node.value, scope)
    if isinstance(node.slice, ast.Slice):
        bounds = (node.slice.lower, node.slice.upper, node.slice.step)
        index: Any = slice(*(None if bound is None else evaluate(bound, scope) for bound in bounds))
    else:
        index = evaluate(node.slice, scope)
    if not isinstance(owner, (Mapping, list, tuple, str)):
        raise Refused(f"{_what(node)}: a {type(owner).__name__} has no parts")
    return owner[index]


def _comprehension(node: ast.ListComp, scope: Scope) -> list[Any]:
    if len(node.generators) != 1 or node.generators[0].is_async:
        raise Refused(f"{_what(node)}: a comprehension with one loop only")
    loop = node.generators[0]
    if not isinstance(loop.target, ast.Name):
        raise Refused(f"{_what(node)}: the loop's variable should be one name")
    values, outer, result = as_iterable(evaluate(loop.iter, scope)), scope.names, []
    for value in values:
        scope.names = {**outer, loop.target.id: value}
        try:
            if all(evaluate(condition, scope) for condition in loop.ifs):
                result.append(evaluate(node.elt, scope))
        finally:
            scope.names = outer
    return result


def _formatted(node: ast.JoinedStr, scope: Scope) -> str:
    parts = []
    for part in node.values:
        if isinstance(part, ast.FormattedValue):
            if part.conversion != -1 or part.format_spec is not None:
                raise Refused(f"{_what(node)}: a format is not supported; write the text out")
            value = evaluate(part.value, scope)
            if not isinstance(value, SCALARS):
                raise Refused(f"{_what(node)}: only texts and numbers can be put into a text")
            parts.append(str(value))
        else:
            parts.append(str(evaluate(part, scope)))
    return "".join(parts)


def _call(node: ast.Call, scope: Scope) -> Any:
    name = node.func.id if isinstance(node.func, ast.Name) else None
    function = FUNCTIONS.get(name or "")
    if function is None or name in scope.names:
        raise Refused(
            f"calling {_what(node.func)} would execute code; only {', '.join(FUNCTIONS)} are understood"
        )
    positional = [a for a in node.args if not isinstance(a, ast.Starred)]
    if len(positional) != len(node.args):
        raise Refused(f"{_what(node)}: spread arguments are not supported")
    arguments = [evaluate(a, scope) for a in positional]
    named: dict[str, Any] = {}
    for keyword in node.keywords:
        value = evaluate(keyword.value, scope)
        extra = as_mapping(value) if keyword.arg is None else {keyword.arg: value}
        twice = next((key for key in extra if key in named), None)
        if twice is not None:
            raise Refused(f"the argument {twice!r} is given twice")
        named.update(extra)
    if named and name != "dict":
        raise Refused(f"{name}() takes no named arguments here")
    return function(*arguments, **named)


_HANDLERS: dict[type, Callable[[Any, Scope], Any]] = {
    ast.Constant: _constant,
    ast.Name: _name,
    ast.Attribute: _attribute,
    ast.Set: _set,
    ast.List: _sequence,
    ast.Tuple: _sequence,
    ast.Dict: _mapping,
    ast.BinOp: _binary,
    ast.UnaryOp: _unary,
    ast.BoolOp: _boolean,
    ast.Compare: _compare,
    ast.IfExp: _choice,
    ast.Subscript: _subscript,
    ast.ListComp: _comprehension,
    ast.JoinedStr: _formatted,
    ast.Call: _call,
}
