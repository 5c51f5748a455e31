"""Two machines, as two network namespaces of this one: separate networks, joined by a cable."""

import csv
import io
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack

import pytest
import torch
from detcore_train import fit
from rich.console import Console

from detcore.config import to_yaml
from detcore.serialize import build

pytestmark = pytest.mark.slow


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=30)


def not_here():
    """Why two namespaces cannot be made here; empty where they can."""
    if shutil.which("ip") is None:
        return "the program ip (iproute2) is not installed"
    name = f"detcore-{os.getpid()}-try"
    try:
        ip("netns", "add", name)
        ip("netns", "exec", name, "ip", "link", "set", "lo", "up")
        ip("link", "add", f"dt{os.getpid()}a", "type", "veth", "peer", "name", f"dt{os.getpid()}b")
        ip("link", "del", f"dt{os.getpid()}a")
    except subprocess.CalledProcessError as error:
        return f"network namespaces are not permitted here: {error.stderr.strip()}"
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return ""


@pytest.fixture
def nodes():
    """The names of two namespaces, and of the network card in each; 10.77.0.1 and 10.77.0.2."""
    reason = not_here()
    if reason:
        pytest.skip(reason)
    number = os.getpid()
    names, cards = [f"detcore-{number}-{i}" for i in (1, 2)], [f"dc{number}n{i}" for i in (1, 2)]
    with ExitStack() as cleaning:
        for name in names:
            ip("netns", "add", name)
            # with its namespace, a card and its cable go too
            cleaning.callback(subprocess.run, ["ip", "netns", "del", name], capture_output=True, check=False)
        ip(
            "link",
            "add",
            cards[0],
            "netns",
            names[0],
            "type",
            "veth",
            "peer",
            "name",
            cards[1],
            "netns",
            names[1],
        )
        for i, (name, card) in enumerate(zip(names, cards, strict=True), start=1):
            ip("-n", name, "addr", "add", f"10.77.0.{i}/24", "dev", card)
            ip("-n", name, "link", "set", card, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield list(zip(names, cards, strict=True))


def rows(folder):
    with (folder / "train.csv").open() as file:
        read = list(csv.DictReader(file))
    return [{k: float(v) for k, v in row.items() if k.startswith("loss") or k == "step"} for row in read]


@pytest.mark.filterwarnings("ignore:ResNet is trained with norm_eval")
@pytest.mark.reliability(
    area="processes",
    fault="torchrun on two machines, as two network namespaces joined by a cable",
    outcome="the losses of every step equal those of one process, to 1e-6",
)
def test_two_nodes_equal_one_process(nodes, experiment, faster_rcnn, tmp_path, environment, record_property):
    file = tmp_path / "small.yaml"
    file.write_text(to_yaml(experiment(faster_rcnn, 2, val="seven")))
    started, logs = [], [tmp_path / "0.txt", tmp_path / "1.txt"]
    try:
        for rank, (name, card) in enumerate(nodes):
            command = [
                "ip", "netns", "exec", name, sys.executable, "-m", "torch.distributed.run", "--nnodes", "2",
                "--nproc-per-node", "1", "--node-rank", str(rank), "--master-addr", "10.77.0.1",
                "--master-port", "29500", "-m", "detcore", "train", str(file), "--accelerator", "cpu",
                "--out", str(tmp_path / "two"),
            ]  # fmt: skip
            with logs[rank].open("w") as out:
                variables = environment(GLOO_SOCKET_IFNAME=card)
                started.append(subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=variables))
        codes = [process.wait(timeout=400) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    text = [log.read_text() for log in logs]
    assert codes == [0, 0], "\n".join(text)
    assert "epoch 2/2" in text[0]
    assert "epoch 2/2" not in text[1]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = build(experiment(faster_rcnn, 1, val="seven"), kind="experiments")
    fit(alone, tmp_path / "one", accelerator="cpu", console=Console(file=io.StringIO()))
    torch.set_num_threads(threads)
    one, two = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert len(one) == len(two) == 8
    for mine, theirs in zip(one, two, strict=True):
        assert theirs == pytest.approx(mine, abs=1e-6, rel=1e-6)
    record_property("tried", len(one))
