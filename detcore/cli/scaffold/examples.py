"""The tests that a new plugin starts with: the conformance kit, and the component at work."""

from __future__ import annotations

import re

SINGLE_STAGE = """\
def test_it_trains_in_a_detector() -> None:
    torch.manual_seed(0)
    model = SingleStageDetector(
        num_classes=3,
        backbone={backbone},
        neck={neck},
        head={head},{more}
    )
    images = [torch.randint(0, 256, (3, 96, 128), dtype=torch.uint8)]
    targets = [{{"boxes": torch.tensor([[20.0, 30.0, 80.0, 90.0]]), "labels": torch.tensor([2])}}]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    losses = model.train()(images, targets)
    losses.total.backward()
    optimizer.step()
    assert losses.total.isfinite()
    assert all(p.isfinite().all() for p in model.parameters())
    assert model.eval()(images).boxes.isfinite().all()
"""
TWO_STAGE = """\
def test_it_trains_in_a_detector() -> None:
    torch.manual_seed(0)
    model = TwoStageDetector(
        num_classes=3,
        backbone=ResNet.spec(depth=18, frozen_stages=-1),
        neck=FPN.spec(out_channels=16, num_outs=5),
        rpn_head=RPNHead.spec(feat_channels=16),
        roi_head={head},
    )
    images = [torch.randint(0, 256, (3, 96, 128), dtype=torch.uint8)]
    mask = torch.zeros(1, 96, 128, dtype=torch.bool)
    mask[:, 30:90, 20:80] = True
    boxes = torch.tensor([[20.0, 30.0, 80.0, 90.0]])
    targets = [{{"boxes": boxes, "labels": torch.tensor([2]), "masks": mask}}]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    losses = model.train()(images, targets)
    losses.total.backward()
    optimizer.step()
    assert losses.total.isfinite()
    assert all(p.isfinite().all() for p in model.parameters())
    assert model.eval()(images).boxes.isfinite().all()
"""
_PARTS = {
    "backbone": "ResNet.spec(depth=18, frozen_stages=-1)",
    "neck": "FPN.spec(out_channels=32, start_level=1, num_outs=5)",
    "head": "RetinaHead.spec(feat_channels=32, stacked_convs=1)",
    "more": "",
}


def _in_head(parameter: str) -> dict[str, str]:
    return {"head": f"RetinaHead.spec(feat_channels=32, stacked_convs=1, {parameter}=MyComponent.spec())"}


#: Kind -> the pieces of a RetinaNet that differ from the usual.
_RETINA = {
    "assigners": _in_head("assigner"),
    "samplers": _in_head("sampler"),
    "bbox_coders": _in_head("bbox_coder"),
    "losses": _in_head("loss_bbox"),
    "prior_generators": _in_head("prior_generator"),
    "postprocess": _in_head("postprocess"),
    "dense_heads": {"head": "MyComponent.spec()"},
    "backbones": {"backbone": "MyComponent.spec()", "neck": "FPN.spec(out_channels=32, num_outs=5)"},
    "necks": {"neck": "MyComponent.spec(out_channels=32)"},
    "preprocessors": {"more": "\n        preprocessor=MyComponent.spec(),"},
}
#: Kind -> the RoI head of a Faster or Mask R-CNN.
_FASTER = {
    "roi_heads": "MyComponent.spec()",
    "roi_extractors": "StandardRoIHead.spec(bbox_roi_extractor=MyComponent.spec())",
    "shared_heads": "StandardRoIHead.spec(shared_head=MyComponent.spec())",
    "bbox_heads": "StandardRoIHead.spec(bbox_head=MyComponent.spec())",
    "mask_heads": "StandardRoIHead.spec(mask_head=MyComponent.spec())",
}
_TABLE = '''\
def folder() -> Path:
    """Two pictures, one of them without objects, and their table."""
    made = Path(tempfile.mkdtemp())
    for name in ("a.png", "b.png"):
        Image.new("RGB", (32, 24)).save(made / name)
    rows = "file,x1,y1,x2,y2,label\\na.png,1,2,11,12,bird\\na.png,3,4,8,9,cat\\nb.png,,,,,\\n"
    (made / "boxes.csv").write_text(rows)
    return made
'''
#: Kind -> an example of the component for the kit; ``MyComponent.spec()`` for all others.
SUBJECTS = {
    "datasets": 'Subject(MyComponent.spec(), wired={"root": folder()})',
    "detectors": """\
MyComponent.spec(
    backbone=ResNet.spec(depth=18),
    neck=FPN.spec(out_channels=16, num_outs=4),
    head=RetinaHead.spec(),
)""",
    "data_modules": "MyComponent.spec(root=Path(tempfile.mkdtemp()), train=ShapesDataset.spec(length=4))",
    "experiments": """\
MyComponent.spec(
    model=SingleStageDetector.spec(
        backbone=ResNet.spec(depth=18),
        neck=FPN.spec(out_channels=16, num_outs=4),
        head=RetinaHead.spec(),
    ),
    data=DetectionData.spec(root=Path(tempfile.mkdtemp()), train=ShapesDataset.spec(length=4)),
    optimizer=SGD.spec(lr=0.01),
)""",
}
_OTHER = {
    "datasets": """\
def test_examples() -> None:
    dataset = MyComponent(root=folder())
    assert dataset.class_map.names == ("bird", "cat")
    assert [len(dataset[index]["boxes"]) for index in range(len(dataset))] == [2, 0]
    assert dataset[0]["boxes"][0].tolist() == [1, 2, 11, 12]


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="boxes.csv: no such file"):
        MyComponent(root=tmp_path)
""",
    "metrics": """\
def test_recall(tmp_path: Path) -> None:
    dataset = ShapesDataset(root=tmp_path, length=3, empty=0.0)
    metric = MyComponent()
    metric.start(dataset)
    assert metric.compute() == {"recall": None}
    for index in range(len(dataset)):
        example = dataset[index]
        boxes = torch.as_tensor(example["boxes"]).float()
        found = ImageDetections(boxes, torch.ones(len(boxes)), example["labels"])
        metric.update([example["image_id"]], [found])
    assert metric.compute() == {"recall": 1.0}
""",
    "transforms": """\
def test_colours_go_and_boxes_stay(tmp_path: Path) -> None:
    example = ShapesDataset(root=tmp_path, length=1)[0]
    changed = MyComponent(prob=1.0)(example)
    assert (changed["image"][0] == changed["image"][1]).all()
    assert torch.equal(changed["boxes"], example["boxes"])
    assert MyComponent(prob=0.0)(example) is example
""",
    "blocks": """\
def test_it_keeps_the_size() -> None:
    block = MyComponent(in_channels=8)
    assert block(torch.zeros(2, 8, 5, 7)).shape == (2, block.out_channels, 5, 7)
""",
    "optimizers": """\
def test_a_step() -> None:
    torch.manual_seed(0)
    model = SingleStageDetector(
        num_classes=3,
        backbone=ResNet(depth=18),
        neck=FPN.spec(out_channels=16, num_outs=4),
        head=RetinaHead.spec(),
    )
    optimizer = MyComponent(lr=1e-4).build(model)
    images = [torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)]
    targets = [{"boxes": torch.tensor([[2.0, 3.0, 50.0, 60.0]]), "labels": torch.tensor([2])}]
    model.train()(images, targets).total.backward()
    optimizer.step()
    assert all(p.isfinite().all() for p in model.parameters())
""",
    "schedules": """\
def test_it_rises_and_falls() -> None:
    factors = [MyComponent(warmup_steps=4).factor(Progress(step, 10, 2)) for step in range(16)]
    assert max(factors) == factors[3] == 1.0
    assert factors[0] == 0.25
    assert factors[15] == 0.5
""",
    "weight_averages": """\
def test_the_mean() -> None:
    model = nn.Linear(1, 1, bias=False)
    average = MyComponent(every=1)
    average.start(model)
    for value in (1.0, 2.0, 6.0):
        nn.init.constant_(model.weight, value)
        average.update(model)
    assert average.weights()["weight"].item() == 3.0
    again = MyComponent(every=1)
    again.load_state_dict(average.state_dict())
    assert again.weights()["weight"].item() == 3.0
""",
    "data_modules": """\
def test_batches(tmp_path: Path) -> None:
    data = MyComponent(train=ShapesDataset(root=tmp_path, length=4), batch_size=2, workers=0)
    assert len(data.class_map) == 3
    assert data.train is not None
    assert len(data.train) == 4
""",
    "detectors": """\
def test_it_trains() -> None:
    torch.manual_seed(0)
    model = MyComponent(
        num_classes=3,
        backbone=ResNet(depth=18),
        neck=FPN.spec(out_channels=16, num_outs=4),
        head=RetinaHead.spec(),
    )
    images = [torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)]
    targets = [{"boxes": torch.tensor([[2.0, 3.0, 50.0, 60.0]]), "labels": torch.tensor([2])}]
    model.train()(images, targets).total.backward()
    assert model.eval()(images).boxes.isfinite().all()
""",
}
_REGISTERED = """\
def test_it_can_be_named() -> None:
    assert registry.resolve("my_kind", "MyComponent") is MyComponent
"""
#: Name -> where a test gets it from.
_IMPORTS = {
    "DataError": "detcore.errors",
    "DetectionData": "detcore_train",
    "FPN": "detcore_fpn",
    "Image": "PIL",
    "ImageDetections": "detcore.structures",
    "Path": "pathlib",
    "Progress": "detcore_train.interfaces",
    "RPNHead": "detcore_rcnn",
    "ResNet": "detcore_resnet",
    "RetinaHead": "detcore_retina",
    "SGD": "detcore_train",
    "ShapesDataset": "detcore_data",
    "SingleStageDetector": "detcore",
    "StandardRoIHead": "detcore_rcnn",
    "Subject": "detcore.testing",
    "TwoStageDetector": "detcore",
    "nn": "torch",
    "parametrize_with_checks": "detcore.testing",
    "registry": "detcore",
}
_STANDARD = ("pathlib", "tempfile", "typing")


def tests_of(kind: str, has_defaults: bool) -> str:
    """The text of the test file, with the names of the templates.

    Args:
        kind: The component's.
        has_defaults: Whether the component can be made without arguments (those of its owner aside).
    """
    body = [_TABLE] if kind == "datasets" else []
    if kind in SUBJECTS or has_defaults:
        subject = "MyComponent.spec()"
        if kind in SUBJECTS:
            body.append(f"EXAMPLE = {SUBJECTS[kind]}\n")
            subject = "EXAMPLE"
        body.append(
            f"@parametrize_with_checks({subject})\n"
            "def test_conformance(component: Any, check: Any) -> None:\n    check(component)\n"
        )
    if kind in _RETINA:
        body.append(SINGLE_STAGE.format(**{**_PARTS, **_RETINA[kind]}))
    if kind in _FASTER:
        body.append(TWO_STAGE.format(head=_FASTER[kind]))
    body.append(_OTHER.get(kind, ""))
    body.append(_REGISTERED)
    text = "\n\n".join(part for part in body if part)
    gap = "\n\n" if text.startswith("EXAMPLE") else "\n\n\n"
    return f'"""MyComponent."""\n\n{_imports(text)}{gap}{text}'


def _imports(text: str) -> str:
    words = set(re.findall(r"(?<![.\w])\w+", re.sub(r'"[^"\n]*"', "", text)))
    wanted: dict[str, list[str]] = {}
    for name, module in _IMPORTS.items():
        if name in words:
            wanted.setdefault(module, []).append(name)
    if "Any" in words:
        wanted["typing"] = ["Any"]
    lines = {
        module: f"from {module} import {', '.join(sorted(names, key=lambda n: (not n.isupper(), n)))}"
        for module, names in wanted.items()
    }
    plain = [f"import {name}" for name in ("tempfile", "pytest", "torch") if name in words]
    standard = [p for p in plain if p.split()[1] in _STANDARD]
    standard += [lines[module] for module in sorted(lines) if module in _STANDARD]
    others = [p for p in plain if p.split()[1] not in _STANDARD]
    others += [lines[module] for module in sorted(lines, key=str.lower) if module not in _STANDARD]
    own = ["from my_package import MyComponent"]
    return "\n\n".join("\n".join(block) for block in (standard, others, own) if block)
