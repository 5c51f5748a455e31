"""Rules for single parameters, by their names."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any, NotRequired

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from detcore.errors import ConfigError, did_you_mean

NotNegative = Annotated[float, Field(ge=0)]
LayerDecay = Annotated[float, Field(gt=0, le=1)]


class ParameterRule(TypedDict):
    """Factors for the parameters whose names match, in place of the general ones.

    Args:
        match: A pattern for whole names, as the model's ``state_dict`` has them: ``*`` is any text, ``?`` one
            letter, ``[ab]`` one of them (``backbone.layer1.*``, ``*.conv_offset.*``).
        lr_mult: Factor on the learning rate, in place of ``backbone_lr_mult`` and ``layer_decay``.
        decay_mult: Factor on the weight decay, in place of ``norm_decay_mult`` and ``bias_decay_mult``.
    """

    match: str
    lr_mult: NotRequired[NotNegative]
    decay_mult: NotRequired[NotNegative]


# not in the class: type checkers would take it for a key
ParameterRule.__pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[attr-defined]


FACTORS = ("lr_mult", "decay_mult")


def factors_by_rule(rules: Sequence[ParameterRule], names: Collection[str]) -> dict[str, dict[str, float]]:
    """The factors that rules state for each name; of several rules for one factor the first counts.

    Args:
        rules: In the order of precedence.
        names: Of all parameters.

    Raises:
        ConfigError: A rule states no factor, matches no parameter, or comes too late for all that it matches.
    """
    found: dict[str, dict[str, float]] = {name: {} for name in names}
    for number, rule in enumerate(rules):
        stated: dict[str, Any] = {factor: rule[factor] for factor in FACTORS if factor in rule}  # type: ignore[literal-required]
        where = f"rules[{number}] {rule['match']!r}"
        if not stated:
            raise ConfigError(
                f"{where} states neither lr_mult nor decay_mult; give one of them, or remove the rule"
            )
        matched = [name for name in names if fnmatchcase(name, rule["match"])]
        if not matched:
            raise ConfigError(f"{where} matches no parameter; {_nearest(rule['match'], names)}")
        news = [(name, factor) for name in matched for factor in stated if factor not in found[name]]
        if not news:
            raise ConfigError(
                f"{where} has no effect, since rules before it match the same parameters; move it before them, "
                "or remove it"
            )
        for name, factor in news:
            found[name][factor] = float(stated[factor])
    return found


def _nearest(pattern: str, names: Collection[str]) -> str:
    """The name, or the pattern for all below a module, that the writer may have meant."""
    modules = {name.rsplit(".", depth)[0] + ".*" for name in names for depth in range(1, name.count(".") + 1)}
    if f"{pattern}.*" in modules:
        return f"did you mean {pattern + '.*'!r}?"
    return did_you_mean(pattern, sorted({*names, *modules})) or "names begin with " + ", ".join(
        sorted({repr(name.split(".")[0] + ".") for name in names})
    )
