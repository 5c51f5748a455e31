"""Every shipped configuration: it validates, and no mistake in it goes unnoticed."""

import copy
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from detcore import config as configs
from detcore import registry
from detcore.component import Spec
from detcore.errors import ConfigError, join_path
from detcore.serialize import as_spec, dump
from detcore.signature import harden, signature_of

ROOT = Path(__file__).parents[1]
FILES = [
    *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "examples").glob("*.yaml")),
    *sorted(configs.recipes()),
]


def load(name):
    return configs.load(str(ROOT / name) if name.endswith(".yaml") else name).data


@pytest.mark.parametrize("name", FILES)
def test_validates_and_dumps(name):
    spec = as_spec(load(name))
    assert as_spec(dump(spec)) == spec


def places(data, path=()):
    """Every (path, key) of every mapping below ``data``."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        if isinstance(data, dict):
            yield path, key
        yield from places(value, (*path, key))


def at(data, path):
    for step in path:
        data = data[step]
    return data


def refused(data, path):
    """The error for ``data``, which must name ``path``."""
    with pytest.raises(ConfigError) as caught:
        as_spec(data)
    found = [problem.path for problem in caught.value.problems]
    assert any(p == path or p.startswith(f"{path}.") for p in found), f"{path} is not among {found}"
    assert path in str(caught.value)


@pytest.mark.reliability(
    area="configs",
    fault="each key of each shipped experiment and recipe misspelt",
    outcome="an error with its path, nothing is built",
)
@pytest.mark.parametrize("name", FILES)
def test_every_renamed_key_is_an_error(name, record_property):
    data = load(name)
    count = 0
    for path, key in places(data):
        mutant = copy.deepcopy(data)
        owner = at(mutant, path)
        owner[f"{key}_x"] = owner.pop(key)
        refused(mutant, join_path(*path, "type" if key == "type" else f"{key}_x"))
        count += 1
    assert count > 5
    record_property("tried", count)


def parameters(spec, path=()):
    """Every (path, parameter, value) of a spec tree."""
    for name, value in spec.params.items():
        yield (*path, name), signature_of(spec.type).parameters[name], value
        yield from _inside(value, (*path, name))


def _inside(value, path):
    if isinstance(value, Spec):
        yield from parameters(value, path)
    elif isinstance(value, (tuple, list)):
        for index, item in enumerate(value):
            yield from _inside(item, (*path, index))


def wrong_values(parameter):
    """Values that the parameter must refuse: of other types, and outside of its ranges and choices."""
    schema = {} if parameter.is_part else TypeAdapter(harden(parameter.annotation)).json_schema()
    branches = [schema, *schema.get("anyOf", [])]
    kinds = {branch.get("type") for branch in branches}
    if "object" not in kinds:
        yield {"no": "mapping"}
    if not kinds & {"string", None}:
        yield "nonsense"
    if not kinds & {"integer", "number", None}:
        yield 3.25
    if not kinds & {"boolean", None}:
        yield True
    for branch in branches:
        if "minimum" in branch:
            yield branch["minimum"] - 1
        if "exclusiveMinimum" in branch:
            yield branch["exclusiveMinimum"]
        if "maximum" in branch:
            yield branch["maximum"] + 1
        if "exclusiveMaximum" in branch:
            yield branch["exclusiveMaximum"]
        if "enum" in branch:
            yield "none of them"


@pytest.mark.reliability(
    area="configs",
    fault="each value of each shipped experiment and recipe of another type or out of its range",
    outcome="an error with its path",
)
@pytest.mark.parametrize("name", FILES)
def test_every_wrong_value_is_an_error(name, record_property):
    data = dump(as_spec(load(name)))
    count = 0
    for path, parameter, _ in parameters(as_spec(data)):
        for wrong in wrong_values(parameter):
            mutant = copy.deepcopy(data)
            at(mutant, path[:-1])[path[-1]] = wrong
            refused(mutant, join_path(*path))
            count += 1
    assert count > 20
    record_property("tried", count)


@pytest.mark.reliability(
    area="configs",
    fault="each component of each shipped experiment and recipe under a name that does not exist",
    outcome="an error with its path",
)
@pytest.mark.parametrize("name", FILES)
def test_every_unknown_component_is_an_error(name, record_property):
    data = load(name)
    count = 0
    for path, key in places(data):
        if key == "type":
            count += 1
            mutant = copy.deepcopy(data)
            at(mutant, path)["type"] = at(mutant, path)["type"] + "x"
            refused(mutant, join_path(*path, "type"))
    record_property("tried", count)


def test_every_component_can_be_named():
    """No first-party entry point is broken."""
    for entry in registry.entries():
        assert registry.current().load(entry).__name__ == entry.name
