"""Checkpoints are read without running what is in them."""

import collections
import contextlib
import io
import os
import pickle
import random
import zipfile

import numpy as np
import pytest
import torch
from detcore_mmdet import load_checkpoint

from detcore.errors import CheckpointError


class HistoryBuffer:
    """Looks like mmengine's class of that name to pickle."""

    def __init__(self):
        self.log = np.zeros(3)


HistoryBuffer.__module__ = "mmengine.logging.history_buffer"


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


@pytest.fixture
def state():
    return collections.OrderedDict(
        {
            "backbone.conv1.weight": torch.randn(4, 3, 2, 2),
            "backbone.bn1.num_batches_tracked": torch.tensor(3),
        }
    )


def save(content, path):
    torch.save(content, path)
    return path


def test_weights_and_meta(tmp_path, state):
    meta = {"dataset_meta": {"classes": ("cat", "dog")}, "epoch": 12, "cfg": "model = dict()"}
    found = load_checkpoint(
        save({"state_dict": state, "meta": meta, "optimizer": {"lr": 1}}, tmp_path / "a.pth")
    )
    assert list(found) == list(state)
    assert all(torch.equal(found[name], state[name]) for name in state)
    assert found.classes == ("cat", "dog")
    assert found.meta["epoch"] == 12
    assert found.source.endswith("a.pth")


def test_older_forms(tmp_path, state):
    wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
    for content in (state, {"state_dict": wrapped, "meta": {"CLASSES": ["cat", "dog"]}}, {"model": state}):
        assert list(load_checkpoint(save(content, tmp_path / "a.pth"))) == list(state)
    torch.save({"state_dict": state}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert list(load_checkpoint(tmp_path / "old.pth")) == list(state)


def test_what_training_leaves_beside_the_weights_is_dropped(tmp_path, state, monkeypatch):
    import sys
    import types

    module = types.ModuleType("mmengine.logging.history_buffer")
    module.HistoryBuffer = HistoryBuffer
    for name in ("mmengine", "mmengine.logging"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "mmengine.logging.history_buffer", module)
    content = {
        "state_dict": state,
        "message_hub": {
            "log_scalars": {"loss": HistoryBuffer()},
            "value": np.float64(3),
            "array": np.ones(3),
        },
        "meta": {"seed": np.int64(3), "time": "now"},
    }
    save(content, tmp_path / "a.pth")
    for name in ("mmengine.logging.history_buffer", "mmengine.logging", "mmengine"):
        monkeypatch.delitem(sys.modules, name)
    found = load_checkpoint(tmp_path / "a.pth")
    assert list(found) == list(state)
    assert found.meta == {"seed": None, "time": "now"}


def test_code_is_not_executed(tmp_path, state, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for content in ({"state_dict": state, "meta": Evil()}, Evil(), {"state_dict": {**state, "x": Evil()}}):
        for zipped in (True, False):
            torch.save(content, "evil.pth", _use_new_zipfile_serialization=zipped)
            with pytest.raises(
                CheckpointError, match=r"holds an object of 'posix.system'|'os.system'|blocked"
            ):
                load_checkpoint("evil.pth")
    with open("plain.pth", "wb") as file:
        pickle.dump(Evil(), file)
    with pytest.raises(CheckpointError):
        load_checkpoint("plain.pth")
    assert not os.path.exists("pwned")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "expected weights by name"),
        ([1, 2], "expected weights by name, found list"),
        ({"state_dict": {"a": 1}}, "expected dense tensors by name, found int under 'a'"),
        ({"state_dict": {3: torch.zeros(1)}}, "expected dense tensors by name"),
        ({"state_dict": {"a": torch.zeros(2, 2).to_sparse()}}, "expected dense tensors by name"),
        ({"state_dict": {"a": torch.empty(2, device="meta")}}, "expected dense tensors by name"),
        ({"state_dict": {"a": torch.tensor([1.0, float("nan")])}}, "NaN or infinity in a; training diverged"),
        ({"state_dict": {"a": torch.tensor([float("inf")])}}, "NaN or infinity in a"),
    ],
)
def test_files_without_usable_weights(tmp_path, content, message):
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(save(content, tmp_path / "a.pth"))


def test_missing_and_damaged_files(tmp_path, state):
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "none.pth")
    data = save({"state_dict": state}, tmp_path / "a.pth").read_bytes()
    for part in (b"", b"not a file", data[: len(data) // 2], data[:-20], os.urandom(1000)):
        (tmp_path / "b.pth").write_bytes(part)
        with pytest.raises(CheckpointError, match="fetch it again"):
            load_checkpoint(tmp_path / "b.pth")
    with zipfile.ZipFile(tmp_path / "c.pth", "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(CheckpointError, match="fetch it again"):
        load_checkpoint(tmp_path / "c.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_fuzz(tmp_path, state, zipped, monkeypatch):
    """Flipped bytes give weights or our own error."""
    monkeypatch.chdir(tmp_path)
    buffer, rng = io.BytesIO(), random.Random(0)
    torch.save({"state_dict": state, "meta": {"epoch": 1}}, buffer, _use_new_zipfile_serialization=zipped)
    whole = buffer.getvalue()
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        with open("f.pth", "wb") as file:
            file.write(data)
        with contextlib.suppress(CheckpointError):
            assert len(load_checkpoint("f.pth"))
    assert os.listdir() == ["f.pth"]
