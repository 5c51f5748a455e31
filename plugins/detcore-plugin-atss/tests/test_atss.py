"""The whole detector, composed of this plugin's and its dependencies' components."""

import re
import subprocess
import sys
from pathlib import Path

import detcore_atss
import pytest
import torch
from detcore_atss import ATSSHead
from detcore_fpn import FPN
from detcore_resnet import ResNet
from torchvision.ops import box_iou

import detcore
from detcore import SingleStageDetector, config

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return SingleStageDetector(
        num_classes=3,
        backbone=ResNet.spec(depth=18, base_channels=8),
        neck=FPN.spec(out_channels=16, start_level=1, num_outs=5, add_extra_convs="on_output"),
        head=ATSSHead.spec(feat_channels=16, stacked_convs=1, num_groups=4),
    )


def picture():
    """A bright square on noise, with its box."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 60, (3, 96, 120), generator=generator, dtype=torch.uint8)
    image[:, 24:72, 36:84] = 220
    return image, {"boxes": torch.tensor([[36.0, 24.0, 84.0, 72.0]]), "labels": torch.tensor([1])}


def test_dump_build_and_files(model, tmp_path):
    data = detcore.dump(model)
    assert data["head"]["type"] == "detcore-plugin-atss:ATSSHead"
    assert detcore.dump(detcore.build(data)) == data
    path = tmp_path / "model.yaml"
    path.write_text(config.to_yaml(data))
    assert detcore.dump(detcore.build(config.load(path))) == data
    assert detcore.build(config.load(path, ["head.assigner.topk=5"])).head.assigner.topk == 5


@pytest.mark.parametrize("name", ["model.safetensors", "folder"])
def test_saved_and_loaded(name, model, tmp_path):
    with torch.no_grad():
        model.head.atss_cls.bias += 4
    image, _ = picture()
    expected = model.eval()([image])
    assert expected.valid.any()
    again = detcore.load(detcore.save(model, tmp_path / name))
    assert torch.equal(again([image]).boxes, expected.boxes)
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
    assert losses[-1] < losses[0] / 3  # the entropy of centerness has a floor
    (found,) = model.eval()([image]).unpad()
    assert found.labels[0] == 1
    assert found.scores[0] > 0.3
    assert box_iou(found.boxes[:1], target["boxes"]).item() > 0.7


# ------------------------------------------------------------------------------------------------- package


def test_importing_the_package_imports_no_torch():
    code = "import sys, detcore_atss; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unknown_names_are_refused():
    assert set(detcore_atss.__all__) <= set(dir(detcore_atss))
    with pytest.raises(AttributeError, match="module 'detcore_atss' has no attribute 'ATSS'"):
        detcore_atss.ATSS


def test_the_recipe_is_in_the_package():
    own = [n for n, e in config.recipes().items() if e.distribution == "detcore-plugin-atss"]
    assert own == ["atss_r50_fpn_1x_coco"]
    recipe = config.load(own[0]).data["model"]
    assert recipe["backbone"].pop("weights") == "torchvision://resnet50"
    with torch.device("meta"):
        model = detcore.build(recipe, num_classes=80)

    assert sum(p.numel() for p in model.parameters()) == PARAMETERS


#: Of MMDetection's model, counted from the shapes in its checkpoint.
PARAMETERS = 32_295_322


def test_the_readme_runs():
    torch.manual_seed(0)
    names = {}
    for text in re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL):
        exec(compile(text, "README.md", "exec"), names)
    (text,) = re.findall(r"^```yaml\n(type: Single.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert detcore.dump(detcore.build(config.parse_yaml(text, "README.md").data)) == detcore.dump(
        names["model"]
    )
