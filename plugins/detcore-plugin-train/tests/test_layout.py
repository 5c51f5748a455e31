"""How many processes there are, from the options and from what a launcher says."""

import io

import pytest
import torch
from detcore_train import fit
from detcore_train.engine.launching import environment_of, how, is_lost, strategy_of
from detcore_train.engine.layout import Layout
from rich.console import Console

from detcore.errors import ConfigError, DataError
from detcore.serialize import build

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "RANK": "5",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "8",
    "LOCAL_WORLD_SIZE": "4",
}
SLURM = {
    "SLURM_JOB_NAME": "train",
    "SLURM_NTASKS": "8",
    "SLURM_NTASKS_PER_NODE": "4",
    "SLURM_NNODES": "2",
    "SLURM_PROCID": "5",
    "SLURM_STEP_ID": "0",
}


def find(environment, devices="auto", nodes="auto", accelerator="cpu"):
    return Layout.find(accelerator, devices, nodes, environment)


@pytest.mark.parametrize(("environment", "launcher"), [(TORCHRUN, "torchrun"), (SLURM, "slurm")])
@pytest.mark.parametrize(("devices", "nodes"), [("auto", "auto"), (4, "auto"), ("auto", 2), (4, 2)])
def test_the_launcher_decides(environment, launcher, devices, nodes):
    found = find(environment, devices, nodes)
    assert found == Layout(launcher, "cpu", 4, 2, 5)
    assert found.count == 8
    assert type(strategy_of(found, 60)).__name__ == "DataParallel"


@pytest.mark.reliability(
    area="processes",
    fault="--devices or --nodes contradict torchrun or Slurm; Slurm without srun, or without tasks per node; machines "
    "without a meeting point; other launchers; more processes than devices",
    outcome="an error that says which number is whose, and what to write",
)
@pytest.mark.parametrize(
    ("environment", "options", "message"),
    [
        (TORCHRUN, {"devices": 2}, r"--devices 2 contradicts what torchrun started \(4 processes per machine\): leave"),
        (TORCHRUN, {"nodes": 1}, r"--nodes 1 contradicts what torchrun started \(2 machines\): leave --nodes out"),
        (SLURM, {"devices": 8}, r"--devices 8 contradicts what Slurm started \(4 processes per machine\)"),
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "3"}, {}, r"3 processes on this machine and 8 in all: .* --nproc-per-node"),
        (TORCHRUN | {"WORLD_SIZE": "many"}, {}, "environment variable WORLD_SIZE should be a number, got 'many'"),
        ({k: v for k, v in SLURM.items() if k != "SLURM_STEP_ID"}, {}, "not started by srun, .* `srun detcore train"),
        ({k: v for k, v in SLURM.items() if k != "SLURM_NTASKS_PER_NODE"}, {}, "`#SBATCH --ntasks-per-node=N`"),
        (SLURM | {"SLURM_NTASKS_PER_NODE": "3"}, {}, "8 tasks on 2 nodes, SLURM_NTASKS_PER_NODE is 3"),
        ({"WORLD_SIZE": "4", "RANK": "0"}, {}, r"WORLD_SIZE=4 and RANK=0 are set, but LOCAL_RANK is not.*torchrun"),
        ({}, {"nodes": 2, "devices": 4}, r"--nodes 2 .* MASTER_ADDR, MASTER_PORT, NODE_RANK, .*--nproc-per-node 4"),
        ({"MASTER_ADDR": "a", "MASTER_PORT": "1"}, {"nodes": 2}, "; NODE_RANK not set"),
        ({}, {"devices": 2, "accelerator": "mps"}, "2 processes with --accelerator mps: there is one"),
        (TORCHRUN, {"accelerator": "cuda"}, "4 processes on this machine, but torch finds 1 CUDA devices: "),
    ],
)  # fmt: skip
def test_contradictions(environment, options, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match=message):
        find(environment, **options)


def test_without_a_launcher(monkeypatch):
    assert find({}) == Layout("own", "cpu", 1, 1, 0)
    assert find({}, 4) == Layout("own", "cpu", 4, 1, 0)
    assert find({"LOCAL_RANK": "2"}, 4) == Layout("own", "cpu", 4, 1, 2)
    meeting = {"MASTER_ADDR": "a", "MASTER_PORT": "1", "NODE_RANK": "1", "LOCAL_RANK": "2"}
    assert find(meeting, 4, 2) == Layout("own", "cpu", 4, 2, 6)
    assert strategy_of(find({}), 60) == "auto"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert find({}, accelerator="auto") == Layout("own", "cuda", 3, 1, 0)
    assert find({}, accelerator="cpu").count == 1


def test_one_task_of_slurm_starts_processes_itself():
    """Interactive sessions and srun with a single task are no launcher."""
    assert find(SLURM | {"SLURM_NTASKS": "1"}, 2) == Layout("own", "cpu", 2, 1, 0)
    assert find(SLURM | {"SLURM_JOB_NAME": "interactive"}, 2).launcher == "own"


def test_slurm_is_not_asked_to_requeue(monkeypatch):
    """Our own handler saves on SIGTERM; the trainer's would write a checkpoint of its own."""
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    environment = environment_of(Layout("slurm", "cpu", 4, 2, 5))
    assert not environment.auto_requeue
    assert (environment.world_size(), environment.global_rank()) == (8, 5)


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("[gloo/transport/tcp/pair.cc:545] Read error: Connection reset by peer"), True),
        (RuntimeError("Timed out waiting 8000ms for recv operation to complete"), True),
        (torch.distributed.DistBackendError("NCCL error: remote process exited"), True),
        (RuntimeError("size mismatch"), False),
        (ValueError("connection closed by peer"), False),
        (DataError("gloo.png: cannot be read"), False),
    ],
)
def test_which_errors_mean_a_lost_process(error, lost):
    assert is_lost(error) is lost


def test_exit_codes_in_words():
    assert (how(2), how(-9), how(-99)) == ("exit code 2", "killed by SIGKILL", "killed by signal 99")


@pytest.mark.reliability(
    area="processes",
    fault="sync_bn on processes without CUDA, which torch does not support",
    outcome="an error before the first step says what to do",
)
def test_shared_batch_statistics_need_cuda(config, tmp_path):
    config["sync_bn"] = True
    with pytest.raises(
        ConfigError, match=r"sync_bn: .* works on CUDA only, not on cpu; set sync_bn to false"
    ):
        fit(build(config, kind="experiments"), tmp_path / "run", accelerator="cpu", devices=2)
    config["epochs"] = 1
    console = Console(file=io.StringIO())
    assert fit(build(config, kind="experiments"), tmp_path / "run", accelerator="cpu", console=console).values


@pytest.mark.parametrize(("option", "value"), [("--devices", "0"), ("--nodes", "two"), ("--devices", "-1")])
def test_counts_on_the_command_line(option, value):
    from detcore_train.commands.train import number_or_auto

    with pytest.raises(ConfigError, match=f"{option} should be a number above 0, or auto; got {value!r}"):
        number_or_auto(option, value)
