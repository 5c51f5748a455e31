"""From signatures to validated values, and from pydantic's errors to ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Union

import pytest
from pydantic import Field

from detcore.component import Component, Part, Spec, wired
from detcore.errors import ComponentDefinitionError, ConfigError
from detcore.signature import check_definition, signature_of


class Mode(Enum):
    FAST = "fast"
    EXACT = "exact"


@dataclass(frozen=True)
class Size:
    h: int
    w: int

    def __post_init__(self):
        if self.h > 1000:
            raise ValueError(f"the height should be at most 1000, got {self.h}")


class Loss(Component):
    kind = "losses"


class Focal(Loss):
    def __init__(self, *, gamma: float = 2.0) -> None:
        self.gamma = gamma


class Plain(Component):
    """One parameter of each type that configurations have."""

    kind = "plain"

    def __init__(
        self,
        *,
        integer: int = 1,
        number: float = 1.0,
        flag: bool = False,
        text: str = "",
        path: Path = Path(),
        depth: Literal[18, 50, "x50"] = 50,
        ratio: Annotated[float, Field(ge=0, le=1)] = 0.5,
        count: Annotated[int, Field(gt=0)] | None = None,
        pair: tuple[int, int] = (1, 1),
        many: tuple[float, ...] = (),
        items: list[int] | None = None,
        names: Sequence[str] = (),
        table: Mapping[str, float] | None = None,
        nested: dict[str, list[tuple[int, ...]]] | None = None,
        extra: bool | Literal["on_input", "on_output"] = False,
        stride: int | tuple[int, int] = 1,
        sizes: tuple[Size, ...] = (),
        mode: Mode = Mode.FAST,
        old_union: Optional[Union[int, str]] = None,  # noqa: UP007, UP045 - older code writes it so
        anything: Any = None,
        loss: Part[Loss] | None = None,
        bounded: Annotated[tuple[float, ...], Field(min_length=2)] = (0.0, 1.0),
    ) -> None:
        pass


SIGNATURE = signature_of(Plain)


def value(**given):
    """The one value, validated."""
    ((_, checked),) = SIGNATURE.validate(given, complete=True).items()
    return checked


def problem(**given):
    """The one problem, as a line."""
    with pytest.raises(ConfigError) as caught:
        SIGNATURE.validate(given, complete=True)
    (found,) = caught.value.problems
    return str(found)


# ---------------------------------------------------------------------------------- coercion


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"integer": "50"}, 50),
        ({"integer": 50.0}, 50),
        ({"number": 3}, 3.0),
        ({"number": "0.5"}, 0.5),
        ({"number": "1e-3"}, 1e-3),
        ({"flag": True}, True),
        ({"path": "a/b"}, Path("a/b")),
        ({"depth": "50"}, 50),
        ({"depth": "x50"}, "x50"),
        ({"ratio": 1}, 1.0),
        ({"count": None}, None),
        ({"count": "3"}, 3),
        ({"pair": [1, "2"]}, (1, 2)),
        ({"many": [1, "2.5"]}, (1.0, 2.5)),
        ({"many": []}, ()),
        ({"items": (1, 2)}, [1, 2]),
        ({"names": ["a", "b"]}, ["a", "b"]),
        ({"table": {"a": "1"}}, {"a": 1.0}),
        ({"nested": {"a": [["1", 2], []]}}, {"a": [(1, 2), ()]}),
        ({"extra": False}, False),
        ({"extra": "on_input"}, "on_input"),
        ({"stride": "8"}, 8),
        ({"stride": [8, 16]}, (8, 16)),
        ({"sizes": [{"h": "3", "w": 4}, Size(5, 6)]}, (Size(3, 4), Size(5, 6))),
        ({"mode": "exact"}, Mode.EXACT),
        ({"mode": Mode.EXACT}, Mode.EXACT),
        ({"old_union": "5"}, "5"),
        ({"anything": {"x": [True]}}, {"x": [True]}),
    ],
    ids=str,
)
def test_coercion(given, expected):
    checked = value(**given)
    assert checked == expected
    assert type(checked) is type(expected)


def test_nothing_is_added_or_written_to():
    given = {"items": [1], "table": {"a": 1}}
    checked = SIGNATURE.validate(given, complete=True)
    assert set(checked) == {"items", "table"}
    checked["items"].append(2)
    checked["table"]["b"] = 2
    assert given == {"items": [1], "table": {"a": 1}}


def test_defaults_are_those_of_the_signature():
    defaults = SIGNATURE.defaults()
    assert defaults["integer"] == 1
    assert defaults["bounded"] == (0.0, 1.0)
    assert len(defaults) == len(SIGNATURE.parameters)


# ---------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"integer": True}, "integer: input should be a number, not a boolean; got True"),
        ({"number": False}, "number: input should be a number, not a boolean; got False"),
        (
            {"stride": True},
            "stride: input should be a number, not a boolean or input should be a valid tuple; got True",
        ),
        ({"pair": [True, 1]}, "pair.0: input should be a number, not a boolean; got True"),
        ({"table": {"a": True}}, "table.a: input should be a number, not a boolean; got True"),
        ({"depth": True}, "depth: input should be one of 18, 50, 'x50'; got True"),
        ({"number": float("nan")}, "number: input should be a finite number; got nan"),
        ({"number": "inf"}, "number: input should be a finite number; got 'inf'"),
        ({"many": [1, float("-inf")]}, "many.1: input should be a finite number; got -inf"),
        ({"table": {"a": float("nan")}}, "table.a: input should be a finite number; got nan"),
        (
            {"integer": 5.5},
            "integer: input should be a valid integer, got a number with a fractional part; got 5.5",
        ),
        ({"integer": None}, "integer: input should be a valid integer; got None"),
        ({"flag": 1}, "flag: input should be a valid boolean; got 1"),
        ({"flag": "true"}, "flag: input should be a valid boolean; got 'true'"),
        ({"text": 3}, "text: input should be a valid string; got 3"),
        ({"depth": 34}, "depth: input should be 18, 50 or 'x50'; got 34"),
        ({"depth": "34"}, "depth: input should be 18, 50 or 'x50'; got '34'"),
        ({"ratio": 1.5}, "ratio: input should be less than or equal to 1; got 1.5"),
        ({"count": 0}, "count: input should be greater than 0; got 0"),
        ({"bounded": [1]}, "bounded: tuple should have at least 2 items after validation, not 1; got [1]"),
        ({"pair": 3}, "pair: input should be a valid tuple; got 3"),
        ({"pair": [1]}, "pair.1: is missing"),
        (
            {"pair": [1, 2, 3]},
            "pair: tuple should have at most 2 items after validation, not 3; got [1, 2, 3]",
        ),
        ({"items": {"a": 1}}, "items: input should be a valid list; got {'a': 1}"),
        ({"table": [1]}, "table: input should be a valid dictionary; got [1]"),
        ({"many": "123"}, "many: input should be a valid tuple; got '123'"),
        (
            {"extra": "on_inputs"},
            "extra: input should be a valid boolean "
            "or input should be 'on_input' or 'on_output'; got 'on_inputs'",
        ),
        ({"mode": "slow"}, "mode: input should be 'fast' or 'exact'; got 'slow'"),
        ({"sizes": [Size(1, 1), {"h": 1}]}, "sizes.1.w: is missing"),
        ({"sizes": [{"h": 1, "w": 2, "ww": 3}]}, "sizes.0.ww: unknown key"),
        (
            {"sizes": [{"h": 2000, "w": 2}]},
            "sizes.0: the height should be at most 1000, got 2000; got {'h': 2000, 'w': 2}",
        ),
        (
            {"nested": {"a": [[1], ["x"]]}},
            "nested.a.1.0: input should be a valid integer, unable to parse string as an integer; got 'x'",
        ),
    ],
    ids=str,
)
def test_refusals_tell_path_constraint_and_value(given, message):
    assert problem(**given) == message


def test_a_union_blames_the_branch_that_fits_best():
    # the tuple branch got further into the value than the integer branch
    assert problem(stride=[8, "x"]).startswith("stride.1: input should be a valid integer, unable to parse")
    assert problem(stride=[8, "x"]).count("or input") == 0


def test_a_union_gives_one_message_per_path():
    assert problem(stride="x") == (
        "stride: input should be a valid integer, unable to parse string as an integer "
        "or input should be a valid tuple; got 'x'"
    )


def test_a_mapping_that_fits_no_branch_of_a_union_is_blamed_itself():
    assert (
        problem(stride={"a": 1})
        == "stride: input should be a valid integer or input should be a valid tuple; got {'a': 1}"
    )


def test_a_key_that_is_called_like_a_branch():
    assert problem(table={"float": "x"}).startswith("table.float: input should be a valid number")


def test_long_values_are_cut():
    line = problem(text=list(range(1000)))
    assert line.endswith("...")
    assert len(line) < 160


def test_a_part_or_nothing():
    assert value(loss=None) is None
    assert isinstance(value(loss=Focal.spec()), Spec)
    assert problem(loss=3).startswith(
        "loss: expected a Loss, got 3; give an instance, Loss.spec(...) of a concrete class"
    )


def test_all_errors_at_once():
    with pytest.raises(ConfigError) as caught:
        SIGNATURE.validate({"integer": "x", "ratio": 2, "pair": [1, "y"], "depht": 3}, complete=True)
    error = caught.value
    assert {p.path for p in error.problems} == {"integer", "ratio", "pair.1", "depht"}
    assert error.title == "Plain"
    assert str(error).startswith("Plain: 4 problems\n  - ")


def test_an_unknown_parameter_tells_the_nearest():
    line = problem(depht=3)
    assert line.startswith(
        "depht: unknown parameter 'depht'; did you mean 'depth'? Plain takes integer, number, flag"
    )


def test_a_name_that_is_no_text():
    with pytest.raises(ConfigError, match="3: unknown parameter 3; Plain takes"):
        SIGNATURE.validate({3: 4}, complete=True)


# ------------------------------------------------------------------------ required and wired


class Head(Component):
    kind = "heads"

    def __init__(
        self,
        *,
        in_features: tuple[Size, ...] = wired(),
        num_classes: int = wired(3),
        strides: tuple[int, ...] = wired(may_override=True),
        width: int,
    ) -> None:
        pass


def test_a_required_parameter_is_missing():
    with pytest.raises(ConfigError, match=r"^Head: width: required parameter of Head is missing$"):
        signature_of(Head).validate({}, complete=False)


def test_wired_parameters_may_be_left_out_of_a_spec_only():
    assert signature_of(Head).validate({"width": 3}, complete=False) == {"width": 3}
    with pytest.raises(ConfigError) as caught:
        signature_of(Head).validate({"width": 3}, complete=True)
    lines = [str(p) for p in caught.value.problems]
    remedy = "give it, or use Head.spec(...) inside a component that supplies it"
    assert lines == [
        f"in_features: Head needs it from its owner, and has none; {remedy}",
        f"strides: Head needs it from its owner, and has none; {remedy}",
    ]


def test_the_default_of_a_wired_parameter():
    assert signature_of(Head).defaults() == {"num_classes": 3}
    parameters = signature_of(Head).parameters
    assert parameters["num_classes"].wired is not None
    assert not parameters["num_classes"].required
    assert parameters["strides"].wired.may_override
    assert not parameters["in_features"].wired.may_override
    assert parameters["width"].wired is None


def test_coerce_asks_for_nothing_more():
    assert signature_of(Head).coerce({"strides": ["8"]}) == {"strides": (8,)}
    with pytest.raises(ConfigError, match=r"Head: strides\.0: input should be a valid integer"):
        signature_of(Head).coerce({"strides": ["x"]})


def test_which_parameters_are_parts():
    parts = {name for name, parameter in SIGNATURE.parameters.items() if parameter.is_part}
    assert parts == {"loss"}


def test_signatures_are_read_once():
    assert signature_of(Plain) is SIGNATURE
    assert SIGNATURE.model is SIGNATURE.model


class Awkward(Component):
    """Parameters called like what pydantic's models have."""

    kind = "awkward"

    def __init__(
        self, *, copy: int, schema: int = 2, json: int = 3, model_fields: int = 4, self_: int = 5
    ) -> None:
        self.values = (copy, schema, json, model_fields, self_)


def test_parameters_may_be_called_like_methods_of_pydantics_models():
    assert Awkward(copy="1", model_fields="7").values == (1, 2, 3, 7, 5)


# ---------------------------------------------------------------------- unions of interfaces


class Quality(Component):
    kind = "qualities"


class Either(Component):
    kind = "either"

    def __init__(self, *, part: Part[Loss | Quality], number: Part[Loss] | float = 0.0) -> None:
        self.part = part
        self.number = number


def test_a_part_of_two_interfaces():
    assert Either(part=Focal.spec(), number="3").number == 3.0
    assert isinstance(Either(part=Focal()).part, Focal)
    with pytest.raises(
        ConfigError, match="part: expected a Loss, got 3 or expected a Quality, got 3; give an instance"
    ):
        Either(part=3)


def test_a_part_or_a_number():
    with pytest.raises(
        ConfigError, match="number: expected a Loss, got 'x' or input should be a valid number"
    ):
        Either(part=Focal.spec(), number="x")


class OnlySpec(Component):
    kind = "only"

    def __init__(self, *, loss: Spec[Loss], losses: tuple[Spec[Loss], ...] = ()) -> None:
        self.loss = loss


def test_a_parameter_that_takes_specs_only():
    assert OnlySpec(loss=Focal.spec()).loss == Focal.spec()
    with pytest.raises(ConfigError, match=r"losses\.0: expected a Loss, got <.*Focal object"):
        OnlySpec(loss=Focal.spec(), losses=[Focal()])


# -------------------------------------------------------------- definitions that are refused


def positional(self, a: int) -> None: ...
def variadic(self, *args: int) -> None: ...
def keywords(self, **kwargs: int) -> None: ...
def unannotated(self, *, a=3) -> None: ...
def mutable(self, *, a: list[int] = []) -> None: ...  # noqa: B006
def mutable_dict(self, *, a: dict[str, int] = {}) -> None: ...  # noqa: B006
def mutable_wired(self, *, a: list[int] = wired([])) -> None: ...
def private(self, *, _a: int = 3) -> None: ...
def called_type(self, *, type: str = "x") -> None: ...
def instance(self, *, a: Part[Loss] = Focal()) -> None: ...


@pytest.mark.parametrize(
    ("init", "message"),
    [
        (positional, "parameter 'a' must be keyword-only and named: put it after a bare `*`"),
        (variadic, "parameter 'args' must be keyword-only and named"),
        (keywords, "parameter 'kwargs' must be keyword-only and named"),
        (unannotated, "parameter 'a' has no annotation; its type is what values are checked by"),
        (mutable, "parameter 'a' has a mutable default; use a tuple, or None"),
        (mutable_dict, "parameter 'a' has a mutable default"),
        (mutable_wired, "parameter 'a' has a mutable default"),
        (private, "parameter '_a' starts with an underscore; parameters are public"),
        (called_type, "parameter 'type' must be called otherwise: 'type' names the component in files"),
        (instance, r"parameter 'a' defaults to an instance; use Focal.spec\(...\)"),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_definitions_that_cannot_be_validated(init, message):
    with pytest.raises(ComponentDefinitionError, match=rf"Bad.__init__: {message}"):
        type("Bad", (Loss,), {"__init__": init})
    with pytest.raises(ComponentDefinitionError, match=message):
        check_definition(Loss, init)


def test_annotations_that_cannot_be_resolved():
    class Unresolved(Loss):
        def __init__(self, *, a: Missing) -> None:
            pass

    with pytest.raises(
        ComponentDefinitionError, match=r"Unresolved.__init__: the annotations cannot be resolved"
    ) as caught:
        Unresolved(a=3)
    assert "name 'Missing' is not defined" in str(caught.value)
    assert "import their types at run time, not under TYPE_CHECKING" in str(caught.value)


def test_a_constructor_that_was_put_there_later():
    @dataclass
    class Later(Loss):
        a: int

    with pytest.raises(ComponentDefinitionError, match="parameter 'a' must be keyword-only"):
        Later.spec(a=3)
