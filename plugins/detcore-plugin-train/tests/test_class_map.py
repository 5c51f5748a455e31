"""Classes keep their names, whatever their ids in the files, from training to prediction and evaluation."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import detcore
from detcore.cli.app import app
from detcore.config import to_yaml
from detcore.errors import DataError

COLORS = {"red": (250, 20, 20), "green": (20, 250, 20), "blue": (20, 20, 250), "white": (250, 250, 250)}


def invoke(*args):
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def write(folder, ids):
    """One box per image, of the colour that its class is named after.

    Args:
        folder: Where to.
        ids: Name -> id in the file, in the file's order.
    """
    folder.mkdir()
    random = np.random.RandomState(0)
    images, annotations = [], []
    for i in range(32):
        name = list(ids)[i % len(ids)]
        x, y = random.randint(2, 14, 2).tolist()
        w, h = random.randint(24, 32, 2).tolist()
        pixels = random.randint(60, 90, (48, 48, 3), dtype=np.uint8)
        pixels[y : y + h, x : x + w] = COLORS[name]
        Image.fromarray(pixels).save(folder / f"{i:02}-{name}.png")
        images.append({"id": i, "file_name": f"{i:02}-{name}.png", "height": 48, "width": 48})
        annotations.append({"id": i, "image_id": i, "category_id": ids[name], "bbox": [x, y, w, h]})
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "a.json").write_text(json.dumps(content))


def experiment(config, folder, classes):
    split = {"type": "CocoDataset", "annotations": "a.json", "images": "."}
    config["data"] |= {"root": str(folder), "train": split, "val": split, "batch_size": 8}
    if classes is not None:
        config["data"]["classes"] = classes
    config["optimizer"] = {"type": "AdamW", "lr": 0.01}
    config["model"]["backbone"] |= {"norm": False}
    del config["metric"], config["schedule"]
    path = folder / "e.yaml"
    path.write_text(to_yaml(config | {"epochs": 60, "val_every": 60, "schedule": {"type": "CosineSchedule"}}))
    return path


FOUR = ("red", "green", "blue", "white")


@pytest.mark.reliability(
    area="labels",
    fault="class ids from 0, from 1, with gaps, out of order; subsets and other orders of the classes",
    outcome="the same names through training, saving, loading, prediction and evaluation",
)
@pytest.mark.parametrize(
    ("ids", "classes"),
    [
        (dict(zip(FOUR, (0, 1, 2, 3), strict=True)), None),
        (dict(zip(FOUR, (1, 2, 3, 4), strict=True)), None),
        (dict(zip(FOUR[:3], (3, 7, 90), strict=True)), None),
        (dict(zip(FOUR[:3], (90, 3, 7), strict=True)), None),
        (dict(zip(FOUR, (0, 1, 2, 3), strict=True)), ["white", "green"]),
        (dict(zip(FOUR[:3], (3, 7, 90), strict=True)), ["blue", "red", "green"]),
    ],
)
def test_names_are_the_same_everywhere(config, tmp_path, ids, classes):
    names = list(ids) if classes is None else classes
    write(tmp_path / "data", ids)
    run = tmp_path / "run"
    invoke("train", experiment(config, tmp_path / "data", classes), "--out", run, "--accelerator", "cpu")

    detector = detcore.load(run / "last")
    assert (list(detector.class_map.names), list(detector.class_map.ids)) == (names, [ids[n] for n in names])
    detcore.save(detector, tmp_path / "again.safetensors")
    assert detcore.load(tmp_path / "again.safetensors").class_map == detector.class_map

    invoke(
        "predict", tmp_path / "data", "--model", run / "last", "--out", tmp_path / "out", "--device", "cpu"
    )
    predicted = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert (predicted["classes"]["names"], predicted["classes"]["ids"]) == (names, [ids[n] for n in names])
    asked = 0
    for image in predicted["images"]:
        color = image["file"][3:-4]
        if color in names:
            best = max(image["detections"], key=lambda found: found["score"])
            assert (best["class"], best["class_id"], best["label"]) == (color, ids[color], names.index(color))
            asked += 1
    assert asked >= len(names) * 8

    invoke("eval", run / "last", "--out", tmp_path / "numbers.json", "--device", "cpu")
    numbers = json.loads((tmp_path / "numbers.json").read_text())["per_class"]
    assert list(numbers) == names
    assert all(row["AP50"] > 0.2 for row in numbers.values()), numbers


@pytest.mark.reliability(
    area="labels",
    fault="a misspelt class name",
    outcome="an error with the nearest name before anything is trained",
)
@pytest.mark.parametrize("where", ["data", "data.train", "data.val"])
def test_a_class_that_the_data_does_not_have_is_an_error_with_the_nearest(config, tmp_path, where):
    write(tmp_path / "data", dict(zip(FOUR, (1, 2, 3, 4), strict=True)))
    file = experiment(config, tmp_path / "data", None)
    with pytest.raises(DataError, match=r"has no class 'gren'; did you mean 'green'\?"):
        invoke(
            "train", file, f"{where}.classes=[red,gren]", "--out", tmp_path / "run", "--accelerator", "cpu"
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.reliability(
    area="labels",
    fault="evaluation on data with other ids for the same names",
    outcome="classes are compared by name",
)
def test_an_evaluation_on_data_with_other_ids_is_by_name(config, tmp_path):
    write(tmp_path / "data", dict(zip(FOUR, (0, 1, 2, 3), strict=True)))
    run = tmp_path / "run"
    invoke("train", experiment(config, tmp_path / "data", None), "--out", run, "--accelerator", "cpu")
    write(tmp_path / "other", dict(zip(reversed(FOUR), (3, 7, 90, 11), strict=True)))
    for root, out in (("data", "one.json"), ("other", "two.json")):
        arguments = (f"data.root={tmp_path / root}", "--out", tmp_path / out, "--device", "cpu")
        invoke("eval", run / "last", *arguments)
    one, two = (json.loads((tmp_path / name).read_text())["per_class"] for name in ("one.json", "two.json"))
    assert list(one) == list(two) == list(FOUR)
    assert all(row["AP50"] > 0.2 for row in two.values()), two
