"""A process of a run is killed, hangs or fails: all end soon with a message, and the run can be resumed."""

import signal

import pytest
from detcore_train.runfolder import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("lost")]
#: Far below the time that a process waits for a step of the others.
SOON = 60.0


@pytest.fixture(scope="module")
def worlds(experiment, retinanet, coco, play, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lost")

    def world(name, fault=None, **more):
        run = {"config": experiment(retinanet, 2, workers=more.pop("workers", 0)), "out": str(folder / name)}
        if name.endswith("again"):
            run |= {"copy_of": str(folder / name.removesuffix(" again")), "options": {"resume": True}}
        if fault is not None:
            run["sabotage"] = {"rank": fault[0], "at": fault[1], "number": int(fault[2])}
        return {"processes": 2, "runs": [{**run, **more}]}

    missing = world("missing", workers=1)
    missing["runs"][0]["config"]["data"]["train"]["annotations"] = "missing.json"
    other = world("other")
    other["runs"][0]["per_process"] = {"1": {"annotations": "seven.json"}}
    text = (coco / "train.json").read_text()
    # the last of the second process's images in the second step
    (coco / "missing.json").write_text(text.replace('"7.png"', '"gone.png"'))
    spec = {
        "unbroken": world("unbroken"),
        "first": world("first", (0, 5, signal.SIGKILL)),
        "second": world("second", (1, 5, signal.SIGKILL)),
        "begin": world("begin", (1, 0, signal.SIGKILL)),
        "hangs": world("hangs", (1, 5, signal.SIGSTOP), options={"timeout": 3.0}),
        "missing": missing,
        "other": other,
        "first again": world("first again"),
        "second again": world("second again"),
        "hangs again": world("hangs again"),
        "stopped": world("stopped", (1, 1, signal.SIGTERM)),
        "stopped again": world("stopped again"),
    }
    spec["hangs"] |= {"deadline": SOON, "hanging": 1}
    return play(folder, spec)


@pytest.mark.reliability(
    area="processes",
    fault="the first or the second of two processes killed by SIGKILL in the midst of a step",
    outcome="the other ends within a minute, says what to do, and leaves whole checkpoints",
)
@pytest.mark.parametrize(("name", "killed"), [("first", 0), ("second", 1), ("begin", 1)])
def test_a_killed_process_ends_the_other(worlds, name, killed):
    world = worlds[name]
    assert world.codes[killed] == -signal.SIGKILL
    assert world.codes[1 - killed] == 2
    assert max(world.seconds) < SOON
    text = world.output[1 - killed]
    position = "epoch 1, batch 1/4" if name == "begin" else "epoch 2, batch 2/4"
    assert (
        f"ProcessLostError: process {1 - killed} of 2 lost the connection to another one at {position}"
        in text
    )
    assert "Traceback" not in text
    folder = RunFolder(worlds[name].runs[0].folder)
    if name == "begin":
        assert "--resume begins anew: nothing was saved yet" in text
        return
    assert f"--resume continues from {folder.last}" in text
    (checkpoint,) = folder.checkpoints()
    assert checkpoint.damage() == ""
    assert checkpoint.step == 4


@pytest.mark.reliability(
    area="processes",
    fault="one of two processes stopped (it hangs) in the midst of a step",
    outcome="the other ends after the timeout with the same message",
)
def test_a_process_that_hangs_ends_the_other(worlds):
    world = worlds["hangs"]
    assert world.codes == [2, None]
    assert "ProcessLostError: process 0 of 2 lost the connection" in world.output[0]
    assert world.seconds[0] < 30


@pytest.mark.reliability(
    area="processes",
    fault="a run of two processes of which one was killed, hung or got SIGTERM, resumed",
    outcome="losses and weights in the end equal the unbroken run's, bit for bit",
)
@pytest.mark.parametrize("name", ["first", "second", "hangs", "stopped"])
def test_resumed_equals_unbroken(worlds, name):
    resumed, unbroken = worlds[f"{name} again"].check().runs[0], worlds["unbroken"].check().runs[0]
    assert resumed.told() == unbroken.told()
    timeless = [{k: v for k, v in row.items() if k.startswith("loss")} for row in resumed.rows()]
    assert timeless == [{k: v for k, v in row.items() if k.startswith("loss")} for row in unbroken.rows()]


@pytest.mark.reliability(
    area="processes",
    fault="SIGTERM to one of two processes",
    outcome="both save and stop after the same step",
)
def test_a_signal_to_one_stops_all(worlds):
    world = worlds["stopped"]
    assert world.codes == [2, 2]
    for text in world.output:
        assert "TrainingInterrupted: stopped by " in text
        assert "Continue with the same command and --resume" in text


@pytest.mark.reliability(
    area="processes",
    fault="an image that one of two processes cannot read",
    outcome="that process names the file and itself, and the other one ends too",
)
def test_an_error_in_one_process_ends_all(worlds):
    world = worlds["missing"]
    assert world.codes == [2, 2]
    assert "process 1 of 2 on " in world.output[1]
    assert "DataError: " in world.output[1]
    assert "gone.png" in world.output[1]
    assert "ProcessLostError: process 0 of 2" in world.output[0]
    assert max(world.seconds) < SOON


@pytest.mark.reliability(
    area="processes",
    fault="two processes with different training sets",
    outcome="an error before the first step says what differs",
)
def test_processes_with_different_data_are_told_apart(worlds):
    world = worlds["other"]
    assert world.codes == [2, 2]
    for text in world.output:
        assert (
            "ConfigError: processes differ in their images of the training set: 15 in process 0, 7 in process 1"
            in text
        )
