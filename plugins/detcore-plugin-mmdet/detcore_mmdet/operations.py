"""Operators and functions that expressions of a configuration may use, bounded in what they make."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from detcore_mmdet.limits import MAX_BITS, MAX_LEAVES, MAX_TEXT, NUMBERS, SCALARS, Refused, as_iterable

_BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_UNARY: dict[type, Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
}
COMPARISONS: dict[type, Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}


def binary(op: ast.operator, left: Any, right: Any) -> Any:
    """``left op right``.

    Raises:
        Refused: It is no arithmetic of numbers, texts and lists, or becomes too large.
    """
    compute = _BINARY.get(type(op))
    if compute is None or isinstance(left, Mapping) or isinstance(right, Mapping):
        raise Refused(f"the operator {type(op).__name__} is not plain data here")
    if isinstance(op, ast.Pow):
        _check_power(left, right)
    if isinstance(op, ast.Mult):
        _check_repetition(left, right)
    if isinstance(op, ast.Mod) and isinstance(left, str):
        raise Refused("formatting with % is not supported; write the text out")
    value = compute(left, right)
    if isinstance(value, complex):
        raise Refused("a power of a negative number that is no real number")
    return value


def unary(op: ast.unaryop, value: Any) -> Any:
    """``op value``.

    Raises:
        Refused: It is no arithmetic of numbers.
    """
    compute = _UNARY.get(type(op))
    if compute is None or (not isinstance(op, ast.Not) and not isinstance(value, NUMBERS)):
        raise Refused(f"the operator {type(op).__name__} is not plain data here")
    return compute(value)


def _check_power(base: Any, exponent: Any) -> None:
    if not isinstance(base, NUMBERS) or not isinstance(exponent, NUMBERS):
        raise Refused("a power needs two numbers")
    if isinstance(base, int) and abs(exponent) * max(base.bit_length(), 1) > MAX_BITS:
        raise Refused(f"a number of more than {MAX_BITS} bits")


def _check_repetition(left: Any, right: Any) -> None:
    for many, times in ((left, right), (right, left)):
        if isinstance(many, (str, list, tuple)) and isinstance(times, int):
            limit = MAX_TEXT if isinstance(many, str) else MAX_LEAVES
            if len(many) * times > limit:
                raise Refused(f"a repetition with more than {limit} entries")


def _dict(*base: Any, **entries: Any) -> dict[str, Any]:
    if len(base) > 1:
        raise Refused("dict() takes one positional argument at most")
    pairs = [] if not base else base[0].items() if isinstance(base[0], Mapping) else as_iterable(base[0])
    return {**dict(pairs), **entries}


def _range(*bounds: Any) -> list[int]:
    return list(as_iterable(range(*bounds)))


def _number(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def number(value: Any) -> Any:
        if isinstance(value, str) and len(value) > 400:
            raise Refused("a text that is too long for a number")
        return convert(value)

    return number


def _round(value: Any, digits: int | None = None) -> Any:
    if digits is not None and abs(digits) > 100:
        raise Refused("round() to more than 100 digits")
    return round(value, digits)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "dict": _dict,
    "list": lambda value=(): list(as_iterable(value)),
    "tuple": lambda value=(): tuple(as_iterable(value)),
    "range": _range,
    "int": _number(int),
    "float": _number(float),
    "str": lambda value="": str(value) if isinstance(value, SCALARS) else _refuse("str() of a collection"),
    "bool": bool,
    "len": lambda value: len(_as_sized(value)),
    "abs": abs,
    "round": _round,
    "min": lambda *values: min(*values) if len(values) > 1 else min(as_iterable(values[0])),
    "max": lambda *values: max(*values) if len(values) > 1 else max(as_iterable(values[0])),
    "sum": lambda values: sum(as_iterable(values)),
}


def _refuse(message: str) -> Any:
    raise Refused(message)


def _as_sized(value: Any) -> Any:
    return value if isinstance(value, (Mapping, str)) else as_iterable(value)
