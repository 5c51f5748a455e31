"""Like distributed_run.py, but a transform has made a box of image 103 NaN."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from detcore_data import collate


def broken(examples):
    batch = collate(examples)
    for index, image_id in enumerate(batch.image_ids):
        if image_id == 103:
            batch.targets.boxes[index, 0, 2] = float("nan")
    return batch


if __name__ == "__main__":
    import detcore_train.loader

    detcore_train.loader.collate = broken
    spec = importlib.util.spec_from_file_location(
        "distributed_run", Path(__file__).with_name("distributed_run.py")
    )
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    program.main(*sys.argv[1:])
