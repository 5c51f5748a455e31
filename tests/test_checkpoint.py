"""Saving and loading detectors."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import detcore
from detcore.errors import CheckpointError, ConfigError
from detcore.serialize import build, dump


@pytest.fixture
def model(toys, toy_config):
    torch.manual_seed(0)
    model = build(toy_config)
    model.class_map = detcore.ClassMap(("cat", "dog", "emu"), (3, 7, 90))
    return model


@pytest.mark.parametrize("name", ["run", "model.safetensors"])
def test_round_trip(model, tmp_path, name):
    path = detcore.save(model, tmp_path / "deep" / name)
    again = detcore.load(path)
    assert dump(again) == dump(model)
    assert again.class_map == model.class_map
    assert not again.training
    images = [torch.randint(0, 256, (3, 33, 41), dtype=torch.uint8)]
    found, wanted = again(images), model.eval()(images)
    for field in ("boxes", "scores", "labels", "valid"):
        assert torch.equal(getattr(found, field), getattr(wanted, field)), field
    assert [p.name for p in path.parent.iterdir()] == [name]


def test_one_file_holds_everything_and_no_pickle(model, tmp_path):
    path = detcore.save(model, tmp_path / "m.safetensors")
    with safe_open(path, "pt") as file:
        header = file.metadata()
    assert json.loads(header["detcore.classes"]) == {"names": ["cat", "dog", "emu"], "ids": [3, 7, 90]}
    assert json.loads(header["detcore.config"])["head"]["type"] == "toys:ToyHead"


def test_saving_again_replaces(model, tmp_path):
    detcore.save(model, tmp_path / "run")
    with torch.no_grad():
        model.head.conv.bias.fill_(7)
    detcore.save(model, tmp_path / "run")
    assert detcore.load(tmp_path / "run").head.conv.bias.tolist() == [7, 7, 7]


def test_a_foreign_folder_is_not_replaced(model, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "only_copy.tex").write_text("...")
    with pytest.raises(CheckpointError, match=r"thesis exists and is no detcore checkpoint"):
        detcore.save(model, tmp_path / "thesis")
    assert (tmp_path / "thesis" / "only_copy.tex").exists()


@pytest.mark.reliability(
    area="resume",
    fault="saving fails halfway",
    outcome="the checkpoint that was there is intact",
)
def test_a_failed_save_leaves_the_old_one(model, toys, tmp_path):
    class Mine(toys["ToyAssigner"]):
        pass

    detcore.save(model, tmp_path / "run")
    model.head.assigner = Mine()
    with pytest.raises(ConfigError, match=r"head.assigner: .*Mine is not registered"):
        detcore.save(model, tmp_path / "run")
    assert detcore.load(tmp_path / "run").head.assigner.__class__ is toys["ToyAssigner"]


def test_tied_weights(model, tmp_path):
    model.backbone.twin = model.backbone.conv
    path = detcore.save(model, tmp_path / "m.safetensors")
    stored = load_file(path)
    assert sum("backbone" in name for name in stored) == 2


def test_loading_draws_nothing(model, tmp_path):
    path = detcore.save(model, tmp_path / "m.safetensors")
    before = torch.get_rng_state()
    detcore.load(path)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_not_among_the_weights_is_drawn(model, toys, tmp_path, monkeypatch):
    path = detcore.save(model, tmp_path / "m.safetensors")
    made = toys["ToyBackbone"].__init__

    def with_a_hidden_parameter(self, *args, **kwargs):
        made(self, *args, **kwargs)
        self.hidden = torch.nn.Parameter(torch.full((3,), float("nan")))
        torch.nn.init.uniform_(self.hidden, 1, 2)
        self.register_state_dict_post_hook(lambda _, state, prefix, __: state.__delitem__(f"{prefix}hidden"))

    monkeypatch.setattr(toys["ToyBackbone"], "__init__", with_a_hidden_parameter)
    hidden = detcore.load(path).backbone.hidden
    assert ((hidden >= 1) & (hidden <= 2)).all()


@pytest.mark.reliability(
    area="resume",
    fault="a truncated detector checkpoint",
    outcome="an error that names the file",
)
@pytest.mark.parametrize("keep", [0, 10, 200, -1])
def test_truncated(model, tmp_path, keep):
    path = detcore.save(model, tmp_path / "m.safetensors")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"m.safetensors: damaged or not a safetensors file"):
        detcore.load(path)


@pytest.mark.reliability(
    area="resume",
    fault="a file missing from a detector checkpoint",
    outcome="an error that names it",
)
@pytest.mark.parametrize("name", ["model.safetensors", "config.yaml", "classes.json"])
def test_incomplete_folder(model, tmp_path, name):
    path = detcore.save(model, tmp_path / "run")
    (path / name).unlink()
    with pytest.raises(CheckpointError, match=f"not a complete detcore checkpoint; missing: {name}"):
        detcore.load(path)


@pytest.mark.reliability(
    area="resume",
    fault="a damaged configuration or class map in a detector checkpoint",
    outcome="an error that names the file",
)
@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.yaml", "a: [", "config.yaml: damaged"),
        ("classes.json", "{", "classes.json: damaged class map"),
        ("classes.json", '{"names": ["a"]}', "classes.json: damaged class map"),
    ],
)
def test_damaged_folder(model, tmp_path, name, text, message):
    path = detcore.save(model, tmp_path / "run")
    (path / name).write_text(text)
    with pytest.raises(CheckpointError, match=message):
        detcore.load(path)


def test_weights_of_another_model(model, tmp_path):
    path = detcore.save(model, tmp_path / "run")
    weights = load_file(path / "model.safetensors")
    weights["head.conv.bias"] = torch.zeros(4)
    weights["extra"] = weights.pop("backbone.conv.bias")
    save_file(weights, path / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        detcore.load(path)
    message = str(caught.value)
    assert "1 missing: backbone.conv.bias" in message
    assert "1 unexpected: extra" in message
    assert "head.conv.bias ([4] in the file, [3] in the model)" in message


def test_weights_alone_are_no_detector(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="it holds weights only, not a detcore detector"):
        detcore.load(tmp_path / "w.safetensors")


@pytest.mark.parametrize("name", ["gone", "gone.safetensors"])
def test_missing(tmp_path, name):
    with pytest.raises(CheckpointError, match=f"{name}: no such checkpoint"):
        detcore.load(tmp_path / name)
