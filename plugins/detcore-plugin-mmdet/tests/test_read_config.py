"""MMDetection's Python files are read, and never run."""

import contextlib
import random
import string

import pytest
from detcore_mmdet import read_config

from detcore.errors import ConfigError, DetcoreError


def write(path, text):
    path.write_text(text)
    return path


@pytest.fixture
def read(tmp_path):
    return lambda text: read_config(write(tmp_path / "config.py", text))


def test_data_of_every_kind(read):
    found = read(
        '"""A docstring."""\n'
        "size = 2 ** 3 * 100\n"
        "lr: float = 0.02 / 16\n"
        "model = dict(type='FPN', scale=(1333, size), norm=None, ok=not False, **dict(a=-1))\n"
        "heads = [dict(i=i, name=f'h{i}') for i in range(3) if i != 1]\n"
        "steps, (first, last) = [8, 11], (1, 2)\n"
        "steps += [12]\n"
        "same = model['scale'][0] if size > 5 else 0\n"
        "many = [0] * 3 + list((1,))\n"
        "where = '{{ fileBasenameNoExtension }}/{{fileBasename}}'\n"
        "model['late'] = {1: 'one', **model}\n"
    )
    model = {"type": "FPN", "scale": (1333, 800), "norm": None, "ok": True, "a": -1}
    assert found == {
        "size": 800,
        "lr": 0.00125,
        "model": {**model, "late": {1: "one", **model}},
        "heads": [{"i": 0, "name": "h0"}, {"i": 2, "name": "h2"}],
        "steps": [8, 11, 12],
        "first": 1,
        "last": 2,
        "same": 1333,
        "many": [0, 0, 0, 1],
        "where": "config/config.py",
    }


def test_bases_are_merged(tmp_path):
    (tmp_path / "base").mkdir()
    write(
        tmp_path / "base" / "model.py",
        "model = dict(a=dict(x=1, y=2), b=dict(x=1), c=[1, 2])\nroot = 'data/'\n",
    )
    write(tmp_path / "base" / "run.py", "lr = 0.01\nmodel_name = 'm'\n")
    child = write(
        tmp_path / "child.py",
        "_base_ = ['base/model.py', './base/run.py']\n"
        "model = dict(a=dict(y=3), b=dict(_delete_=True, z=1), c=[3], d=dict(e=dict(_delete_=True, f=1)))\n"
        "lr = {{_base_.lr}} * 2\n"
        "both = [{{_base_.model.a}}, _base_.root + 'x']\n"
        "text = '{{_base_.root}}train.json'\n"
        "whole = '{{ _base_.model.c }}'\n",
    )
    assert read_config(child) == {
        "model": {"a": {"x": 1, "y": 3}, "b": {"z": 1}, "c": [3], "d": {"e": {"f": 1}}},
        "root": "data/",
        "lr": 0.02,
        "model_name": "m",
        "both": [{"x": 1, "y": 2}, "data/x"],
        "text": "data/train.json",
        "whole": [1, 2],
    }


def test_yaml_and_json_are_bases_too(tmp_path):
    write(tmp_path / "base.yaml", "model: {type: FPN}\n")
    assert read_config(write(tmp_path / "c.py", "_base_ = 'base.yaml'\nmodel = dict(num_outs=5)")) == {
        "model": {"type": "FPN", "num_outs": 5}
    }


def test_what_is_returned_shares_nothing(read):
    found = read("a = dict(x=[1])\nb = [a, a]\n")
    found["b"][0]["x"].append(2)
    assert found["b"][1] == found["a"] == {"x": [1]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import os", "config.py:1: imports are not followed"),
        ("\nfrom os import system", "config.py:2: imports are not followed"),
        ("with open('x') as f:\n    pass", "imports are not followed"),
        ("x = __import__('os').system('true')", "would execute code; only dict, list"),
        ("x = open('/etc/passwd').read()", "would execute code"),
        ("x = eval('1')", "calling 'eval' would execute code"),
        ("x = dict", "the name 'dict' is not defined"),
        ("x = lambda: 1", "'lambda: 1' is not plain data"),
        ("def f(): pass", "a statement of kind FunctionDef would have to be executed"),
        ("class A: pass", "a statement of kind ClassDef"),
        ("for i in range(3): x = i", "a statement of kind For"),
        ("print('x')", "has no effect on data"),
        ("x = ().__class__.__bases__[0]", "only attributes of _base_"),
        ("x = 'a'.upper()", "would execute code"),
        ("x = [].__class__", "only attributes of _base_"),
        ("x = y", "the name 'y' is not defined"),
        ("size = 1\nx = siz", "did you mean 'size'?"),
        ("x = 10 ** 10 ** 10", "more than 1024 bits"),
        ("x = 2 ** 1e9", "more than 1024 bits"),
        ("x = 2.5 ** 5000", "cannot be computed"),
        ("x = [0] * 10 ** 9", "a repetition with more than"),
        ("x = 'a' * 10 ** 9", "a repetition with more than"),
        ("x = [0 for i in range(10 ** 12)]", "more than 200000 entries"),
        ("x = [1]\n" + "x = x + x\n" * 40, "more than 200000 entries"),
        ("x = {}\n" + "x[str(len(x))] = x\n" * 60, "more than 200000 entries"),
        ("x = 'a' * 900000\n" * 200, "the file makes more than"),
        ("x = 1 / 0", "cannot be computed: division by zero"),
        ("x = {1, 2}", "sets are not plain data"),
        ("x = b'raw'", "is not plain data"),
        ("x = 1j", "is not plain data"),
        ("x = dict(a=1, **dict(a=2))", "the argument 'a' is given twice"),
        ("x, y = 1, 2, 3", "2 names cannot be unpacked"),
        ("x = [1]\nx[3] = 1", "x[3] cannot be assigned to"),
        ("x.y = 1", "x.y cannot be assigned to"),
        ("x = {{_base_.model}}", "_base_ is used before it is set"),
        ("x = '{{ HOME }}'", "{{ HOME }} is unknown"),
        ("x = f'{1:>10}'", "a format is not supported"),
        ("x = '%s' % 1", "formatting with % is not supported"),
        ("x = 1 +", "no Python: invalid syntax"),
        ("x = '\x00'", "no Python"),
        ("_base_ = 'nowhere.py'", "nowhere.py: no such file"),
        ("_base_ = 'config.py'", "a file cannot be its own base"),
        ("_base_ = 'mmdet::retinanet.py'", "the base 'mmdet::retinanet.py' is not in a file here"),
        ("_base_ = 'http://x/y.py'", "is not in a file here"),
        ("_base_ = 5", "_base_ should be a file's name or a list of them"),
        ("_base_ = '/etc/passwd'", "expected a .py file"),
    ],
)
def test_what_is_refused(read, text, message):
    with pytest.raises(ConfigError) as raised:
        read(text)
    assert message in str(raised.value)


@pytest.mark.parametrize("depth", [150, 5000, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ("-", ""), ("dict(a=", ")"), ("(", ",)")])
def test_nesting_is_bounded(read, opening, closing, depth):
    with pytest.raises(ConfigError):
        read("x = " + opening * depth + "1" + closing * depth)


def test_bases_that_do_not_fit(tmp_path):
    write(tmp_path / "a.py", "model = dict(x=1)\nlr = 1")
    write(tmp_path / "b.py", "model = dict(x=2)")
    with pytest.raises(ConfigError, match="several bases set model; set a key in one base only"):
        read_config(write(tmp_path / "c.py", "_base_ = ['a.py', 'b.py']"))
    with pytest.raises(
        ConfigError, match=r"lr: a dict cannot be merged into the int of the base; add _delete_=True"
    ):
        read_config(write(tmp_path / "d.py", "_base_ = 'a.py'\nlr = dict(x=1)"))
    with pytest.raises(ConfigError, match=r"_base_.model has no 'xx'|_base_.model has no"):
        read_config(write(tmp_path / "e.py", "_base_ = 'a.py'\nx = _base_.model.xx"))


def test_files_that_are_none(tmp_path):
    (tmp_path / "latin.py").write_bytes(b"x = '\xe9'")
    (tmp_path / "big.py").write_text("#" * 3_000_000)
    for name, message in [
        ("latin.py", "cannot be read"),
        ("big.py", "larger than"),
        ("none.py", "no such file"),
    ]:
        with pytest.raises(ConfigError, match=message):
            read_config(tmp_path / name)


PIECES = (
    "x", "model", "=", "=", "dict(", "[", "]", "(", ")", "{", "}", "{{_base_.", "}}", "'", '"', ",", ":",
    "\n", " ", "1", "0.5", "**", "*", "+", "lambda", "import os", "__import__('os').system('touch pwned')",
    "_base_", "for", "in", "if", "range(", "eval(", "getattr(", ".", "__class__", "@", "\\", "\t", "None",
    "True", "f'{", "}'", "\x00", "é", "9" * 5000,
)  # fmt: skip


def test_fuzz(tmp_path, monkeypatch):
    """Random pieces of Python give data or our own error, and run nothing."""
    monkeypatch.chdir(tmp_path)
    rng = random.Random(0)
    for _ in range(1500):
        text = "x = 1\n" + "".join(rng.choice(PIECES) for _ in range(rng.randint(1, 30)))
        with contextlib.suppress(DetcoreError):
            assert isinstance(read_config(write(tmp_path / "f.py", text)), dict)
    for _ in range(300):
        text = "".join(rng.choice(string.printable) for _ in range(rng.randint(1, 60)))
        with contextlib.suppress(DetcoreError):
            read_config(write(tmp_path / "f.py", text))
    assert [path.name for path in tmp_path.iterdir()] == ["f.py"]
