import dataclasses
import errno
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from detcore_train import fit, runlock
from detcore_train.durable import digest, seal
from detcore_train.engine.module import TrainingModule
from detcore_train.holder import Holder
from detcore_train.runlock import LOCK, RunInUseError, RunLock, locked
from rich.console import Console
from typer.testing import CliRunner

import detcore
from detcore.cli import main
from detcore.cli.app import app
from detcore.config import to_yaml
from detcore.errors import CheckpointError, ConfigError
from detcore.serialize import build

HOLDS = """
import os, subprocess, sys, time
from detcore_train.runlock import RunLock
with RunLock(sys.argv[1]):
    ready, go = os.pipe()
    child = os.fork() if sys.argv[2] == "forks" else 0
    if sys.argv[2] == "forks" and not child:
        os.write(go, b".")
        time.sleep(60)
    if child:
        os.read(ready, 1)  # by then it has closed what it is not to keep
    started = subprocess.Popen(["sleep", "60"]).pid if sys.argv[2] == "starts" else 0
    print(child or started, flush=True)
    sys.stdin.read()
"""

#: Trains until the first epoch is over; then its reading process hangs.
HANGS = """
import importlib.util, json, os, sys, time
from pathlib import Path
from detcore import registry
from detcore.serialize import build
from detcore_train import fit
from torch.utils.data import get_worker_info
spec = importlib.util.spec_from_file_location("toys", sys.argv[1])
spec.loader.exec_module(toys := sys.modules.setdefault("toys", importlib.util.module_from_spec(spec)))
run, read = Path(sys.argv[3]), toys.ToyDataset.__getitem__

def read_or_hang(self, index):
    if get_worker_info() is not None and (run / "best" / "checkpoint.json").exists():
        os.write(1, f"{os.getpid()}\\n".encode())
        time.sleep(60)
    return read(self, index)

toys.ToyDataset.__getitem__ = read_or_hang
with registry.use(toys.toy_registry()), open(os.devnull, "w") as nowhere:
    from rich.console import Console
    experiment = build(json.loads(sys.argv[2]), kind="experiments")
    fit(experiment, run, accelerator="cpu", console=Console(file=nowhere))
"""


def train(config, folder, **options):
    console = Console(file=io.StringIO(), width=200)
    fit(build(config, kind="experiments"), folder, accelerator="cpu", console=console, **options)
    return console.file.getvalue()


def tree(folder):
    """Everything in a folder: names, contents and times."""
    return {
        str(path): (path.stat().st_mtime_ns, digest(path) if path.is_file() else None)
        for path in (folder, *sorted(folder.rglob("*")))
    }


def is_running(pid):
    """Whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.fixture
def other(tmp_path):
    """Starts another process that holds tmp_path / "run" until it is told to end."""
    found, children = [], []

    def start(how="alone"):
        command = [sys.executable, "-c", HOLDS, str(tmp_path / "run"), how]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        found.append(process)
        process.child = int(process.stdout.readline())
        children.extend([process.child] if process.child else [])
        return process

    yield start
    for child in children:
        if is_running(child):
            os.kill(child, signal.SIGKILL)
    for process in found:
        process.kill()
        process.communicate()  # closes the pipes, which children have too


class Clock:
    """A module ``time`` by which nobody may sleep."""

    monotonic = staticmethod(time.monotonic)

    def sleep(self, _):
        pytest.fail("it waits for a process that lives")


@pytest.mark.reliability(
    area="resume",
    fault="a second run, with --resume and without, in a folder in which a run is training",
    outcome="an error at once that names folder, machine, process and remedy; nothing in the folder is changed",
)
@pytest.mark.parametrize("resume", [False, True])
def test_a_second_run_is_refused_at_once(config, tmp_path, other, resume, monkeypatch):
    run = tmp_path / "run"
    first = other()
    (run / "train.csv").write_text("epoch,step\n")
    before = tree(run)
    with monkeypatch.context() as patched:
        patched.setattr(runlock, "time", Clock())
        with pytest.raises(RunInUseError) as caught:
            train(config, run, resume=resume)
    assert re.fullmatch(
        rf"{re.escape(str(run))}: another run writes into this folder \(process {first.pid} on "
        rf"{re.escape(socket.gethostname())}, since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d: .*\)\. Nothing was "
        rf"changed\. Wait until it has ended, end it \(`kill {first.pid}` on {re.escape(socket.gethostname())} makes "
        r"it save and stop\), or choose another folder with --out",
        str(caught.value),
    )
    assert tree(run) == before
    first.communicate("end")
    assert not (run / LOCK).exists()
    train(config | {"epochs": 1}, run, resume=resume)


def test_the_command_is_refused_before_it_loads_data(config, tmp_path, other, monkeypatch, capsys):
    shapes = {"type": "ShapesDataset", "length": 8, "size": [48, 64]}
    config["data"] |= {"root": str(tmp_path / "shapes"), "train": shapes, "val": None}
    (tmp_path / "tiny.yaml").write_text(to_yaml(config))
    first = other()
    before = tree(tmp_path)
    arguments = ["train", str(tmp_path / "tiny.yaml"), "--out", str(tmp_path / "run"), "--accelerator", "cpu"]
    monkeypatch.setattr(sys, "argv", ["detcore", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith(f"RunInUseError: {tmp_path / 'run'}: another run writes into this folder")
    assert f"process {first.pid} on {socket.gethostname()}" in message
    assert tree(tmp_path) == before  # the shapes were not made, either


@pytest.mark.reliability(
    area="resume",
    fault="a run killed by SIGKILL while processes that it forked or started live on",
    outcome="its folder is free at once",
)
@pytest.mark.parametrize("how", ["forks", "starts"])
def test_free_when_killed_although_children_live(tmp_path, other, how):
    first = other(how)
    with pytest.raises(RunInUseError):
        RunLock(tmp_path / "run").__enter__()
    first.kill()
    first.wait()
    assert is_running(first.child)
    assert (tmp_path / "run" / LOCK).exists()
    with RunLock(tmp_path / "run", wait=0):
        assert is_running(first.child)


@pytest.mark.reliability(
    area="resume",
    fault="a training process killed by SIGKILL while its reading processes live on",
    outcome="refused while it lives; --resume goes on at once when it is killed",
)
def test_resumed_while_reading_processes_of_the_killed_run_live(config, tmp_path):
    run = tmp_path / "run"
    hanging = json.dumps(config | {"data": {**config["data"], "workers": 1}})
    command = [sys.executable, "-c", HANGS, str(Path(__file__).with_name("conftest.py")), hanging, str(run)]
    first, worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True), 0
    try:
        worker = int(first.stdout.readline())
        time.sleep(0.3)  # for what the first process writes while it waits for that worker
        before = tree(run)
        with pytest.raises(RunInUseError, match=f"process {first.pid} on"):
            train(config, run, resume=True)
        assert tree(run) == before
        first.kill()
        first.wait()
        with RunLock(run, wait=0):
            assert is_running(worker)
        assert f"continuing {run} after 3 steps" in train(config, run, resume=True)
        assert is_running(worker)
    finally:
        first.kill()
        if worker and is_running(worker):
            os.kill(worker, signal.SIGKILL)
        first.communicate()


def test_runs_one_after_the_other_in_one_process(config, tmp_path):
    config["epochs"] = 1
    assert "warning" not in train(config, tmp_path / "run")
    assert not list((tmp_path / "run").glob(".*"))
    train(config | {"epochs": 2}, tmp_path / "run", resume=True)
    with pytest.raises(ConfigError, match="already holds a training run"):
        train(config, tmp_path / "run")
    assert not list((tmp_path / "run").glob(".*"))


@pytest.mark.reliability(
    area="resume",
    fault="a second fit on the same folder in the same process while the first trains",
    outcome="an error that says so; the first one goes on",
)
def test_a_second_fit_inside_of_the_first(config, tmp_path, monkeypatch):
    config["epochs"] = 1
    seen, original = [], TrainingModule.training_step

    def training_step(self, *args):
        if self.batches_done == 1 and not seen:
            with pytest.raises(
                RunInUseError, match=f"this very process, {os.getpid()} on .*, since 2"
            ) as caught:
                train(config, tmp_path / "link" / ".." / "run", resume=True)
            seen.append(caught.value)
        return original(self, *args)

    (tmp_path / "link").mkdir()
    monkeypatch.setattr(TrainingModule, "training_step", training_step)
    train(config, tmp_path / "run")
    assert len(seen) == 1
    assert (tmp_path / "run" / "last").is_dir()


def test_a_lock_that_the_caller_holds(config, tmp_path):
    config["epochs"] = 1
    with RunLock(tmp_path / "run") as lock:
        with pytest.raises(ConfigError, match=r"lock: it is not held, or on another folder than .*other"):
            train(config, tmp_path / "other", lock=lock)
        train(config, tmp_path / "run", lock=lock)
        assert lock.holds(tmp_path / "run")
        assert lock.path.exists()
    assert not lock.path.exists()
    with pytest.raises(ConfigError, match="lock: it is not held"):
        train(config, tmp_path / "run", lock=lock)


def test_only_one_of_many_has_it(tmp_path):
    having, most, taken = [], [], []

    def work():
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            try:
                with RunLock(tmp_path / "run", wait=0):
                    having.append(1)
                    most.append(len(having))
                    time.sleep(0.001)
                    having.pop()
                taken.append(threading.get_ident())
            except RunInUseError:
                time.sleep(0.0005)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) == {1}
    assert len(taken) > 20
    assert len(set(taken)) > 1
    assert not (tmp_path / "run" / LOCK).exists()


def test_other_processes_of_a_run_train_under_the_lock_of_the_first(tmp_path):
    out = Console(file=io.StringIO())
    with locked(tmp_path / "run", 0, out) as first, locked(tmp_path / "run", 1, out) as second:
        assert first.holds(tmp_path / "run")
        assert second is None


@pytest.mark.reliability(
    area="resume",
    fault="a file system without locks (ENOLCK, EOPNOTSUPP, ENOSYS)",
    outcome="a warning, once, and the run goes on; a run that is seen to live on the same machine still is an error",
)
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks(config, tmp_path, monkeypatch, number):
    def flock(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(runlock, "_flock", flock)
    run, told = tmp_path / "run", []
    with RunLock(run, tell=told.append) as lock:
        lock.confirm()
        lock.path.unlink()
        lock.confirm()
        lock.confirm()
        with pytest.raises(RunInUseError, match="this very process"):
            RunLock(run, wait=0).__enter__()
    assert told == [
        f"the file system of {run} has no locks ({os.strerror(number)}): take care yourself that no second run, on "
        "another machine, writes into the folder"
    ]
    if number == errno.ENOLCK:
        assert train(config | {"epochs": 1}, run).count("warning: the file system") == 1
        assert (run / "last").is_dir()
        assert not (run / LOCK).exists()


def test_other_errors_of_the_lock_are_errors(tmp_path, monkeypatch):
    def flock(handle):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(runlock, "_flock", flock)
    with pytest.raises(CheckpointError, match=r"\.lock could not be opened \(Input/output error\)"):
        RunLock(tmp_path / "run").__enter__()


@pytest.mark.reliability(
    area="resume",
    fault="a run on another machine takes the folder, where the file system does not keep it out",
    outcome="the first run stops with an error before its next checkpoint",
)
def test_another_run_took_the_folder(config, tmp_path, monkeypatch):
    run, original = tmp_path / "run", TrainingModule.training_step
    intruder = dataclasses.replace(Holder.here(), host="node7", pid=77)

    def training_step(self, *args):
        if self.batches_done == 4:
            (run / LOCK).write_text(seal(dataclasses.asdict(intruder)))
        return original(self, *args)

    monkeypatch.setattr(TrainingModule, "training_step", training_step)
    with pytest.raises(
        RunInUseError, match=r"has taken this folder meanwhile \(process 77 on node7.* with --resume"
    ):
        train(config, run)
    assert json.loads((run / "last" / "checkpoint.json").read_text())["epoch"] == 1
    assert Holder.read(run / LOCK) == intruder  # not ours to remove


GARBAGE = [
    b"",
    b"\x00\xff" * 300,
    b'{"pid": 1}',
    b"[]",
    seal(dataclasses.asdict(Holder("node7", 1, "yesterday", "detcore", 1, "t"))).encode()[:-20],
    seal({"pid": 1, "more": 2}).encode(),
]


@pytest.mark.reliability(
    area="resume",
    fault="a lock file with anything in it: empty, binary, cut off, of another version",
    outcome="a free folder is taken; of a folder in use the error says that the holder cannot be read",
)
@pytest.mark.parametrize("content", GARBAGE, ids=["empty", "binary", "json", "list", "cut", "other"])
def test_garbage_in_the_lock_file(tmp_path, content):
    run = tmp_path / "run"
    run.mkdir()
    (run / LOCK).write_bytes(content)
    with RunLock(run, wait=0) as lock:
        assert Holder.read(lock.path) == lock.holder
        (run / LOCK).write_bytes(content)
        with pytest.raises(
            RunInUseError, match=r"\(who it is cannot be read in \.lock\)\. .* end it, or choose"
        ):
            RunLock(run, wait=0).__enter__()
        lock.confirm()
        assert Holder.read(lock.path) == lock.holder
    assert not (run / LOCK).exists()


def test_a_holder_that_may_be_ending_is_waited_for(tmp_path):
    run, told = tmp_path / "run", []
    first = RunLock(run)
    with first:
        elsewhere = dataclasses.replace(first.holder, host="node7", pid=77)
        first.path.write_text(seal(dataclasses.asdict(elsewhere)))
        begin = time.monotonic()
        with pytest.raises(RunInUseError, match="process 77 on node7"):
            RunLock(run, wait=0.3, tell=told.append).__enter__()
        assert time.monotonic() - begin >= 0.3
        assert told == [f"{run} is in use; waiting up to 0.3 s for its holder to end"]
        first.path.write_text(seal(dataclasses.asdict(first.holder)))
        first.path.write_bytes(b"")
        leaving = threading.Timer(0.3, first.__exit__, (None, None, None))
        leaving.start()
        with RunLock(run) as second:
            leaving.join()
            assert second.holds(run)


def test_who_is_seen_to_live(tmp_path):
    me = Holder.here()
    assert me.is_alive()
    assert not dataclasses.replace(me, host="node7").is_alive()
    assert not dataclasses.replace(me, started=me.started - 1).is_alive()  # the number was used again
    assert dataclasses.replace(me, started=None).is_alive()
    ended = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    while is_running(ended.pid):
        time.sleep(0.01)
    text = Path(f"/proc/{ended.pid}/stat").read_text()  # a zombie
    gone = dataclasses.replace(me, pid=ended.pid, started=int(text.rpartition(")")[2].split()[19]))
    assert not gone.is_alive()
    ended.communicate()
    assert not gone.is_alive()
    assert not dataclasses.replace(gone, started=None).is_alive()


@pytest.mark.reliability(
    area="resume",
    fault="the lock file, or the whole folder, is removed while a run trains",
    outcome="made again with the next checkpoint; an error before it where another run has come meanwhile",
)
def test_the_lock_file_is_removed(tmp_path, other):
    run = tmp_path / "run"
    with RunLock(run) as lock:
        lock.path.unlink()
        run.rmdir()
        lock.confirm()
        assert Holder.read(lock.path) == lock.holder
        with pytest.raises(RunInUseError):
            RunLock(run).__enter__()
        lock.path.unlink()
        first = other()
        with pytest.raises(RunInUseError, match=rf"has taken this folder meanwhile \(process {first.pid} on"):
            lock.confirm()
    assert (run / LOCK).exists()


def test_where_no_folder_can_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"\.lock could not be opened \(Not a directory\)\. .* --out"):
        RunLock(tmp_path / "file" / "run").__enter__()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"\.lock could not be opened \(No such file or directory\)"):
        RunLock(tmp_path / "link").__enter__()


def test_folders_that_nothing_was_put_into_are_removed(tmp_path):
    with RunLock(tmp_path / "runs" / "one"):
        assert (tmp_path / "runs" / "one").is_dir()
    assert not (tmp_path / "runs").exists()


def test_readers_take_no_lock(config, tmp_path):
    run = tmp_path / "run"
    train(config | {"epochs": 1}, run)
    with RunLock(run) as lock:
        assert detcore.load(run / "last").class_map.names == ("red", "green")
        done = CliRunner().invoke(app, ["eval", str(run), "--device", "cpu"])
        assert done.exit_code == 0, done.output
        assert Holder.read(lock.path) == lock.holder
