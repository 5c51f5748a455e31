"""Configuration files: YAML, TOML or JSON in, one resolved mapping with the origin of every value out.

``extends:`` names a base (a file, relative to the one that names it, or a recipe that a plugin ships) or a list of
them. Mappings are merged key by key; a mapping whose ``type`` differs from its base's replaces it; lists and
scalars replace. Files hold data only: nothing in them is executed.
"""

from __future__ import annotations

import importlib.util
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from detcore import registry
from detcore.errors import ConfigError, Problem, did_you_mean, join_path

SUFFIXES = (".yaml", ".yml", ".toml", ".json")
#: Most values that a YAML file may come to once its aliases are written out: a few lines can stand for billions.
MOST_VALUES = 1_000_000


@dataclass
class Config:
    """A resolved configuration.

    Args:
        data: The values.
        origins: Where each value was written (``file:line``, or ``command line``), by path.
        source: The file or recipe that was asked for.
    """

    data: dict[str, Any]
    origins: dict[str, str] = field(default_factory=dict)
    source: str = ""

    def origin(self, path: str) -> str:
        """Where the value at ``path``, or the nearest thing around it, was written; empty if nowhere."""
        while path not in self.origins and path:
            path = path.rpartition(".")[0]
        return self.origins.get(path, "")

    def override(self, assignments: Sequence[str]) -> Config:
        """This configuration with ``key.path=value`` assignments applied; values are read as YAML.

        Raises:
            ConfigError: An assignment has no ``=``, or its path leads through something that is no mapping.
        """
        layer = self
        for assignment in assignments:
            path, equals, text = assignment.partition("=")
            if not equals or not path.strip():
                raise ConfigError(f"override {assignment!r} should read key.path=value", self.source)
            value = parse_yaml(text, f"override {assignment!r}").data
            layer = Config(
                _assign(layer.data, path.strip().split("."), value, path), dict(layer.origins), self.source
            )
            origins = {p: "command line" for p, _ in leaves(value, path.strip())}
            layer.origins = {**_without(layer.origins, path.strip()), **origins}
        return layer


def load(source: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads a file or a recipe, its bases, and the overrides on top.

    Args:
        source: A path ending in .yaml, .yml, .toml or .json, or a recipe's name.
        overrides: ``key.path=value`` each.

    Raises:
        ConfigError: The source cannot be found or parsed, or extends itself.
    """
    return _load(str(source), None, ()).override(overrides)


def _load(source: str, relative_to: Path | None, chain: tuple[str, ...]) -> Config:
    path, recipe = _locate(source, relative_to)
    if str(path) in chain:
        raise ConfigError(f"{' -> '.join([*chain, str(path)])}: a file cannot extend itself", source)
    config = read(path)
    bases = config.data.pop("extends", [])
    config.origins = _without(config.origins, "extends")
    if isinstance(bases, str):
        bases = [bases]
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(
            [Problem("extends", f"expected a file, a recipe or a list of them, got {bases!r}")], source
        )
    merged = Config({}, {}, source)
    for base in bases:
        merged = merge(merged, _load(base, path.parent, (*chain, str(path))))
    merged = merge(merged, Config(config.data, config.origins, source))
    if recipe is not None:  # after merging, for the files beside a recipe that it extends
        merged.data = _qualify(merged.data, recipe.distribution)
    return merged


def read(path: Path) -> Config:
    """One file, without its bases.

    Raises:
        ConfigError: It cannot be read or parsed, or is no mapping; names file and line.
    """
    parse = _PARSERS.get(path.suffix.lower())
    if parse is None:
        raise ConfigError(f"{path}: the name should end in one of {', '.join(SUFFIXES)}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as cause:
        raise ConfigError(f"{path}: cannot be read: {cause}") from cause
    config = parse(text, str(path))
    if not isinstance(config.data, dict):
        raise ConfigError(f"{path}: expected a mapping, got {type(config.data).__name__}")
    return config


def merge(base: Config, layer: Config) -> Config:
    """``layer`` laid over ``base``; neither is changed."""
    origins = dict(base.origins)
    data = _merge(base.data, layer.data, "", origins)
    return Config(data, {**origins, **layer.origins}, layer.source)


def _merge(base: Any, layer: Any, path: str, origins: dict[str, str]) -> Any:
    if isinstance(base, Mapping) and isinstance(layer, Mapping) and not _other_type(base, layer):
        result = dict(base)
        for key, value in layer.items():
            here = join_path(path, key)
            result[key] = _merge(base[key], value, here, origins) if key in base else value
        return result
    for replaced in [p for p in origins if p == path or p.startswith(f"{path}.")]:
        del origins[replaced]
    return layer


def _other_type(base: Mapping[str, Any], layer: Mapping[str, Any]) -> bool:
    def bare(name: Any) -> str:
        return str(name).rpartition(":")[2]

    return "type" in layer and "type" in base and bare(layer["type"]) != bare(base["type"])


def _without(origins: Mapping[str, str], path: str) -> dict[str, str]:
    return {p: origin for p, origin in origins.items() if p != path and not p.startswith(f"{path}.")}


def _assign(data: Any, steps: Sequence[str], value: Any, path: str) -> Any:
    """A copy of ``data`` with ``value`` at ``steps``; missing mappings on the way are made."""
    if not steps:
        return value
    first, *rest = steps
    if isinstance(data, list):
        if not first.isdigit() or int(first) >= len(data):
            raise ConfigError([Problem(path, f"{first!r} is no index into a list of {len(data)}")])
        return [_assign(item, rest, value, path) if i == int(first) else item for i, item in enumerate(data)]
    if data is not None and not isinstance(data, Mapping):
        raise ConfigError([Problem(path, f"leads through {data!r}, which has no parts")])
    data = dict(data or {})
    return {**data, first: _assign(data.get(first), rest, value, path)}


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every scalar (and empty collection) below a value, with its path."""
    items = (
        value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    )
    below = list(items)
    if not below:
        yield path, value
    for key, item in below:
        yield from leaves(item, join_path(path, key))


# ------------------------------------------------------------------------------------------------- recipes


def recipes() -> dict[str, registry.Entry]:
    """The recipes that installed plugins ship, by name; imports nothing."""
    return {entry.name: entry for entry in registry.read_entries() if entry.kind == "recipes"}


def recipe_path(entry: registry.Entry) -> Path:
    """The file of a recipe: ``<name>.yaml`` in the package folder that its entry point names.

    Raises:
        ConfigError: The distribution registers a recipe that it does not contain.
    """
    package, *below = entry.target.split(":")[0].split(".")
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations if spec else None) or ():
        path = Path(folder, *below, f"{entry.name}.yaml")
        if path.is_file():
            return path
    raise ConfigError(
        f"recipe {entry.name!r} of {entry.distribution} {entry.version} is not in {entry.target}"
    )


def _locate(source: str, relative_to: Path | None) -> tuple[Path, registry.Entry | None]:
    if source.lower().endswith(SUFFIXES):
        path = Path(source) if relative_to is None else relative_to / source
        if not path.is_file():
            raise ConfigError(f"{path}: no such file")
        return path.resolve() if relative_to is not None else path, None
    known = recipes()
    if source not in known:
        near = did_you_mean(source, known)
        listing = f"recipes: {', '.join(sorted(known))}" if known else "no recipe is installed"
        hint = f"{near} " if near else ""
        raise ConfigError(
            f"{source!r} is neither a file (.yaml, .toml, .json) nor an installed recipe; {hint}{listing}"
        )
    return recipe_path(known[source]), known[source]


def _qualify(value: Any, distribution: str) -> Any:
    """Bare names in a recipe mean its own distribution first, then those that it depends on."""
    if isinstance(value, list):
        return [_qualify(item, distribution) for item in value]
    if not isinstance(value, dict):
        return value
    result = {key: _qualify(item, distribution) for key, item in value.items()}
    name = result.get("type")
    if isinstance(name, str) and ":" not in name:
        owners = {e.distribution for e in registry.entries() if e.name == name}
        if len(owners) > 1:
            near = [d for d in _dependencies(distribution) if d in {registry.normalise(o) for o in owners}]
            result["type"] = f"{near[0]}:{name}" if near else name
    return result


def _dependencies(distribution: str) -> list[str]:
    """A distribution's canonical name and those that it requires, in order."""
    import importlib_metadata

    required = importlib_metadata.requires(distribution) or []
    names = [re.match(r"[A-Za-z0-9._-]+", line) for line in required]
    return [registry.normalise(n) for n in [distribution, *(m.group() for m in names if m)]]


# ------------------------------------------------------------------------------------------------- parsing


class _Loader(yaml.SafeLoader):
    """YAML 1.2's scalars: only true/false are booleans, 1e-4 is a number, dates are text."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own way


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def _number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(node.value, 8 if "o" in node.value else 16 if "x" in node.value else 10)


_SCALAR_TAGS = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("str", "bool", "int", "float", "null", "merge"))
_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_Loader.add_constructor("tag:yaml.org,2002:int", _number)


def parse_yaml(text: str, name: str) -> Config:
    """YAML text, with the line of every value.

    Raises:
        ConfigError: It is no YAML, holds tags, or has a key twice; names the line.
    """
    origins: dict[str, str] = {}
    try:
        loader = _Loader(text)
    except yaml.YAMLError as cause:  # characters that YAML does not allow
        raise ConfigError(f"{name}: {' '.join(str(cause).split())}") from cause
    try:
        node = loader.get_single_node()
        if node is not None:
            _check_extent(node, name, {})
        data = None if node is None else _construct(loader, node, "", name, origins)
    except yaml.YAMLError as cause:
        raise ConfigError(f"{name}: {' '.join(str(cause).split())}") from cause
    except RecursionError:
        raise ConfigError(f"{name}: nested too deeply") from None
    finally:
        loader.dispose()
    return Config(data if data is not None or node is not None else {}, origins, name)  # type: ignore[arg-type]


def _construct(
    loader: yaml.SafeLoader, node: yaml.Node, path: str, name: str, origins: dict[str, str]
) -> Any:
    here = f"{name}:{node.start_mark.line + 1}"
    if not isinstance(node, yaml.ScalarNode) and node.tag not in _PLAIN_TAGS:
        raise ConfigError(f"{here}: the tag {node.tag!r} is not allowed; configurations hold plain data")
    if isinstance(node, yaml.MappingNode):
        _refuse_duplicates(node, name)
        loader.flatten_mapping(node)
        origins[path] = here
        result = {}
        for key_node, value_node in node.value:
            key = loader.construct_object(key_node)
            result[key] = _construct(loader, value_node, join_path(path, key), name, origins)
        return result
    if isinstance(node, yaml.SequenceNode):
        origins[path] = here
        return [_construct(loader, n, join_path(path, i), name, origins) for i, n in enumerate(node.value)]
    origins[path] = here
    if node.tag not in _SCALAR_TAGS:
        raise ConfigError(f"{here}: the tag {node.tag!r} is not allowed; configurations hold plain data")
    try:
        return loader.construct_object(node)
    except ValueError as cause:  # a number with thousands of digits, a tag on a text that does not fit it
        raise ConfigError(f"{here}: {cause}") from cause


def _check_extent(node: yaml.Node, name: str, known: dict[int, int]) -> int:
    """The number of values below a node, aliases written out.

    Raises:
        ConfigError: There are too many, or an alias stands within what it stands for.
    """
    if id(node) in known:
        if known[id(node)] == 0:
            line = node.start_mark.line + 1
            raise ConfigError(f"{name}:{line}: an alias stands within what it stands for, which never ends")
        return known[id(node)]
    known[id(node)] = 0
    items: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        items = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        items = node.value
    count = 1 + sum(_check_extent(item, name, known) for item in items)
    if count > MOST_VALUES:
        line = node.start_mark.line + 1
        raise ConfigError(
            f"{name}:{line}: more than {MOST_VALUES} values, counting what aliases stand for each time"
        )
    known[id(node)] = count
    return count


def _refuse_duplicates(node: yaml.MappingNode, name: str) -> None:
    seen: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if key.value in seen and key.value != "<<":
            raise ConfigError(
                f"{name}:{line}: the key {key.value!r} was already given in line {seen[key.value]}"
            )
        seen[key.value] = line


def _parse_toml(text: str, name: str) -> Config:
    try:
        data = tomllib.loads(text)
        return Config(data, {path: name for path, _ in leaves(data)}, name)
    except tomllib.TOMLDecodeError as cause:
        raise ConfigError(f"{name}: {cause}") from cause
    except ValueError as cause:  # a number with thousands of digits, a date that is none
        raise ConfigError(f"{name}: {cause}") from cause
    except RecursionError:
        raise ConfigError(f"{name}: nested too deeply") from None


def _parse_json(text: str, name: str) -> Config:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in items:
            if key in result:
                raise ConfigError(f"{name}: the key {key!r} is given twice")
            result[key] = value
        return result

    try:
        data = json.loads(text, object_pairs_hook=pairs)
        return Config(data, {path: name for path, _ in leaves(data)}, name)
    except json.JSONDecodeError as cause:
        raise ConfigError(f"{name}:{cause.lineno}: {cause.msg}") from cause
    except ConfigError:
        raise
    except ValueError as cause:  # a number with thousands of digits
        raise ConfigError(f"{name}: {cause}") from cause
    except RecursionError:
        raise ConfigError(f"{name}: nested too deeply") from None


_PARSERS: dict[str, Callable[[str, str], Config]] = {
    ".yaml": parse_yaml,
    ".yml": parse_yaml,
    ".toml": _parse_toml,
    ".json": _parse_json,
}


class _Dumper(yaml.SafeDumper):
    def represent_sequence(
        self, tag: str, sequence: Any, flow_style: bool | None = None
    ) -> yaml.SequenceNode:
        short = all(isinstance(item, (int, float, str, bool, type(None))) for item in sequence)
        return super().represent_sequence(tag, sequence, flow_style=short or flow_style)


for _first, _resolvers in _Loader.yaml_implicit_resolvers.items():
    for (
        _tag_name,
        _regexp,
    ) in _resolvers:  # quotes what either our loader or a YAML 1.1 reader takes for no text
        _Dumper.add_implicit_resolver(_tag_name, _regexp, [_first])


def to_yaml(data: Any) -> str:
    """Plain data as YAML text: keys in order, short lists on one line."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
