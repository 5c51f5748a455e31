"""The commands of docs/many-processes.md: their options exist, and its YAML is what it says."""

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml
from detcore_train.engine.layout import Layout
from detcore_train.hooks import train
from torch.distributed.run import get_args_parser

PAGE = (Path(__file__).parent.parent / "docs" / "many-processes.md").read_text(encoding="utf-8")
#: The options of Slurm's ``srun`` that the page uses; Slurm is not there to be asked.
SRUN = {"--kill-on-bad-exit"}


def commands():
    """Every command of the page, on one line, without its launcher's variables."""
    kubernetes = next(d for d in documents() if d["kind"] == "Job")
    inside = kubernetes["spec"]["template"]["spec"]["containers"][0]["args"]
    written = re.findall(r"`((?:torchrun|srun|detcore) [^`]*)`", PAGE)
    written += re.findall(r"^((?:torchrun|srun) .*)$", PAGE, flags=re.MULTILINE)
    return [c for c in (*written, *inside) if "detcore train FILE" in c or "detcore train /" in c]


def options():
    """The options of ``detcore train``."""
    app = typer.Typer()
    app.command("train")(train)
    return {name for parameter in typer.main.get_command(app).params for name in parameter.opts}


def documents():
    return [
        d
        for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
        for d in yaml.safe_load_all(block)
        if "kind" in d
    ]


def test_the_options_of_the_commands_exist():
    known = options()
    launcher = {o for action in get_args_parser()._actions for o in action.option_strings}
    found = commands()
    assert len(found) >= 8
    for command in found:
        words = shlex.split(command.replace("exec ", ""))
        middle = words.index("train")
        assert {w for w in words[middle:] if w.startswith("--")} <= known, command
        before = {w.partition("=")[0] for w in words[:middle] if w.startswith("--")}
        assert before <= (SRUN if words[0] == "srun" else launcher), command
        assert words[0] in ("torchrun", "srun", "detcore")
        assert words[0] != "torchrun" or words[middle - 2 : middle] == ["-m", "detcore"]


@pytest.mark.parametrize(
    "option", ["--timeout", "--devices", "--nodes", "--resume", "--out", "--accelerator"]
)
def test_options_that_the_text_names(option):
    assert option in PAGE
    assert option in options()


def test_the_slurm_script_is_one_that_detcore_accepts():
    script = re.search(r"#SBATCH.*?\nsrun", PAGE, re.S)[0]
    options = dict(re.findall(r"#SBATCH --([a-z-]+)=(\S+)", script))
    nodes, tasks = int(options["nodes"]), int(options["ntasks-per-node"])
    variables = {
        "SLURM_JOB_NAME": options["job-name"], "SLURM_NTASKS": str(nodes * tasks), "SLURM_NNODES": str(nodes),
        "SLURM_NTASKS_PER_NODE": str(tasks), "SLURM_PROCID": "9", "SLURM_STEP_ID": "0",
    }  # fmt: skip
    assert Layout.find("cpu", environment=variables) == Layout("slurm", "cpu", 8, 2, 9)
    assert options["gpus-per-node"] == options["ntasks-per-node"]


def test_the_job_has_a_pod_for_each_machine():
    service, job = documents()
    spec = job["spec"]
    assert spec["completions"] == spec["parallelism"] == 2
    pod = spec["template"]["spec"]
    (command,) = pod["containers"][0]["args"]
    assert "--nnodes 2 " in command
    assert f"--master-addr {job['metadata']['name']}-0.{service['metadata']['name']} " in command
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"]["job-name"] == job["metadata"]["name"]
