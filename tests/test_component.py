"""Components: validated construction, specs, wiring, and all errors at once."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
from collections.abc import Mapping
from typing import Annotated, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field
from torch import nn

from detcore import registry
from detcore.component import Component, Part, arguments_of, make, walk, wired
from detcore.errors import ConfigError, DataError
from detcore.registry import Entry, Registry
from detcore.structures import FeatureSpec

# ---------------------------------------------------- a small zoo: interfaces and components


class Loss(Component):
    kind = "losses"


class Assigner(Component):
    kind = "assigners"


class Net(Component, nn.Module):
    kind = "nets"


class Focal(Loss):
    """Ranges, a cross-field check."""

    def __init__(
        self, *, gamma: Annotated[float, Field(ge=0)] = 2.0, alpha: float = 0.25, beta: float = 0.0
    ) -> None:
        if beta > gamma:
            raise ValueError(f"beta should not exceed gamma, got {beta} and {gamma}")
        self.gamma, self.alpha, self.beta = gamma, alpha, beta


class Bare(Loss):
    """No constructor."""


class MaxIoU(Assigner):
    """A nested part, a cross-field check."""

    def __init__(self, *, pos: float, neg: float = 0.4, cost: Part[Loss] = Focal.spec()) -> None:
        self.cost = make(cost)
        if neg > pos:
            raise ValueError(f"neg should not exceed pos, got {neg} and {pos}")
        self.pos, self.neg = pos, neg


class Backbone(Net):
    def __init__(self, *, depth: int = 50, frozen_stages: int = 0) -> None:
        super().__init__()
        if frozen_stages > 4:
            raise ValueError(f"frozen_stages should be at most 4, got {frozen_stages}")
        self.depth = depth
        self.out_features = (FeatureSpec(4, 8), FeatureSpec(8, 16))


class Neck(Net):
    def __init__(
        self, *, in_features: tuple[FeatureSpec, ...] = wired(), out_channels: int = 256, num_outs: int = 2
    ) -> None:
        super().__init__()
        if num_outs < len(in_features):
            raise ValueError(f"num_outs should be at least {len(in_features)}, got {num_outs}")
        self.out_features = tuple(FeatureSpec(out_channels, f.stride) for f in in_features)


class Head(Net):
    """Wired parameters, parts in a list and in a dict, an optional part."""

    def __init__(
        self,
        *,
        in_features: tuple[FeatureSpec, ...] = wired(),
        num_classes: int = wired(),
        strides: tuple[int, ...] = wired((8, 16), may_override=True),
        assigner: Part[Assigner] = MaxIoU.spec(pos=0.5),
        losses: tuple[Part[Loss], ...] = (Focal.spec(),),
        named: Mapping[str, Part[Loss]] | None = None,
        extra: Part[Loss] | None = None,
    ) -> None:
        super().__init__()
        self.assigner = make(assigner)
        self.losses = [make(loss) for loss in losses]
        self.named = {name: make(loss) for name, loss in (named or {}).items()}
        self.extra = make(extra)
        self.in_features, self.num_classes, self.strides = in_features, num_classes, strides


class Model(Net):
    def __init__(
        self,
        *,
        num_classes: int = 80,
        backbone: Part[Backbone] = Backbone.spec(),
        neck: Part[Neck] | None = Neck.spec(),
        head: Part[Head] = Head.spec(),
    ) -> None:
        super().__init__()
        self.backbone = make(backbone)
        features = self.backbone.out_features
        self.neck = make(neck, in_features=features)
        features = features if self.neck is None else self.neck.out_features
        strides = [f.stride for f in features]
        self.head = make(head, in_features=features, num_classes=num_classes, strides=strides)


ZOO = (Focal, Bare, MaxIoU, Backbone, Neck, Head, Model)


@pytest.fixture(autouse=True)
def zoo():
    """The registry knows this file's components, and nothing else."""
    classes = {Entry(c.kind, c.__name__, "zoo", "1.0", f"zoo:{c.__name__}"): c for c in ZOO}
    with registry.use(Registry(list(classes), classes)):
        yield


def problems_of(action, *args, **kwargs):
    """Path -> message (with remedy) of everything that an action complains about."""
    with pytest.raises(ConfigError) as caught:
        action(*args, **kwargs)
    found = caught.value.problems
    table = {p.path: str(p).removeprefix(f"{p.path}: ") for p in found}
    assert len(table) == len(found), f"two problems with one path: {found}"
    return table


# ------------------------------------------------------------------------------ construction


def test_values_are_coerced_when_constructed_in_python():
    loss = Focal(gamma="3", alpha=1)
    assert loss.gamma == 3.0
    assert type(loss.alpha) is float


def test_arguments_are_remembered_with_defaults():
    assert arguments_of(Focal(gamma="3")).values == {"gamma": 3.0, "alpha": 0.25, "beta": 0.0}
    assert arguments_of(Focal()).wired == set()


def test_construction_refuses_what_does_not_fit():
    assert problems_of(Focal, gamma=-1, alfa=3) == {
        "gamma": "input should be greater than or equal to 0; got -1",
        "alfa": "unknown parameter 'alfa'; did you mean 'alpha'? Focal takes gamma, alpha, beta",
    }


@pytest.mark.parametrize("action", [Focal, Focal.spec])
def test_positional_arguments_are_refused(action):
    with pytest.raises(ConfigError, match=r"^Focal: takes keyword arguments only$"):
        action(3.0)


def test_a_cross_field_check_names_the_component():
    with pytest.raises(
        ConfigError, match=r"^Focal: beta should not exceed gamma, got 5.0 and 2.0$"
    ) as caught:
        Focal(beta=5)
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_class_without_constructor():
    assert isinstance(Bare(), Loss)
    assert arguments_of(Bare()).values == {}
    assert Bare.spec().build().__class__ is Bare
    with pytest.raises(ConfigError, match=r"^Bare: x: unknown parameter 'x'; Bare takes no parameters$"):
        Bare(x=3)


class Inherits(Focal):
    """No constructor of its own, but one to inherit."""


def test_an_inherited_constructor_is_the_subclass_own():
    assert Inherits(gamma="1").gamma == 1.0
    with pytest.raises(
        ConfigError, match=r"^Inherits: gama: unknown parameter 'gama'; .* Inherits takes gamma"
    ):
        Inherits(gama=1)
    with pytest.raises(ConfigError, match=r"^Inherits: beta should not exceed"):
        Inherits(beta=9)


class Narrow(Focal):
    def __init__(self, *, sharp: bool = True) -> None:
        super().__init__(gamma="5" if sharp else "1")
        self.sharp = sharp


class Narrower(Narrow):
    def __init__(self, *, level: int) -> None:
        super().__init__(sharp=level > 3)


def test_of_a_chain_of_constructors_the_outermost_is_remembered():
    loss = Narrower(level="4")
    assert arguments_of(loss).values == {"level": 4}
    assert loss.gamma == 5.0
    assert loss.sharp is True
    assert arguments_of(Narrow()).values == {"sharp": True}


class Misfit(Focal):
    def __init__(self, *, level: int = 1) -> None:
        super().__init__(gamma=-level)


def test_each_level_of_a_chain_is_validated():
    with pytest.raises(
        ConfigError, match=r"^Focal: gamma: input should be greater than or equal to 0; got -1$"
    ):
        Misfit()


class InheritsParts(MaxIoU):
    def __init__(self, *, pos: float = 0.5, cost: Part[Loss] = Focal.spec()) -> None:
        super().__init__(pos=pos, cost=cost)


def test_a_part_that_a_base_class_makes():
    assert InheritsParts(cost={"type": "Focal", "gamma": "7"}).cost.gamma == 7
    assert problems_of(InheritsParts, cost=Focal.spec(beta=9)) == {
        "cost": "beta should not exceed gamma, got 9.0 and 2.0"
    }


def test_an_interface_is_no_component():
    with pytest.raises(TypeError):
        AbstractThing()
    with pytest.raises(
        ConfigError, match=r"AbstractThing is an interface, not a component \(abstract: run\)"
    ):
        AbstractThing.spec()


class AbstractThing(Loss):
    from abc import abstractmethod

    @abstractmethod
    def run(self) -> None: ...


def test_an_object_that_was_not_constructed():
    with pytest.raises(ConfigError, match="Focal was not made through its constructor"):
        arguments_of(Focal.__new__(Focal))


def test_signatures_stay_visible():
    import inspect

    assert list(inspect.signature(Focal).parameters) == ["gamma", "alpha", "beta"]
    assert Focal.__init__.__qualname__ == "Focal.__init__"
    assert MaxIoU.__init__.__name__ == "__init__"


# ------------------------------------------------------------------------------------- specs


def test_a_spec_is_validated_and_coerced():
    assert dict(Focal.spec(gamma="3").params) == {"gamma": 3.0}
    assert problems_of(MaxIoU.spec, neg="x") == {
        "pos": "required parameter of MaxIoU is missing",
        "neg": "input should be a valid number, unable to parse string as a number; got 'x'",
    }


def test_a_spec_leaves_out_what_its_owner_knows():
    spec = Neck.spec(out_channels=64)
    features = (FeatureSpec(3, 4),)
    neck = spec.build(in_features=features)
    assert neck.out_features == (FeatureSpec(64, 4),)
    assert arguments_of(neck).wired == {"in_features"}
    assert problems_of(spec.build) == {
        "in_features": "Neck needs it from its owner, and has none; "
        "give it, or use Neck.spec(...) inside a component that supplies it"
    }


def test_what_a_component_does_not_declare_as_wired_is_left_out():
    loss = Focal.spec().build(in_features=(), gamma=9, num_classes=3)
    assert loss.gamma == 2.0


def test_a_spec_is_frozen():
    spec = Focal.spec(gamma=3)
    with pytest.raises(AttributeError, match=r"Focal.spec\(...\) is frozen; use its replace\(gamma=...\)"):
        spec.gamma = 4
    with pytest.raises(AttributeError, match="is frozen"):
        spec.params = {}
    with pytest.raises(AttributeError, match="is frozen"):
        del spec.params
    with pytest.raises(TypeError):
        spec.params["gamma"] = 4


def test_replace_makes_another_spec():
    spec = Focal.spec(gamma=3)
    assert spec.replace(gamma="4", alpha=1).params == {"gamma": 4.0, "alpha": 1.0}
    assert spec.params == {"gamma": 3.0}
    assert problems_of(spec.replace, gama=3).keys() == {"gama"}


def test_specs_compare_by_what_they_build():
    assert Focal.spec() == Focal.spec(gamma=2)
    assert Focal.spec() == Focal.spec(gamma="2.0")
    assert hash(Focal.spec()) == hash(Focal.spec(gamma=2))
    assert Focal.spec() != Focal.spec(gamma=3)
    assert Focal.spec() != Bare.spec()
    assert Focal.spec() != 3
    assert MaxIoU.spec(pos=0.5) == MaxIoU.spec(pos=0.5, cost={"type": "Focal"})
    assert len({Focal.spec(), Focal.spec(gamma=2), Focal.spec(gamma=3)}) == 2


def test_repr_is_what_one_would_write():
    spec = MaxIoU.spec(pos=0.5, cost=Focal.spec(gamma=3))
    assert repr(spec) == "MaxIoU.spec(pos=0.5, cost=Focal.spec(gamma=3.0))"
    assert eval(repr(spec)) == spec


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_specs_are_copied(duplicate):
    spec = MaxIoU.spec(pos=0.5, cost=Focal.spec(gamma=3))
    assert duplicate(spec) == spec
    assert duplicate(spec).build().cost.gamma == 3


def test_complete_fills_in_defaults_but_not_what_is_wired():
    assert Neck.spec().complete() == {"out_channels": 256, "num_outs": 2}
    features = (FeatureSpec(1, 2),)
    assert Neck.spec(in_features=features).complete()["in_features"] == features


def test_building_twice_gives_two_objects():
    spec = MaxIoU.spec(pos=0.5)
    first, second = spec.build(), spec.build()
    assert first is not second
    assert first.cost is not second.cost


def test_defaults_are_not_shared():
    assert MaxIoU(pos=0.5).cost is not MaxIoU(pos=0.5).cost


@given(st.floats(0, 10), st.floats(0, 1), st.floats(0, 1))
def test_spec_then_build_is_the_same_as_construction(gamma, alpha, beta):
    given_values = {"gamma": gamma, "alpha": alpha, "beta": beta}
    if beta > gamma:
        with pytest.raises(ConfigError):
            Focal.spec(**given_values).build()
        return
    assert vars(Focal.spec(**given_values).build()) == vars(Focal(**given_values))


# ------------------------------------------------------------------------------------- parts


@pytest.mark.parametrize(
    "cost",
    [
        lambda: Focal(gamma=3),
        lambda: Focal.spec(gamma=3),
        lambda: {"type": "Focal", "gamma": "3"},
        lambda: {"type": "zoo:Focal", "gamma": 3},
    ],
    ids=["instance", "spec", "mapping", "qualified"],
)
def test_a_part_is_an_instance_a_spec_or_a_mapping(cost):
    assigner = MaxIoU(pos=0.5, cost=cost())
    assert isinstance(assigner.cost, Focal)
    assert assigner.cost.gamma == 3.0
    assert MaxIoU.spec(pos=0.5, cost=cost()).build().cost.gamma == 3.0


def test_an_instance_is_taken_as_it_is():
    loss = Focal()
    assert MaxIoU(pos=0.5, cost=loss).cost is loss


def test_make_of_nothing_is_nothing():
    assert make(None) is None
    assert Head(in_features=[], num_classes=1).extra is None


def test_make_outside_of_a_constructor():
    assert make(Focal.spec(gamma=3)).gamma == 3
    with pytest.raises(ConfigError, match="beta should not exceed"):
        make(Focal.spec(beta=3))


def test_parts_at_every_depth():
    model = Model(
        backbone={"type": "Backbone"},
        head={
            "type": "Head",
            "assigner": {"type": "MaxIoU", "pos": "0.7", "cost": {"type": "Focal", "gamma": "9"}},
            "losses": [Focal(gamma=5), {"type": "Bare"}, Focal.spec(gamma=6)],
            "named": {"a": {"type": "Focal", "gamma": 7}, "b": Bare()},
        },
    )
    assert model.head.assigner.cost.gamma == 9
    assert [type(loss) for loss in model.head.losses] == [Focal, Bare, Focal]
    assert model.head.named["a"].gamma == 7
    assert [path for path, _ in walk(model)] == [
        "", "backbone", "neck", "head", "head.assigner", "head.assigner.cost", "head.losses.0",
        "head.losses.1", "head.losses.2", "head.named.a", "head.named.b",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("cost", "path", "message"),
    [
        (
            3,
            "cost",
            "expected a Loss, got 3; give an instance, Loss.spec(...) of a concrete class, or {type: NAME",
        ),
        ("Focal", "cost", "expected a Loss, got 'Focal'"),
        (Focal, "cost", "got the class Focal itself; use Focal.spec(...)"),
        (MaxIoU.spec(pos=1), "cost", "expected a Loss, got MaxIoU"),
        ({}, "cost.type", "the key 'type' is missing; name one of: Bare, Focal"),
        ({"gamma": 3}, "cost.type", "the key 'type' is missing; name one of: Bare, Focal"),
        (
            {"typ": "Focal"},
            "cost.type",
            "the key 'type' is missing (is 'typ' meant for it?); name one of: Bare, Focal",
        ),
        ({"gamma": 3, "Type": "Focal"}, "cost.type", "the key 'type' is missing (is 'Type' meant for it?)"),
        ({"tpye": "Focal"}, "cost.type", "the key 'type' is missing (is 'tpye' meant for it?)"),
        ({"name": "Focal"}, "cost.type", "the key 'type' is missing (is 'name' meant for it?)"),
        ({"type": 3}, "cost.type", "expected a component's name, got 3"),
        (
            {"type": "Focl"},
            "cost.type",
            "'Focl' is not an installed component of kind 'losses'; did you mean 'Focal'?",
        ),
        (
            {"type": "MaxIoU"},
            "cost.type",
            "'MaxIoU' is not an installed component of kind 'losses'; it is one of kind assigners",
        ),
        (
            {"type": "other:Focal"},
            "cost.type",
            "'other:Focal' is not an installed component of kind 'losses'",
        ),
        ({"type": "Focal", "gama": 3}, "cost.gama", "unknown parameter 'gama'; did you mean 'gamma'?"),
        ({"type": "Focal", "gamma": -3}, "cost.gamma", "input should be greater than or equal to 0; got -3"),
        ({"type": "Focal", "beta": 3}, "cost", "beta should not exceed gamma, got 3.0 and 2.0"),
    ],
    ids=str,
)
def test_what_is_no_part(cost, path, message):
    for action in (MaxIoU, lambda **kwargs: MaxIoU.spec(**kwargs).build()):
        found = problems_of(action, pos=0.5, cost=cost)
        assert list(found) == [path]
        assert found[path].startswith(message)


def test_a_part_that_is_an_interface_with_one_more_requirement():
    found = problems_of(Model, backbone={"type": "Neck"}, neck=Head.spec(), head=Backbone(depth=3))
    assert found["backbone.type"] == "expected a Backbone, got 'Neck'"
    assert found["neck"].startswith("expected a Neck, got Head")
    assert found["head"].startswith("expected a Head, got Backbone(")


def test_all_validation_errors_of_the_tree_at_once():
    found = problems_of(
        Model,
        num_clases=3,
        backbone={"type": "Backbone", "depth": "fifty"},
        neck={"type": "Nek"},
        head={
            "type": "Head",
            "assigner": {"type": "MaxIoU", "cost": {"typ": "Focal"}},
            "losses": [{"type": "Focal", "gamma": -1}, {"type": "Focal", "gama": 1}],
            "named": {"a": 3},
        },
    )
    assert set(found) == {
        "num_clases", "backbone.depth", "neck.type", "head.assigner.pos", "head.assigner.cost.type",
        "head.losses.0.gamma", "head.losses.1.gama", "head.named.a",
    }  # fmt: skip


class Forgetful(Assigner):
    def __init__(self, *, cost: Part[Loss]) -> None:
        self.other = make(cost)


def test_an_instance_must_be_kept_under_its_parameters_name():
    with pytest.raises(
        ConfigError, match=r"^Forgetful does not keep its part 'cost': .* self.cost = make\(cost, ...\)"
    ):
        Forgetful(cost=Focal())
    assert Forgetful(cost=Focal.spec()).other.gamma == 2.0


class Twins(Loss):
    """The same default twice."""

    def __init__(self, *, a: Part[Loss] = Focal.spec(), b: Part[Loss] = Focal.spec()) -> None:
        self.a = make(a)
        self.b = make(b)


def test_the_same_spec_in_two_places_is_told_with_both_paths():
    bad = Focal.spec(beta=9)
    assert set(problems_of(Twins, a=bad, b=bad)) == {"a", "b"}
    good = Twins(a=(spec := Focal.spec(gamma=7)), b=spec)
    assert good.a is not good.b


# ------------------------------------------------------------------------------------ wiring


def test_wiring_flows_downstream():
    model = Model(num_classes=5, neck=Neck.spec(out_channels=16))
    assert model.head.num_classes == 5
    assert model.head.in_features == (FeatureSpec(16, 8), FeatureSpec(16, 16))
    assert model.head.strides == (8, 16)
    assert arguments_of(model.head).wired == {"in_features", "num_classes", "strides"}
    assert Model(neck=None).head.in_features == (FeatureSpec(4, 8), FeatureSpec(8, 16))


def test_a_spec_that_contradicts_its_owner():
    assert problems_of(Model, num_classes=5, head=Head.spec(num_classes=7)) == {
        "head.num_classes": "Head has num_classes=7, but its owner supplies 5; "
        "use Head.spec(...) without num_classes, or build it for what precedes it"
    }


def test_a_spec_that_agrees_with_its_owner():
    model = Model(num_classes=5, head=Head.spec(num_classes="5"))
    assert model.head.num_classes == 5
    assert "num_classes" not in arguments_of(model.head).wired


def test_what_an_owner_supplies_is_coerced_before_it_is_compared():
    head = Head.spec(in_features=[{"channels": 4, "stride": 8}], num_classes=2)
    built = head.build(in_features=[FeatureSpec(4, 8)], num_classes="2")
    assert built.in_features == (FeatureSpec(4, 8),)
    assert Neck.spec().build(in_features=[{"channels": 4, "stride": 8}]).out_features == (
        FeatureSpec(256, 8),
    )


def test_what_an_owner_supplies_is_validated():
    assert problems_of(Head.spec().build, in_features=3, num_classes="x").keys() == {
        "in_features",
        "num_classes",
    }


def test_an_override_may_differ():
    assert Model(head=Head.spec(strides=(4, 32))).head.strides == (4, 32)


def test_an_instance_is_checked_against_its_neighbours():
    features = (FeatureSpec(256, 8), FeatureSpec(256, 16))
    head = Head(in_features=features, num_classes=80)
    model = Model(head=head)
    assert model.head is head
    assert arguments_of(head).wired == {"in_features", "num_classes", "strides"}


def test_an_instance_that_was_built_for_other_neighbours():
    head = Head(in_features=(FeatureSpec(64, 8),), num_classes=3, strides=(4,))
    found = problems_of(Model, head=head)
    assert found == {
        "head.in_features": "Head has in_features=(64 channels at stride 8), but its owner supplies "
        "(256 channels at stride 8, 256 channels at stride 16); "
        "use Head.spec(...) without in_features, or build it for what precedes it",
        "head.num_classes": "Head has num_classes=3, but its owner supplies 80; "
        "use Head.spec(...) without num_classes, or build it for what precedes it",
    }
    assert arguments_of(head).wired == set()


# ------------------------------------------------- cross-field errors from all over the tree


def test_cross_field_errors_of_all_siblings():
    found = problems_of(
        Model,
        backbone=Backbone.spec(frozen_stages=9),
        neck=Neck.spec(num_outs=1),  # needs what the backbone would give: cannot be tried
        head=Head.spec(
            assigner=MaxIoU.spec(pos=0.3, neg=0.9, cost=Focal.spec(beta=4)),
            losses=[Focal.spec(beta=5), Bare.spec(), Focal.spec(beta=6)],
            named={"x": Focal.spec(beta=7)},
            extra={"type": "Focal", "beta": 8},
        ),
    )
    assert set(found) == {
        "backbone", "head.assigner", "head.assigner.cost", "head.losses.0", "head.losses.2", "head.named.x",
        "head.extra",
    }  # fmt: skip
    assert found["backbone"] == "frozen_stages should be at most 4, got 9"
    assert found["head.losses.2"] == "beta should not exceed gamma, got 6.0 and 2.0"


def test_cross_field_errors_where_the_owner_gets_to_every_part():
    found = problems_of(
        Model,
        neck=Neck.spec(num_outs=1),
        head=Head.spec(assigner=MaxIoU.spec(pos=0.3, neg=0.9), extra=Focal.spec(beta=8)),
    )
    assert set(found) == {"neck", "head.assigner", "head.extra"}
    assert found["neck"] == "num_outs should be at least 2, got 1"


class Early(Assigner):
    """Fails before it gets to its parts."""

    def __init__(
        self, *, pos: float = 0.5, cost: Part[Loss] = Focal.spec(), other: Part[Loss] = Bare.spec()
    ) -> None:
        if pos > 1:
            raise ValueError(f"pos should be at most 1, got {pos}")
        self.cost, self.other = make(cost), make(other)


def test_parts_that_were_never_reached_are_tried():
    found = problems_of(
        Head, in_features=[], num_classes=1, assigner=Early.spec(pos=3, cost=Focal.spec(beta=9))
    )
    assert set(found) == {"assigner", "assigner.cost"}


class Late(Assigner):
    """Its own check comes after its parts."""

    def __init__(self, *, pos: float = 0.5, cost: Part[Loss] = Focal.spec()) -> None:
        self.cost = make(cost)
        if pos > 1:
            raise ValueError(f"pos should be at most 1, got {pos}")


def test_the_owners_own_check_is_told_with_those_of_its_parts():
    assert set(problems_of(Late, pos=3, cost=Focal.spec(beta=9))) == {"", "cost"}
    assert set(
        problems_of(Head, in_features=[], num_classes=1, assigner=Late.spec(pos=3, cost=Focal.spec(beta=9)))
    ) == {
        "assigner",
        "assigner.cost",
    }


def test_a_wired_spec_that_states_everything_is_tried_without_its_owner():
    neck = Neck.spec(in_features=[FeatureSpec(1, 2)] * 3, num_outs=1)
    found = problems_of(Model, backbone=Backbone.spec(frozen_stages=9), neck=neck)
    assert set(found) == {"backbone", "neck"}


def test_each_error_is_told_once_and_with_the_title_of_the_root():
    with pytest.raises(ConfigError, match=r"^Model: head.extra: beta should not exceed gamma") as caught:
        Model(head=Head.spec(extra=Focal.spec(beta=8)))
    assert len(caught.value.problems) == 1


class Buggy(Loss):
    def __init__(self, *, mode: str = "key", cost: Part[Loss] = Focal.spec()) -> None:
        self.cost = make(cost)
        if mode == "key":
            raise KeyError("a bug")
        if mode == "data":
            raise DataError("a.json: cannot be read")
        if mode == "uses":
            self.twice = self.cost.gamma * 2
        if mode == "adds":
            self.sum = self.cost + 1  # a TypeError where the part is missing, and where it is not


@pytest.mark.parametrize(("mode", "error"), [("key", KeyError), ("adds", TypeError), ("data", DataError)])
def test_odd_failures_are_seen_as_they_are(mode, error):
    with pytest.raises(error):
        Buggy(mode=mode)
    with pytest.raises(error):
        Head(in_features=[], num_classes=1, extra=Buggy.spec(mode=mode))
    with pytest.raises(error):
        Model(head=Head.spec(extra=Buggy.spec(mode=mode)))


@pytest.mark.parametrize("mode", ["key", "uses", "adds", "data"])
def test_odd_failures_after_a_missing_part_are_its_consequence(mode):
    bad = Focal.spec(beta=9)
    assert set(problems_of(Buggy, mode=mode, cost=bad)) == {"cost"}
    assert set(problems_of(Head, in_features=[], num_classes=1, extra=Buggy.spec(mode=mode, cost=bad))) == {
        "extra.cost"
    }
    # never reached by its owner, which fails before
    backbone = Backbone.spec(frozen_stages=9)
    found = problems_of(Model, backbone=backbone, head=Head.spec(extra=Buggy.spec(mode=mode, cost=bad)))
    assert set(found) == {"backbone", "head.extra.cost"}


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_interruptions_are_never_held_back(interruption):
    class Interrupted(Loss):
        def __init__(self, *, cost: Part[Component] = Focal.spec(beta=9)) -> None:
            self.cost = make(cost)
            raise interruption

    # annotations of local classes cannot name local things; Component is global
    with pytest.raises(interruption):
        Interrupted()
    assert set(problems_of(Late, pos=3)) == {""}  # nothing is left behind


def test_nothing_is_left_behind_by_a_failure():
    for _ in range(2):
        assert set(problems_of(Model, backbone=Backbone.spec(frozen_stages=9))) == {"backbone"}
        assert isinstance(Model(), Model)


class Fallback(Loss):
    """Tries something, and does without."""

    def __init__(self, *, gamma: float = 1.0) -> None:
        try:
            self.inner = Focal(beta=gamma + 1, gamma=gamma)
        except ConfigError:
            self.inner = None


def test_a_component_may_handle_the_failure_of_what_it_constructs_itself():
    assert Fallback().inner is None


# ----------------------------------------------------------------- instances inside of specs


def test_an_instance_in_a_spec_belongs_to_one_owner():
    spec = MaxIoU.spec(pos=0.5, cost=Focal())
    first = spec.build()
    with pytest.raises(
        ConfigError, match="holds an instance and was built before; an instance belongs to one owner only"
    ):
        spec.build()
    del first
    gc.collect()
    assert isinstance(spec.build(), MaxIoU)


def test_an_instance_deep_in_a_spec_belongs_to_one_owner():
    spec = Head.spec(assigner=MaxIoU.spec(pos=0.5, cost=Focal()))
    model = Model(head=spec)
    found = problems_of(Model, head=spec)
    assert list(found) == ["head"]
    assert "was built before" in found["head"]
    assert model.head is not None


def test_a_spec_with_an_instance_is_free_again_after_a_failed_build():
    loss = Focal()
    spec = MaxIoU.spec(pos=0.5, cost=loss)
    with pytest.raises(ConfigError) as caught:
        Head(in_features=[], num_classes=1, assigner=spec, extra=Focal.spec(beta=9))
    assert caught.value.problems[0].path == "extra"
    head = Head(
        in_features=[], num_classes=1, assigner=spec
    )  # although `caught` may hold on to the failed ones
    assert head.assigner.cost is loss


def test_a_spec_with_an_instance_is_free_again_after_an_odd_failure():
    spec = MaxIoU.spec(pos=0.5, cost=Focal())
    with pytest.raises(KeyError) as caught:
        Head(in_features=[], num_classes=1, assigner=spec, extra=Buggy.spec())
    assert caught.value.args == ("a bug",)
    assert Head(in_features=[], num_classes=1, assigner=spec).assigner.pos == 0.5


def test_parts_that_are_instances_are_read_live():
    assigner = MaxIoU(pos=0.5, cost=Focal(gamma=3))
    assert "cost" not in arguments_of(assigner).values
    assigner.cost = Focal(gamma=4)
    assert [part.gamma for path, part in walk(assigner) if path == "cost"] == [4]


# ------------------------------------------------------------- copies, torch, threads, types


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_components_are_copied_with_their_arguments(duplicate):
    model = Model(num_classes=3, head=Head.spec(extra=Focal(gamma=4)))
    twin = duplicate(model)
    assert arguments_of(twin) == arguments_of(model)
    assert twin.head.extra.gamma == 4
    assert arguments_of(twin.head).wired == arguments_of(model.head).wired
    arguments_of(twin).values["num_classes"] = 9
    assert arguments_of(model).values["num_classes"] == 3


class Scale(Net):
    def __init__(self, *, factor: float = 2.0, inner: Part[Net] | None = None) -> None:
        super().__init__()
        self.factor = factor
        self.inner = make(inner)
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: Any) -> Any:
        x = x * self.weight * self.factor
        return x if self.inner is None else self.inner(x)


def test_an_nn_module_is_a_module_like_any():
    net = Scale(inner=Scale.spec(factor=3))
    assert set(net.state_dict()) == {"weight", "inner.weight"}
    assert net(torch.ones(3)).tolist() == [6, 6, 6]
    assert [type(m) for m in net.modules()] == [Scale, Scale]
    net.to("cpu").double()
    assert net.inner.weight.dtype == torch.float64


def test_torch_compile():
    torch._dynamo.reset()
    net = Scale(inner=Scale.spec(factor=3))
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    x = torch.arange(3.0)
    torch.testing.assert_close(compiled(x), net(x))


def test_construction_on_the_meta_device():
    with torch.device("meta"):
        assert Scale().weight.device.type == "meta"


def test_two_threads_build_at_once():
    barrier = threading.Barrier(4)
    results: list[Any] = [None] * 4

    def work(index):
        barrier.wait()
        for turn in range(20):
            try:
                model = Model(
                    num_classes=index + 1, head=Head.spec(extra=Focal.spec(beta=2.0 * (index % 2) + 1))
                )
                results[index] = model.head.num_classes
            except ConfigError as error:
                results[index] = [p.path for p in error.problems]
            if turn == 19:
                barrier.wait()

    # Odd threads fail, even ones do not. The context variables, and so the registry, are each thread's own.
    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [1, ["head.extra"], 3, ["head.extra"]]


def test_a_thread_sees_no_construction_of_another():
    seen = []

    class Starter(Loss):
        def __init__(self, *, cost: Part[Component] = Focal.spec()) -> None:
            thread = threading.Thread(target=lambda: seen.append(problems_of(Focal, beta=9)))
            thread.start()
            thread.join()
            self.cost = make(cost)

    Starter()
    assert seen == [{"": "beta should not exceed gamma, got 9.0 and 2.0"}]


SNIPPET = """
from detcore.component import Component, Part, Spec, make, wired

class Net(Component):
    kind = "nets"

class FPN(Net):
    def __init__(
        self, *, in_channels: int = wired(), out_channels: int = 256, inner: Part[Net] | None = None
    ) -> None:
        self.inner = make(inner)
        self.out_channels = out_channels

good: Spec[FPN] = FPN.spec(out_channels=64, inner=FPN.spec())
built: FPN = good.build(in_channels=3)
made: Net | None = FPN(in_channels=3, inner=good).inner
FPN.spec(out_channels="x")
FPN.spec(out_chanels=3)
FPN.spec(inner=3)
FPN(out_channels="x")
wrong: Spec[str] = FPN.spec()
"""


@pytest.mark.slow
def test_type_checkers_see_through_spec(tmp_path):
    api = pytest.importorskip("mypy.api")

    path = tmp_path / "snippet.py"
    path.write_text(SNIPPET)
    out, err, _ = api.run(["--strict", "--no-error-summary", f"--cache-dir={tmp_path / 'cache'}", str(path)])
    assert not err
    errors = [
        line.partition("snippet.py:")[2]
        for line in out.splitlines()
        if "snippet.py" in line and ": error:" in line
    ]
    first = SNIPPET.splitlines().index('FPN.spec(out_channels="x")') + 1
    assert [int(line.split(":")[0]) for line in errors] == list(range(first, first + 5))
    assert (
        'Argument "out_channels" to "spec" of "Component" has incompatible type "str"; expected "int"'
        in errors[0]
    )
    assert 'Unexpected keyword argument "out_chanels"' in errors[1]
