"""How near the heavy rows are to what the processor can do.

The peak is that of the fastest convolution that this torch does here, one with 256 channels whose data fit the cache;
what a network needs is counted, not estimated (:class:`torch.utils.flop_counter.FlopCounterMode`).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping

import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

#: Heavy rows -> whether they compute in bfloat16.
HEAVY = {
    "inference/retinanet_batch_1": False,
    "inference/retinanet_batch_8": False,
    "inference/retinanet_auto_batch_1": True,
    "inference/retinanet_auto_batch_8": True,
    "inference/faster_rcnn_batch_1": False,
    "inference/faster_rcnn_auto_batch_1": True,
    "training/retinanet": False,
    "training/faster_rcnn": False,
    "training/retinanet_bfloat16": True,
    "training/faster_rcnn_bfloat16": True,
}


def measure(threads: int) -> Mapping[str, float]:
    """Peaks in operations per second by precision, and the operations of each heavy row on a processor.

    Empty with an accelerator: its peak is in its data sheet.
    """
    if torch.cuda.is_available():
        return {}
    torch.set_num_threads(threads)
    peaks = {"float32": peak(torch.float32), "bfloat16": peak(torch.bfloat16)}
    return peaks | {row: float(operations(row)) for row in HEAVY}


def peak(dtype: torch.dtype, repeats: int = 100) -> float:
    """Operations (a product and a sum are two) per second of a convolution that is easy to do."""
    x = torch.randn(2, 256, 30, 40, dtype=dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(256, 256, 3, 3, dtype=dtype).contiguous(memory_format=torch.channels_last)
    best = float("inf")
    with torch.inference_mode():
        for _ in range(repeats):
            begin = time.perf_counter()
            F.conv2d(x, weight, padding=1)
            best = min(best, time.perf_counter() - begin)
    return 2 * 2 * 30 * 40 * 256 * 256 * 9 / best


def operations(key: str) -> int:
    """What a heavy row's network multiplies and adds in one run, forward and backward."""
    module, _, name = key.partition("/")
    batch = int(name.rpartition("_")[2]) if module == "inference" else 2
    return counted(module == "training", name.startswith("retinanet"), batch)


@functools.cache
def counted(trains: bool, retina: bool, batch: int) -> int:
    """The operations of one step or prediction."""
    from bench.rows import inference, models, training

    build = models.detcore_retinanet if retina else models.detcore_faster_rcnn
    if trains:
        work = training.prepare(build, batch, training.SIZE, False, as_floats=False)
    else:
        work = inference.prepare(build, batch, ours=True)
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())
