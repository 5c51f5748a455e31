"""What others wrote is data, never a program: sources, files of every kind, names in them, and no network."""

import ast
import json
import os
import struct
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path

import pytest
import torch
from PIL import Image

import detcore
from detcore import config
from detcore.errors import CheckpointError, ConfigError, DataError, DetcoreError
from detcore.serialize import build

HOUSE = Path(__file__).parent.parent
SOURCES = sorted([*(HOUSE / "detcore").rglob("*.py"), *HOUSE.glob("plugins/*/detcore_*/**/*.py")])

# ------------------------------------------------------------------------------------------------- sources

#: What runs what it reads: names of modules, functions and methods.
FORBIDDEN_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "code", "codeop"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_ATTRIBUTES = {
    ("yaml", "load"), ("yaml", "unsafe_load"), ("yaml", "full_load"), ("os", "system"), ("os", "popen"),
    ("torch", "load"), ("np", "load"), ("numpy", "load"), ("pickle", "load"), ("pickle", "loads"),
}  # fmt: skip

#: Every exception, with the reason; a file that is not in the list has none, and one that is uses each.
EXCEPTIONS = {
    ("detcore/weight_files.py", "import pickle"): "the name of the error that weights_only=True raises",
    ("detcore/weight_files.py", "torch.load(weights_only=True)"): "tensors and plain values only",
    (
        "detcore/testing/checks/components.py",
        "import pickle",
    ): "the kit pickles components that it has made itself",
    (
        "detcore/testing/checks/components.py",
        "pickle.loads",
    ): "the kit pickles components that it has made itself",
    ("detcore/testing/goldens.py", "np.load"): "arrays of the tests; allow_pickle is off unless given",
    ("detcore_mmdet/checkpoints.py", "import pickle"): "the name of the error that weights_only=True raises",
    (
        "detcore_mmdet/checkpoints.py",
        "torch.load(weights_only=True)",
    ): "tensors, plain values, and inert stand-ins",
    (
        "detcore_resnet/torchvision_weights.py",
        "import pickle",
    ): "the name of the error that weights_only=True raises",
}


def findings(path):
    """(file, what) for everything in a source file that could run what it reads."""
    name = str(path.relative_to(HOUSE))
    name = name if name.startswith("detcore/") else name.split("/", 2)[2]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (
                (name, f"import {a.name}") for a in node.names if a.name.split(".")[0] in FORBIDDEN_MODULES
            )
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in FORBIDDEN_MODULES:
            yield name, f"import {node.module}"
        elif isinstance(node, ast.Call):
            yield from ((name, what) for what in dangers(node))


def dangers(call):
    """What a call is, where it is one of those."""
    function, options = call.func, {k.arg: k.value for k in call.keywords}
    if isinstance(function, ast.Name) and function.id in FORBIDDEN_CALLS:
        yield function.id
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        what = (function.value.id, function.attr)
        if what in FORBIDDEN_ATTRIBUTES:
            safe = options.get("weights_only")
            limited = isinstance(safe, ast.Constant) and safe.value is True
            yield ".".join(what) + ("(weights_only=True)" if limited else "")
    for option in ("allow_pickle", "shell"):
        value = options.get(option)
        if value is not None and not (isinstance(value, ast.Constant) and value.value is False):
            yield f"{option}="
    value = options.get("weights_only")
    if isinstance(value, ast.Constant) and value.value is not True:
        yield "weights_only="


@pytest.mark.reliability(
    area="security",
    fault="a place in the sources that unpickles, evaluates or runs what it reads",
    outcome="none but the listed ones, each with weights_only=True or on data of its own",
)
def test_nothing_unpickles_or_evaluates(record_property):
    assert len(SOURCES) > 200
    record_property("tried", len(SOURCES))
    found = {one for path in SOURCES for one in findings(path)}
    assert found == set(EXCEPTIONS)


def test_the_search_finds_what_it_looks_for(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "HOUSE", tmp_path)
    (tmp_path / "detcore").mkdir()
    path = tmp_path / "detcore" / "bad.py"
    path.write_text(
        "import pickle\nfrom dill import load\ntorch.load(f)\ntorch.load(f, weights_only=False)\nnp.load(f)\n"
        "x(allow_pickle=True)\nyaml.load(f)\neval('1')\nsubprocess.run('ls', shell=True)\n"
    )
    assert {what for _, what in findings(path)} == {
        "import pickle", "import dill", "torch.load", "weights_only=", "np.load", "allow_pickle=", "yaml.load",
        "eval", "shell=",
    }  # fmt: skip


# ------------------------------------------------------------------------------------------- configurations

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(12)
)
MERGE_BOMB = "a: &a {x: 1, y: 2}\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} {{<<: [{', '.join(['*' + chr(97 + i)] * 10)}]}}\n" for i in range(12)
)
EVIL_CONFIGS = {
    "tag.yaml": "a: !!python/object/apply:os.system ['touch OWNED']\n",
    "name.yaml": "a: !!python/name:os.system\n",
    "module.yaml": "a: !!python/module:os\n",
    "new.yaml": "a: !!python/object/new:os.system ['touch OWNED']\n",
    "scalar.yaml": "a: !!binary aGVsbG8=\n",
    "own.yaml": "a: !own {b: 1}\n",
    "set.yaml": "a: !!set {b, c}\n",
    "aliases.yaml": BOMB,
    "merges.yaml": MERGE_BOMB,
    "cycle.yaml": "a: &a [1, *a]\n",
    "self.yaml": "a: &a {b: *a}\n",
    "merged_self.yaml": "a: &a {<<: *a}\n",
    "deep.yaml": "a: " + "[" * 20_000 + "]" * 20_000,
    "deep.json": "[" * 200_000 + "]" * 200_000,
    "deep_pairs.json": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "deep.toml": "a = " + "[" * 20_000 + "]" * 20_000,
    "digits.yaml": "a: " + "9" * 10_000,
    "digits.json": '{"a": ' + "9" * 10_000 + "}",
    "digits.toml": "a = " + "9" * 10_000,
    "date.yaml": "a: !!timestamp 2001-99-99\n",
    "nul.yaml": "a: \0\n",
    "latin.yaml": b"a: \xff\n",
    "wide.json": "{" + ",".join(f'"k{i}": 1' for i in range(20_000)) + ', "k0": 2}',
}


@pytest.mark.reliability(
    area="security",
    fault="configuration files with code in tags, alias bombs, cycles, thousands of levels or digits",
    outcome="refused with a message that names the file; nothing is run, and memory stays small",
)
def test_evil_configurations_are_refused(tmp_path, monkeypatch, record_property):
    monkeypatch.chdir(tmp_path)
    for name, text in EVIL_CONFIGS.items():
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(ConfigError, match=name.replace(".", r"\.")):
            config.load(path)
    assert not (tmp_path / "OWNED").exists()
    record_property("tried", len(EVIL_CONFIGS))


def test_ordinary_aliases_and_merges_still_work():
    text = "a: &a {x: 1, y: [1, 2]}\nb: {<<: *a, x: 2}\nc: [*a, *a]\n"
    assert config.parse_yaml(text, "a.yaml").data["b"] == {"x": 2, "y": [1, 2]}


@pytest.mark.reliability(
    area="security",
    fault="a type in a configuration that names a module or a class that nobody registered",
    outcome="refused as unknown; nothing is imported",
)
@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "os.system",
        "subprocess:Popen",
        "builtins:eval",
        "detcore.serialize:build",
        "__import__",
        "",
        "a:b:c",
    ],
)
def test_types_do_not_name_code(name):
    with pytest.raises(ConfigError):
        build({"type": name, "command": "touch OWNED"}, kind="detectors")
    with pytest.raises(ConfigError):
        build(
            {
                "type": "SingleStageDetector",
                "num_classes": 1,
                "backbone": {"type": name},
                "head": {"type": name},
            }
        )


EVIL_PROGRAMS = {
    "import": "import os\nos.system('touch OWNED')",
    "call": "a = __import__('os').system('touch OWNED')",
    "attribute": "a = ().__class__.__bases__[0].__subclasses__()",
    "method": "a = 'x'.join(['y'] * 10**9)",
    "nesting": "a = " + "[" * 5000 + "]" * 5000,
    "signs": "a = " + "-" * 5000 + "1",
    "sum": "a = " + "1+" * 20_000 + "1",
    "repetition": "a = [0] * 10**10",
    "text": "a = 'x' * 10**11",
    "power": "a = 9**9**9",
    "shift": "a = 1 << 10**10",
    "doubling": "a = [0]\n" + "a = a + a\n" * 60,
    "comprehension": "a = [i for i in range(10**10)]",
    "format": "a = f'{1:>10000000000}'",
    "digits": "a = " + "9" * 5000,
    "nul": "a = 1\0",
    "own base": "_base_ = 'evil.py'",
    "other base": "_base_ = ['/etc/passwd']",
}


@pytest.mark.reliability(
    area="security",
    fault="MMDetection configurations, which are Python files, with calls, imports, or expressions that take gigabytes",
    outcome="refused with file and line; nothing is run",
)
def test_evil_programs_are_not_run(tmp_path, monkeypatch, record_property):
    from detcore_mmdet import read_config

    monkeypatch.chdir(tmp_path)
    for text in EVIL_PROGRAMS.values():
        (tmp_path / "evil.py").write_text(text)
        with pytest.raises(ConfigError, match=r"evil\.py"):
            read_config(tmp_path / "evil.py")
    assert not (tmp_path / "OWNED").exists()
    record_property("tried", len(EVIL_PROGRAMS))


# --------------------------------------------------------------------------------------------- checkpoints


def header(length, body=b""):
    return struct.pack("<Q", length) + body


def tensors(entry):
    text = json.dumps({"w": entry}).encode()
    return header(len(text), text) + bytes(16)


EVIL_WEIGHTS = {
    "empty": b"",
    "short": b"abc",
    "huge header": header(2**63 - 1),
    "header beyond the file": header(1000, b"{}"),
    "no json": header(4, b"abcd"),
    "deep json": header(400_000, b"[" * 200_000 + b"]" * 200_000),
    "huge shape": tensors({"dtype": "F32", "shape": [2**62], "data_offsets": [0, 16]}),
    "overflowing shape": tensors({"dtype": "F32", "shape": [2**33, 2**33], "data_offsets": [0, 0]}),
    "offsets beyond": tensors({"dtype": "F32", "shape": [4], "data_offsets": [0, 2**40]}),
    "backward offsets": tensors({"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}),
    "unknown dtype": tensors({"dtype": "PY", "shape": [4], "data_offsets": [0, 16]}),
    "pickle": b"\x80\x04\x95(\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x0btouch OWNED"
    b"\x94\x85\x94R\x94.",
}


@pytest.mark.reliability(
    area="security",
    fault="checkpoints with crafted safetensors headers, configurations, class maps, or a pickle",
    outcome="refused with the path; nothing is run",
)
def test_evil_checkpoints_are_refused(tmp_path, monkeypatch, record_property):
    monkeypatch.chdir(tmp_path)
    tried = 0
    for content in EVIL_WEIGHTS.values():
        folder = tmp_path / f"folder{tried}"
        folder.mkdir()
        (folder / "config.yaml").write_text("type: SingleStageDetector\n")
        (folder / "classes.json").write_text('{"names": ["a"], "ids": [0]}')
        for path in (
            folder / "model.safetensors",
            tmp_path / f"{tried}.safetensors",
            tmp_path / f"{tried}.pth",
        ):
            path.write_bytes(content)
        for path in (folder, tmp_path / f"{tried}.safetensors"):
            with pytest.raises(CheckpointError, match=str(path)):
                detcore.load(path)
        with pytest.raises(CheckpointError):
            detcore.weights.read_weights(str(tmp_path / f"{tried}.pth"))
        tried += 1
    for name, text in (
        ("classes.json", "[" * 200_000),
        ("classes.json", '{"names": "abc", "ids": []}'),
        ("config.yaml", EVIL_CONFIGS["tag.yaml"]),
        ("config.yaml", BOMB),
        ("config.yaml", "type: os:system\n"),
        ("config.yaml", "- 1\n"),
    ):
        folder = tmp_path / f"text{tried}"
        folder.mkdir()
        from safetensors.torch import save_file

        save_file({"w": torch.zeros(1)}, folder / "model.safetensors")
        (folder / "config.yaml").write_text("type: SingleStageDetector\n")
        (folder / "classes.json").write_text('{"names": ["a"], "ids": [0]}')
        (folder / name).write_text(text)
        with pytest.raises((CheckpointError, ConfigError, DataError)):
            detcore.load(folder)
        tried += 1
    for text in ("[" * 200_000, "1", '{"type": "os:system"}', "{"):
        path = tmp_path / f"one{tried}.safetensors"
        metadata = {"detcore.config": text, "detcore.classes": '{"names": ["a"], "ids": [0]}'}
        save_file({"w": torch.zeros(1)}, path, metadata=metadata)
        with pytest.raises((CheckpointError, ConfigError)):
            detcore.load(path)
        tried += 1
    assert not (tmp_path / "OWNED").exists()
    record_property("tried", tried)


class Runs:
    def __reduce__(self):
        return os.system, ("touch OWNED",)


@pytest.mark.reliability(
    area="security",
    fault="a .pth file whose pickle runs a command when it is read",
    outcome="refused by every reader of weights; the command does not run",
)
def test_pickles_that_run_commands(tmp_path, monkeypatch):
    from detcore_mmdet import load_checkpoint

    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"w": torch.zeros(1)}, "evil": Runs()}, tmp_path / "evil.pth")
    for read in (detcore.weights.read_weights, load_checkpoint):
        with pytest.raises(CheckpointError, match=r"evil\.pth"):
            read(str(tmp_path / "evil.pth"))
    assert not (tmp_path / "OWNED").exists()


# ------------------------------------------------------------------------------------------------- predict


def png(width, height, body=b""):
    """A PNG that says how large it is, and has next to nothing in it."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(body))
        + chunk(b"IEND", b"")
    )


@pytest.mark.reliability(
    area="security",
    fault="an image bomb given to `detcore predict`",
    outcome="refused before decoding; the message names the size and the limit",
)
@pytest.mark.parametrize(
    ("size", "said"),
    [
        ((100_000, 100_000), "10000000000 pixels.* exceeds limit of 178956970|10000000000 pixels"),
        ((12_000, 12_000), "12000 x 12000 pixels are more than max_pixels=100000000"),
        ((40, 60), "40 x 60 pixels are more than max_pixels=1000"),
    ],
)
def test_predict_refuses_image_bombs(tmp_path, size, said):
    from detcore_train.prediction import predict_files

    (tmp_path / "bomb.png").write_bytes(png(*size))
    detector = build(
        {
            "type": "SingleStageDetector",
            "num_classes": 2,
            "backbone": {"type": "ResNet", "depth": 18, "base_channels": 8},
            "neck": {"type": "FPN", "out_channels": 16, "start_level": 1, "num_outs": 5},
            "head": {"type": "RetinaHead", "feat_channels": 16, "stacked_convs": 1},
        }
    )
    limit = {"max_pixels": 1000} if max(size) < 100 else {}
    with pytest.raises(DataError, match=said):
        list(predict_files(detector, [tmp_path / "bomb.png"], **limit))


# ------------------------------------------------------------------------------------------ without a network

BLOCKED = """
import socket, subprocess, sys, os

def refuse(*args, **kwargs):
    raise RuntimeError(f"blocked: {args[:1]}")

class Refused:
    def __init__(self, *args, **kwargs):
        refuse(*args)

socket.socket = Refused
for name in ("create_connection", "socketpair", "getaddrinfo", "gethostbyname"):
    setattr(socket, name, refuse)
import torch, torchvision  # which ask ldconfig where CUDA's libraries are
subprocess.Popen = Refused
os.system = os.popen = refuse
"""


def blocked(code, cwd):
    """Runs a program that can open no socket and start no other program."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DETCORE_TEST": "1"}
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED + textwrap.dedent(code)],
        capture_output=True, text=True, cwd=cwd, env=environment, timeout=540, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return done.stdout


@pytest.mark.reliability(
    area="security",
    fault="no sockets and no other programs: importing every module, listing, and reading a MMDetection configuration",
    outcome="works",
)
def test_everything_imports_without_network(tmp_path):
    out = blocked(
        """
        import importlib, pkgutil, warnings
        from importlib_metadata import distributions
        warnings.simplefilter("ignore")
        names = ["detcore"] + sorted(
            d.metadata["Name"].replace("detcore-plugin-", "detcore_")
            for d in distributions() if d.metadata["Name"].startswith("detcore-plugin-")
        )
        count = 0
        for name in names:
            package = importlib.import_module(name)
            for module in pkgutil.walk_packages(package.__path__, name + "."):
                if module.name.endswith("__main__") or ".scaffold.templates" in module.name:
                    continue
                if module.name.endswith("pytest_plugin"):
                    continue
                importlib.import_module(module.name)
                count += 1
        from typer.testing import CliRunner
        from detcore.cli.app import app
        found = CliRunner().invoke(app, ["list"])
        assert found.exit_code == 0 and "RetinaHead" in found.output, found.output
        open("small.py", "w").write(
            "model = dict(type='RetinaNet', backbone=dict(type='ResNet', depth=18, out_indices=(0, 1, 2, 3)),\\n"
            " neck=dict(type='FPN', in_channels=[64, 128, 256, 512], out_channels=256, start_level=1,\\n"
            "           add_extra_convs='on_input', num_outs=5),\\n"
            " bbox_head=dict(type='RetinaHead', num_classes=3, in_channels=256, stacked_convs=4, feat_channels=256,\\n"
            "  anchor_generator=dict(type='AnchorGenerator', octave_base_scale=4, scales_per_octave=3,\\n"
            "   ratios=[0.5, 1.0, 2.0], strides=[8, 16, 32, 64, 128]),\\n"
            "  bbox_coder=dict(type='DeltaXYWHBBoxCoder'), loss_cls=dict(type='FocalLoss', use_sigmoid=True),\\n"
            "  loss_bbox=dict(type='L1Loss')),\\n"
            " train_cfg=dict(assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0)),\\n"
            " test_cfg=dict(nms_pre=1000, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=100))\\n"
        )
        done = CliRunner().invoke(app, ["import-mmdet", "small.py", "--out", "small.yaml"])
        assert done.exit_code == 0, (done.output, done.exception)
        print(count, "modules")
        """,
        tmp_path,
    )
    assert int(out.split()[-2]) > 200


@pytest.mark.slow
@pytest.mark.reliability(
    area="security",
    fault="no sockets and no other programs: training, evaluating, predicting",
    outcome="works",
)
def test_training_works_without_network(tmp_path):
    out = blocked(
        """
        from typer.testing import CliRunner
        from detcore.cli.app import app

        def run(*args):
            done = CliRunner().invoke(app, list(args))
            if done.exit_code:
                raise SystemExit(f"{args}: {done.output} {done.exception!r}")
            return done.output

        shapes = "{type: ShapesDataset, length: 4, size: [64, 64]}"
        open("run.yaml", "w").write(
            "type: Experiment\\n"
            "model: {type: SingleStageDetector, backbone: {type: ResNet, depth: 18, base_channels: 8},\\n"
            " neck: {type: FPN, out_channels: 16, start_level: 1, num_outs: 5, add_extra_convs: on_input},\\n"
            " head: {type: RetinaHead, feat_channels: 16, stacked_convs: 1}}\\n"
            f"data: {{type: DetectionData, root: shapes, train: {shapes}, val: {shapes}, workers: 0}}\\n"
            "optimizer: {type: SGD, lr: 0.001}\\nepochs: 1\\n"
        )
        run("train", "run.yaml", "--out", "run", "--accelerator", "cpu")
        run("eval", "run", "--device", "cpu")
        run("predict", "shapes", "--model", "run", "--out", "out", "--device", "cpu")
        print("done")
        """,
        tmp_path,
    )
    assert out.split()[-1] == "done"
    assert list((tmp_path / "out").rglob("*.png"))


# --------------------------------------------------------------------------------------------------- images


def test_only_formats_that_pillow_decodes_itself(tmp_path):
    """EPS would start Ghostscript; a file's name does not say what it is."""
    from detcore_data.images import ImageReader

    Image.new("RGB", (4, 4)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.jpg")
    with pytest.raises(DetcoreError, match="unknown format; known are JPEG, PNG"):
        ImageReader(tmp_path, 1000, "auto")("a.jpg")
