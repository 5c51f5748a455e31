"""Reading, merging and overriding configuration files."""

import json

import pytest

from detcore import config
from detcore.errors import ConfigError

BASE = """\
type: Thing
model:
  type: A
  depth: 18
  lr: 1e-4
list: [1, 2, {a: 3}]
"""


@pytest.fixture
def base(tmp_path):
    path = tmp_path / "base.yaml"
    path.write_text(BASE)
    return path


def write(folder, name, text):
    path = folder / name
    path.write_text(text)
    return path


def test_values_and_lines(base):
    loaded = config.load(base)
    assert loaded.data["model"] == {"type": "A", "depth": 18, "lr": 1e-4}
    assert loaded.origins["model.depth"] == f"{base}:4"
    assert loaded.origins["list.2.a"] == f"{base}:6"


def test_the_three_formats_agree(tmp_path, base):
    data = config.load(base).data
    as_json = write(tmp_path, "a.json", json.dumps(data))
    as_toml = write(
        tmp_path, "a.toml", 'type="Thing"\nlist=[1,2,{a=3}]\n[model]\ntype="A"\ndepth=18\nlr=1e-4\n'
    )
    assert config.load(as_json).data == config.load(as_toml).data == data


def test_extends_merges_by_key(tmp_path, base):
    path = write(tmp_path, "sub.yaml", "extends: base.yaml\nmodel: {depth: 50}\nlist: []\n")
    loaded = config.load(path)
    assert loaded.data == {"type": "Thing", "model": {"type": "A", "depth": 50, "lr": 1e-4}, "list": []}
    assert loaded.origins["model.depth"] == f"{path}:2"
    assert loaded.origins["model.lr"] == f"{tmp_path / 'base.yaml'}:5"
    assert not any(key.startswith("list.") for key in loaded.origins)


def test_another_type_replaces(tmp_path, base):
    path = write(tmp_path, "sub.yaml", "extends: base.yaml\nmodel: {type: B, width: 2}\n")
    assert config.load(path).data["model"] == {"type": "B", "width": 2}


def test_the_same_type_qualified_merges(tmp_path, base):
    path = write(tmp_path, "sub.yaml", "extends: base.yaml\nmodel: {type: 'dist:A', depth: 2}\n")
    assert config.load(path).data["model"] == {"type": "dist:A", "depth": 2, "lr": 1e-4}


def test_several_bases_in_order(tmp_path, base):
    write(tmp_path, "two.yaml", "model: {depth: 34}\n")
    path = write(tmp_path, "sub.yaml", "extends: [base.yaml, two.yaml]\n")
    assert config.load(path).data["model"]["depth"] == 34


def test_extending_itself(tmp_path):
    write(tmp_path, "a.yaml", "extends: b.yaml\n")
    write(tmp_path, "b.yaml", "extends: a.yaml\n")
    with pytest.raises(ConfigError, match=r"a file cannot extend itself"):
        config.load(tmp_path / "a.yaml")


def test_overrides(base):
    loaded = config.load(base, ["model.depth=101", "list.2.a=[4, 5]", "new.key=true", "name=yes"])
    assert loaded.data["model"]["depth"] == 101
    assert loaded.data["list"] == [1, 2, {"a": [4, 5]}]
    assert loaded.data["new"] == {"key": True}
    assert loaded.data["name"] == "yes"
    assert loaded.origins["model.depth"] == "command line"
    assert loaded.origins["list.2.a.0"] == "command line"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.depth", r"override 'model.depth' should read key.path=value"),
        ("model.depth.x=1", r"model.depth.x: leads through 18, which has no parts"),
        ("list.7=1", r"list.7: '7' is no index into a list of 3"),
        ("model={a: ", r"override 'model=\{a: '"),
    ],
)
def test_bad_overrides(base, override, message):
    with pytest.raises(ConfigError, match=message):
        config.load(base, [override])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "a: 1\nb: 2\na: 3\n", r"a.yaml:3: the key 'a' was already given in line 1"),
        ("a.yaml", "a: [1\n", r"a.yaml: .*line 2"),
        (
            "a.yaml",
            "a: !!python/object/apply:os.system [ls]\n",
            r"a.yaml:1: the tag '.*os.system' is not allowed",
        ),
        ("a.yaml", "a: !secret x\n", r"a.yaml:1: the tag '!secret' is not allowed"),
        ("a.yaml", "- 1\n", r"a.yaml: expected a mapping, got list"),
        ("a.json", '{"a": 1, "a": 2}', r"a.json: the key 'a' is given twice"),
        ("a.json", '{"a": 1,\n}', r"a.json:2: "),
        ("a.toml", "a = \n", r"a.toml: Invalid value"),
        ("a.yaml", "extends: 3\n", r"extends: expected a file, a recipe or a list of them, got 3"),
        ("a.yaml", "extends: gone.yaml\n", r"gone.yaml: no such file"),
        (
            "a.yaml",
            "extends: retinanet_r50\n",
            r"'retinanet_r50' is neither a file .* nor an installed recipe",
        ),
    ],
)
def test_bad_files(tmp_path, name, text, message):
    with pytest.raises(ConfigError, match=message):
        config.load(write(tmp_path, name, text))


def test_missing_and_misnamed_files(tmp_path):
    with pytest.raises(ConfigError, match=r"gone.yaml: no such file"):
        config.load(tmp_path / "gone.yaml")
    with pytest.raises(ConfigError, match=r"neither a file \(.yaml, .toml, .json\) nor an installed recipe"):
        config.load(tmp_path / "config.py")


def test_yaml_scalars():
    data = config.parse_yaml(
        "a: on\nb: 2024-01-01\nc: 1e3\nd: 0o17\ne: ~\nf: .5\ng: -3\nh: true\ni: ''", "x"
    ).data
    assert data == {
        "a": "on",
        "b": "2024-01-01",
        "c": 1e3,
        "d": 15,
        "e": None,
        "f": 0.5,
        "g": -3,
        "h": True,
        "i": "",
    }


def test_anchors_and_merge_keys():
    data = config.parse_yaml("x: &x {a: 1, b: 2}\ny: {<<: *x, b: 3}\nz: *x\n", "t").data
    assert data["y"] == {"a": 1, "b": 3}
    assert data["z"] == {"a": 1, "b": 2}


def test_empty_file_is_an_empty_mapping(tmp_path):
    assert config.load(write(tmp_path, "a.yaml", "# nothing\n")).data == {}


def test_to_yaml_round_trip():
    data = {"lr": 1e-5, "text": "on", "list": [1, 2], "none": None, "big": 1e22, "nested": [{"a": "1e3"}]}
    assert config.parse_yaml(config.to_yaml(data), "x").data == data
