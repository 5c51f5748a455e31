"""Several processes train and evaluate as one does."""

import copy
import math
import re

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("equal")]

TRAINABLE_STATISTICS = {"type": "ResNet", "depth": 18, "base_channels": 8}


@pytest.fixture(scope="module")
def worlds(experiment, retinanet, faster_rcnn, mask_rcnn, play, tmp_path_factory):
    """The same runs in one process and in two; evaluations in one, two and three."""
    folder = tmp_path_factory.mktemp("worlds")

    def runs(count):
        made = {
            "retinanet": {"config": experiment(retinanet, count, val="seven")},
            "faster_rcnn": {"config": experiment(faster_rcnn, count)},
            "mask_rcnn": {"config": experiment(mask_rcnn, count, epochs=1)},
            "everything": {
                "config": experiment(
                    retinanet, count, val="one", accumulate=2, clip_grad_norm=0.5, base_batch_size=16,
                    ema={"type": "EMA", "decay": 0.9, "ramp_steps": 0},
                ),
                "spare": True,
                "terminal": True,
            },
            "statistics": {"config": experiment(
                {**retinanet, "backbone": TRAINABLE_STATISTICS}, count, epochs=1, ema={"type": "EMA", "ramp_steps": 0}
            )},
        }  # fmt: skip
        return [{**copy.deepcopy(run), "out": str(folder / f"{count}" / name)} for name, run in made.items()]

    three = experiment(retinanet, 1, val="seven", epochs=1)
    three["data"]["batch_size"] = 1
    alone = copy.deepcopy(three)
    alone["data"]["batch_size"] = 3
    spec = {
        "one": {"processes": 1, "runs": [*runs(1), {"config": alone, "out": str(folder / "1" / "three")}]},
        "two": {"processes": 2, "runs": runs(2)},
        "three": {"processes": 3, "runs": [{"config": three, "out": str(folder / "3" / "three")}]},
    }
    played = play(folder, spec)
    return {
        name: {run.folder.name: run for run in world.check().runs} | {"output": world.output}
        for name, world in played.items()
    }


def assert_same_losses(one, other, tolerance):
    """The same steps, with the same losses; returns their number."""
    assert [row["step"] for row in one] == [row["step"] for row in other]
    worst = 0.0
    for mine, theirs in zip(one, other, strict=True):
        names = [name for name in mine if name == "lr" or name.startswith("loss")]
        assert len(names) >= 4
        for name in names:
            a, b = float(mine[name]), float(theirs[name])
            assert math.isfinite(a)
            worst = max(worst, abs(a - b) / max(1.0, abs(a)))
    assert worst <= tolerance, worst
    return len(one)


@pytest.mark.reliability(
    area="processes",
    fault="the batches of one process shared by two: a last batch of three images, a process without objects, a step "
    "without any; RetinaNet, Faster R-CNN with random sampling, Mask R-CNN",
    outcome="the losses of every step equal those of one process, to 1e-6",
)
@pytest.mark.parametrize(("name", "steps"), [("retinanet", 8), ("faster_rcnn", 8), ("mask_rcnn", 4)])
def test_two_processes_train_as_one(worlds, name, steps, record_property):
    one, two = worlds["one"][name], worlds["two"][name]
    assert assert_same_losses(one.rows(), two.rows(), 1e-6) == steps
    record_property("tried", steps)
    a, b = two.told()
    assert a == b


@pytest.mark.reliability(
    area="processes",
    fault="accumulation, clipping, a running average and parameters that no loss uses, in two processes",
    outcome="the losses equal those of one process; weights and average are the same bits in both processes",
)
def test_accumulation_clipping_average_and_unused_parameters(worlds):
    one, two = worlds["one"]["everything"], worlds["two"]["everything"]
    assert assert_same_losses(one.rows(), two.rows(), 1e-6) == 4
    a, b = two.told()
    assert a == b
    assert a["average"] not in ("", a["weights"])


@pytest.mark.reliability(
    area="processes",
    fault="batch normalisation that trains, in two processes",
    outcome="its running statistics, and their running average, are the same bits in both processes",
)
def test_running_statistics_stay_equal(worlds):
    a, b = worlds["two"]["statistics"].told()
    assert a == b
    assert len(worlds["two"]["statistics"].rows()) == 4


@pytest.mark.reliability(
    area="evaluation",
    fault="7 images evaluated by 2 and by 3 processes, and 1 image by 2",
    outcome="each image counts once: the numbers equal those of one process",
)
@pytest.mark.parametrize(("count", "name"), [("two", "retinanet"), ("three", "three"), ("two", "everything")])
def test_evaluation_counts_each_image_once(worlds, count, name):
    one, several = worlds["one"][name].rows("val"), worlds[count][name].rows("val")
    assert len(one) == len(several) > 0
    assert one[0]["images"] == one[0]["different"] == ("1" if name == "everything" else "7")
    assert int(one[0]["boxes"]) > 0
    for mine, theirs in zip(one, several, strict=True):
        assert mine.keys() == theirs.keys()
        for key, value in mine.items():
            assert (value == "") == (theirs[key] == ""), key
            if value:
                assert float(theirs[key]) == pytest.approx(float(value), abs=1e-6), key


def test_only_the_first_process_prints_and_writes(worlds):
    first, second = worlds["two"]["output"]
    assert "epoch 2/2" in first
    assert re.sub("\x1b\\[[0-9;]*m", "", first).count("learning rate scaled by 0.5: 8 images per step") == 1
    assert "find_unused_parameters" not in first
    assert second == ""
    boards = list((worlds["two"]["retinanet"].folder / "tensorboard").iterdir())
    assert len(boards) == 1
