"""One of two processes meets a batch that cannot be trained on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from detcore_train.bad_batch import read_bad_batch
from detcore_train.loader import EpochBatches, Shard

PROGRAM = Path(__file__).with_name("bad_box_run.py")


def seen_by(rank, seed, batch_size):
    """Whether the process sees image 103 in the first epoch."""
    batches = EpochBatches(12, batch_size, seed, Shard(rank, 2), shuffle=True, drop_last=False)
    return any(3 in batch for batch in batches)


@pytest.mark.slow
@pytest.mark.reliability(
    area="guards",
    fault="one of two processes meets a loss that is NaN",
    outcome="it alone keeps its batch; both stop at that step, and both say which process it was",
)
def test_one_of_two_processes(config, tmp_path):
    config["seed"] = next(seed for seed in range(99) if seen_by(1, seed, config["data"]["batch_size"]))
    (tmp_path / "config.json").write_text(json.dumps(config))
    environment = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE")}
    done = subprocess.run(
        [sys.executable, PROGRAM, tmp_path / "config.json", tmp_path / "run", "2"],
        capture_output=True,
        text=True,
        timeout=600,  # nobody waits for a process that is gone
        env=environment | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "NonFiniteLossError" in said, said
    (path,) = (tmp_path / "run").glob("bad-batch-*")
    kept = read_bad_batch(path)
    assert path.name.endswith("-process-1")
    assert (kept.circumstances.rank, kept.circumstances.processes) == (1, 2)
    assert 103 in kept.batch.image_ids
    assert "103 (memory/3.png)" in said
    assert "stopped, since process 1 met a loss or gradient that is not finite" in said
    assert f"it has kept the batch in {path}" in said
