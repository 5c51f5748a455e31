"""build and dump."""

import pytest
import torch
import yaml

import detcore
from detcore.component import arguments_of, walk
from detcore.config import parse_yaml, to_yaml
from detcore.errors import ConfigError
from detcore.serialize import build, dump


def test_dump_is_complete_and_builds_back(toys, toy_config):
    model = build(toy_config)
    config = dump(model)
    assert config["num_classes"] == 3
    assert config["head"]["assigner"] == {"type": "toys:ToyAssigner", "pos_thr": 0.6, "neg_thr": 0.4}
    assert config["head"]["ratios"] == [0.5, 1.0]
    assert "in_features" not in config["neck"]
    assert "num_classes" not in config["head"]
    again = build(parse_yaml(to_yaml(config), "text").data)
    assert dump(again) == config
    assert again.state_dict().keys() == model.state_dict().keys()


def test_same_outputs_after_yaml(toys, toy_config):
    model = build(toy_config).eval()
    again = build(yaml.safe_load(to_yaml(dump(model)))).eval()
    again.load_state_dict(model.state_dict())
    images = [torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8)]
    torch.testing.assert_close(model(images).scores, again(images).scores, rtol=0, atol=0)


def test_python_specs_and_dicts_build_the_same(toys):
    composed = detcore.SingleStageDetector(
        num_classes=3,
        backbone=toys["ToyBackbone"](channels=5),
        neck=toys["ToyNeck"].spec(out_channels=6),
        head={"type": "ToyHead", "assigner": toys["ToyAssigner"](pos_thr=0.6)},
    )
    assert dump(composed)["head"]["assigner"]["pos_thr"] == 0.6
    assert dump(composed)["backbone"]["channels"] == 5


def test_config_of_the_caller_is_not_changed(toys, toy_config):
    before = to_yaml(toy_config)
    build(toy_config)
    assert to_yaml(toy_config) == before


def test_dump_reads_parts_live(toys, toy_config):
    model = build(toy_config)
    model.head.assigner = toys["ToyAssigner"](pos_thr=0.9)
    assert dump(model)["head"]["assigner"]["pos_thr"] == 0.9
    model.neck = None
    assert dump(model)["neck"] is None


def test_root_keeps_what_an_owner_would_supply(toys):
    neck = toys["ToyNeck"](in_features=(detcore.FeatureSpec(3, 8),))
    config = dump(neck)
    assert config["in_features"] == [{"channels": 3, "stride": 8}]
    assert build(config).out_features == neck.out_features


def test_supplied_parameters_of_the_root(toys):
    neck = build({"type": "ToyNeck"}, in_features=(detcore.FeatureSpec(3, 8),))
    assert neck.convs[0].in_channels == 3
    with pytest.raises(
        ConfigError, match=r"num_classes: ToyNeck has no wired parameter 'num_classes'; it has: in_features"
    ):
        build({"type": "ToyNeck"}, num_classes=3)


def test_all_errors_at_once(toys, toy_config):
    toy_config["backbone"]["chanels"] = 3
    toy_config["neck"]["out_channels"] = 0
    toy_config["head"]["assigner"]["type"] = "ToyAsigner"
    toy_config["head"]["losses"] = [{"type": "ToyLoss"}, {"type": "ToyLoss", "loss_weight": "heavy"}]
    with pytest.raises(ConfigError) as caught:
        build(toy_config)
    found = {p.path: str(p) for p in caught.value.problems}
    assert set(found) == {
        "backbone.chanels",
        "neck.out_channels",
        "head.assigner.type",
        "head.losses.1.loss_weight",
    }
    assert "did you mean 'channels'?" in found["backbone.chanels"]
    assert "did you mean 'ToyAssigner'?" in found["head.assigner.type"]
    assert "greater than or equal to 1; got 0" in found["neck.out_channels"]


def test_cross_field_errors_of_siblings_come_together(toys, toy_config):
    toy_config["head"]["assigner"] = {"type": "ToyAssigner", "pos_thr": 0.1}
    toy_config["head"]["losses"] = [{"type": "ToyLoss", "loss_weight": -1}]
    with pytest.raises(ConfigError) as caught:
        build(toy_config)
    assert {p.path for p in caught.value.problems} == {"head.assigner", "head.losses.0"}


def test_neighbours_are_checked(toys, toy_config):
    head = toys["ToyHead"](in_features=(detcore.FeatureSpec(9, 8),), num_classes=3)
    with pytest.raises(
        ConfigError, match=r"head.in_features: ToyHead has .*9 channels at stride 8.*6 channels at stride 8"
    ):
        detcore.SingleStageDetector(
            num_classes=3,
            backbone=toys["ToyBackbone"](),
            neck=toys["ToyNeck"].spec(out_channels=6),
            head=head,
        )


class Unregistered:
    pass


def test_unregistered_part(toys, toy_config):
    class MyAssigner(toys["ToyAssigner"]):
        pass

    model = build(toy_config)
    model.head.assigner = mine = MyAssigner()
    with pytest.raises(
        ConfigError, match=r"head.assigner: .*MyAssigner is not registered by any distribution"
    ):
        dump(model)
    objects = {}
    config = dump(model, objects)
    assert objects == {"head.assigner": mine}
    assert config["head"]["assigner"] is None
    assert build(config, objects=objects).head.assigner is mine


def test_objects_at_a_wrong_path(toys, toy_config):
    with pytest.raises(ConfigError, match=r"haed.assigner: no such place in the configuration \(at 'haed'\)"):
        build(toy_config, objects={"haed.assigner": toys["ToyAssigner"]()})


@pytest.mark.parametrize("config", [None, [], "ResNet", 3])
def test_not_a_mapping(config):
    with pytest.raises(ConfigError, match="a configuration is a mapping with the key 'type'"):
        build(config)


def test_root_without_type():
    with pytest.raises(ConfigError, match="type: the root needs a component's name, got None"):
        build({"num_classes": 3})


def test_walk_gives_paths(toys, toy_config):
    paths = [path for path, _ in walk(build(toy_config))]
    assert paths == ["", "backbone", "neck", "head", "head.assigner", "head.losses.0", "preprocessor"]


def test_wired_values_are_marked(toys, toy_config):
    model = build(toy_config)
    assert arguments_of(model.head).wired == {"in_features", "num_classes"}


def test_from_a_file_problems_tell_the_line(toys, toy_config, tmp_path):
    from detcore.config import load

    toy_config["head"]["assigner"]["pos_thr"] = 7
    toy_config["head"]["asigner"] = None
    path = tmp_path / "model.yaml"
    path.write_text(to_yaml(toy_config))
    with pytest.raises(ConfigError) as caught:
        build(load(path, ["neck.out_channels=0"]))
    assert str(caught.value).startswith(f"{path}: 3 problems")
    assert f"head.assigner.pos_thr ({path}:13): input should be less than or equal to 1; got 7" in str(
        caught.value
    )
    assert "neck.out_channels (command line): input should be greater than" in str(caught.value)


def test_from_a_file_passes_the_hooks(toys, toy_config, tmp_path):
    from detcore import hooks
    from detcore.config import Config

    class Listener:
        built = None

        @hooks.hookimpl
        def detcore_configure(self, config):
            config["num_classes"] = 7

        @hooks.hookimpl
        def detcore_built(self, model):
            self.built = model

    listener = Listener()
    hooks.manager().register(listener)
    try:
        model = build(Config(toy_config))
        assert model.num_classes == 7
        assert listener.built is model
        assert toy_config["num_classes"] == 3
        assert build(toy_config).num_classes == 3
    finally:
        hooks.manager().unregister(listener)
