"""The command line under its own launcher and under torchrun, started as a user starts it."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from detcore_train.runfolder import RunFolder

from detcore.config import to_yaml

pytestmark = pytest.mark.slow
TORCHRUN = (sys.executable, "-m", "torch.distributed.run")


@pytest.fixture(scope="session")
def file(experiment, retinanet, tmp_path_factory):
    path = tmp_path_factory.mktemp("experiment") / "small.yaml"
    path.write_text(to_yaml(experiment(retinanet, 2, epochs=6)))
    return path


def descendants(pid):
    """The processes that a process has started, and those that these have."""
    found = []
    with suppress(OSError):  # it may end meanwhile
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


def kill_process(rank, started):
    """Kills the process of that rank."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        for pid in descendants(started.pid):
            with suppress(OSError):
                variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                if f"LOCAL_RANK={rank}".encode() in variables:
                    os.kill(pid, signal.SIGKILL)
                    return
    started.kill()
    raise AssertionError(f"no process {rank}")


def start(command, environment, log):
    with log.open("w") as out:
        return subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment())


def wait_for(path, process, log):
    until = time.monotonic() + 240
    while not path.exists():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.01)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds processes through /proc")
@pytest.mark.reliability(
    area="processes",
    fault="one of two processes of `detcore train --devices 2` killed by SIGKILL",
    outcome="the command ends with exit code 2 and a message; the checkpoint is whole",
)
def test_own_launcher_and_a_killed_process(file, tmp_path, environment):
    log, run = tmp_path / "log.txt", RunFolder(tmp_path / "run")
    options = ["--accelerator", "cpu", "--devices", "2", "--out", str(run.path)]
    with start([sys.executable, "-m", "detcore", "train", str(file), *options], environment, log) as process:
        wait_for(run.last / "checkpoint.json", process, log)
        kill_process(1, process)
        code = process.wait(timeout=120)
    text = log.read_text()
    assert code == 2, text
    assert text.count("ProcessLostError: process 0 of 2 lost the connection to another one at epoch ") == 1
    assert text.count("epoch 1/6") == 1
    assert run.checkpoints()[0].damage() == ""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds processes through /proc")
@pytest.mark.reliability(
    area="processes",
    fault="a process killed by SIGKILL under torchrun --max-restarts 1",
    outcome="torchrun starts both again, and with --resume the run goes on and ends",
)
def test_torchrun_starts_again_and_the_run_resumes(file, tmp_path, environment):
    log, run = tmp_path / "log.txt", RunFolder(tmp_path / "run")
    script = Path(sys.executable).with_name("detcore")  # as `torchrun ... $(which detcore) train FILE`
    torchrun = [
        *TORCHRUN,
        "--standalone",
        "--nproc-per-node",
        "2",
        "--max-restarts",
        "1",
        "--monitor-interval",
        "0.2",
    ]
    command = [
        *torchrun,
        str(script),
        "train",
        str(file),
        "--accelerator",
        "cpu",
        "--out",
        str(run.path),
        "--resume",
    ]
    with start(command, environment, log) as process:
        wait_for(run.last / "checkpoint.json", process, log)
        kill_process(1, process)
        code = process.wait(timeout=240)
    text = log.read_text()
    assert code == 0, text
    assert re.search(rf"continuing {re.escape(str(run.path))} after \d+ steps", text), text
    assert text.count("epoch 1/6") == 1
    assert text.count("epoch 6/6") == 1
    assert text.count("trained in") == 1
    (last, *_) = run.checkpoints()
    assert (last.epoch, last.step, last.damage()) == (6, 24, "")


def test_torchrun_and_contradicting_devices(file, tmp_path, environment):
    command = [*TORCHRUN, "--standalone", "--nproc-per-node", "1", "-m", "detcore", "train", str(file)]
    done = subprocess.run(
        [*command, "--accelerator", "cpu", "--out", str(tmp_path / "run"), "--devices", "2"],
        capture_output=True, text=True, env=environment(), timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert (
        "ConfigError: --devices 2 contradicts what torchrun started (1 processes per machine)" in done.stderr
    )
