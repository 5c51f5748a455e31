"""Trains the toy experiment; started by test_distributed.py, once per process."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import torch

from detcore import registry


def main(config: str, out: str, devices: str) -> None:
    torch.set_num_threads(1)
    spec = importlib.util.spec_from_file_location("toys", Path(__file__).with_name("conftest.py"))
    toys = importlib.util.module_from_spec(spec)
    sys.modules["toys"] = toys
    spec.loader.exec_module(toys)
    from detcore_train import fit

    from detcore.serialize import build

    entries = {
        registry.Entry(toy.kind, toy.__name__, "detcore-toys", "1.0", f"toys:{toy.__name__}"): toy
        for toy in toys.TOYS
    }
    with registry.use(registry.Registry([*registry.current().entries, *entries], entries)):
        experiment = build(json.loads(Path(config).read_text()), kind="experiments")
        fit(experiment, out, accelerator="cpu", devices=int(devices))


if __name__ == "__main__":
    main(*sys.argv[1:])
