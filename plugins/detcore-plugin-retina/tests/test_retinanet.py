"""The whole detector, composed of this plugin's and its dependencies' components."""

import re
import subprocess
import sys
import warnings
from pathlib import Path

import detcore_retina
import pytest
import torch
from detcore_assigners import MaxIoUAssigner
from detcore_fpn import FPN
from detcore_resnet import ResNet
from detcore_retina import RetinaHead
from torchvision.ops import box_iou

import detcore
from detcore import SingleStageDetector, config
from detcore.component import Spec
from detcore.errors import ConfigError
from detcore.serialize import as_spec
from detcore.structures import Detections, FeatureSpec

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return SingleStageDetector(
        num_classes=3,
        backbone=ResNet.spec(depth=18, base_channels=8),
        neck=FPN.spec(out_channels=16, start_level=1, num_outs=5, add_extra_convs="on_input"),
        head=RetinaHead.spec(feat_channels=16, stacked_convs=1),
    )


def picture(seed=0, height=96, width=120):
    """A bright square on noise, with its box."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 60, (3, height, width), generator=generator, dtype=torch.uint8)
    image[:, 24:72, 36:84] = 220
    return image, {"boxes": torch.tensor([[36.0, 24.0, 84.0, 72.0]]), "labels": torch.tensor([1])}


def test_the_composition_of_the_design():
    """Lists of uint8 images of different sizes in, losses or detections out; nothing is written twice."""
    model = SingleStageDetector(
        num_classes=80,
        backbone=ResNet(depth=50, frozen_stages=1),
        neck=FPN.spec(out_channels=256, start_level=1, num_outs=5, add_extra_convs="on_input"),
        head=RetinaHead.spec(assigner=MaxIoUAssigner(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.0)),
    )
    images = [
        torch.randint(0, 256, (3, 64, 80), dtype=torch.uint8),
        torch.zeros(3, 50, 60, dtype=torch.uint8),
    ]
    targets = [
        {"boxes": [[4.0, 4.0, 44.0, 52.0]], "labels": [79]},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    with warnings.catch_warnings(action="ignore"):  # the first stages stay random
        losses = model(images, targets)
    losses.total.backward()
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert {n.split(".")[1] for n in frozen} == {"conv1", "bn1", "layer1"}
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    model.eval()
    detections = model(images)
    assert isinstance(detections, Detections)
    assert detections.boxes.shape == (2, 100, 4)
    assert [f.stride for f in model.neck.out_features] == [8, 16, 32, 64, 128]
    assert model.head.retina_cls.weight.shape == (9 * 80, 256, 3, 3)


def test_dump_build_and_files(model, tmp_path):
    data = detcore.dump(model)
    assert data["head"]["type"] == "detcore-plugin-retina:RetinaHead"
    assert "in_features" not in data["head"]
    assert "strides" not in data["head"]["prior_generator"]
    assert detcore.dump(detcore.build(data)) == data
    path = tmp_path / "model.yaml"
    path.write_text(config.to_yaml(data))
    again = config.load(path)
    assert detcore.dump(detcore.build(again)) == data
    assert isinstance(as_spec(again.data), Spec)
    changed = detcore.build(config.load(path, ["head.assigner.pos_iou_thr=0.6", "neck.num_outs=4"]))
    assert changed.head.assigner.pos_iou_thr == 0.6
    assert len(changed.neck.out_features) == 4


def test_errors_of_a_file_come_all_at_once(model):
    data = detcore.dump(model)
    data["head"]["stacked_conv"] = 4
    data["head"]["assigner"]["pos_iou_thr"] = 1.5
    data["neck"]["num_outs"] = 0
    with pytest.raises(ConfigError) as caught:
        detcore.build(data)
    assert [p.path for p in caught.value.problems] == [
        "neck.num_outs",
        "head.stacked_conv",
        "head.assigner.pos_iou_thr",
    ]


def test_a_head_that_was_built_for_another_pyramid_is_refused():
    other = RetinaHead(in_features=(FeatureSpec(64, 8),), num_classes=3)
    with pytest.raises(
        ConfigError, match=r"head.in_features: RetinaHead has in_features=\(64 channels at stride 8\)"
    ):
        SingleStageDetector(
            num_classes=3, backbone=ResNet(depth=18), neck=FPN.spec(out_channels=64, num_outs=5), head=other
        )


def test_without_a_neck_the_levels_differ():
    with pytest.raises(ConfigError, match=r"got \[8, 16, 32, 64\]; put a neck such as FPN before it"):
        SingleStageDetector(num_classes=3, backbone=ResNet(depth=18, base_channels=8), head=RetinaHead.spec())


@pytest.mark.parametrize("name", ["model.safetensors", "folder"])
def test_saved_and_loaded(name, model, tmp_path):
    with torch.no_grad():
        model.head.retina_cls.bias += 3
    image, _ = picture()
    expected = model.eval()([image])
    assert expected.valid.any()
    again = detcore.load(detcore.save(model, tmp_path / name))
    found = again([image])
    assert torch.equal(found.boxes, expected.boxes)
    assert torch.equal(found.scores, expected.scores)
    assert detcore.dump(again) == detcore.dump(model)


def test_a_few_steps_learn_one_image(model):
    image, target = picture()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    losses = []
    for _ in range(60):
        loss = model([image], [target]).total
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 10
    (found,) = model.eval()([image]).unpad()
    assert found.labels[0] == 1
    assert found.scores[0] > 0.5
    assert box_iou(found.boxes[:1], target["boxes"]).item() > 0.7


def test_an_image_alone_is_as_in_a_batch(model):
    with torch.no_grad():  # scores far enough apart to have one order
        model.head.retina_cls.weight *= 100
        model.head.retina_cls.bias += 4
    images = [picture(seed)[0] for seed in (0, 1)]
    together = model.eval()(images)
    assert together.valid.any(1).all()
    for i, image in enumerate(images):
        alone = model([image])
        torch.testing.assert_close(alone.scores[0], together.scores[i], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(alone.boxes[0], together.boxes[i], rtol=1e-3, atol=1e-2)


# ------------------------------------------------------------------------------------------------- package


def test_importing_the_package_imports_no_torch():
    code = "import sys, detcore_retina; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unknown_names_are_refused():
    assert set(detcore_retina.__all__) <= set(dir(detcore_retina))
    with pytest.raises(AttributeError, match="module 'detcore_retina' has no attribute 'Retina'"):
        detcore_retina.Retina


def test_the_recipes_are_in_the_package():
    own = {n: e for n, e in config.recipes().items() if e.distribution == "detcore-plugin-retina"}
    assert set(own) == {f"retinanet_r{depth}_fpn_1x_coco" for depth in (18, 50, 101)}
    for name, depth in ((name, int(re.search(r"r(\d+)", name)[1])) for name in own):
        recipe = config.load(name)
        backbone = recipe.data["model"]["backbone"]
        assert (backbone["depth"], backbone["weights"]) == (depth, f"torchvision://resnet{depth}")
        backbone["weights"] = None
        with torch.device("meta"):
            model = detcore.build(recipe.data["model"], num_classes=80)
        assert sum(p.numel() for p in model.parameters()) == PARAMETERS[depth]


#: Of MMDetection's models, counted from the shapes in its checkpoints.
PARAMETERS = {18: 21_410_100, 50: 37_968_692, 101: 56_960_820}


def test_the_readme_runs():
    torch.manual_seed(0)
    names = {}
    for text in blocks("python"):
        exec(compile(text, "README.md", "exec"), names)
    (text,) = (text for text in blocks("yaml") if "type: SingleStageDetector" in text)
    model = detcore.build(config.parse_yaml(text, "README.md").data)
    assert detcore.dump(model) == detcore.dump(names["model"])
