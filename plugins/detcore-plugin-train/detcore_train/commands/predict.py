"""``detcore predict``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from detcore.allocator import keep_freed_memory
from detcore.component import Spec
from detcore.interfaces import Transform
from detcore.serialize import as_spec
from detcore_train.commands.common import check_precision, load_detector, progress_bar
from detcore_train.commands.testtime import TestTime
from detcore_train.experiment import Experiment
from detcore_train.prediction import MAX_PIXELS, find_images, predict_files, write_json, write_picture
from detcore_train.runfolder import experiment_of


def run(
    source: Path,
    *,
    models: Sequence[Path],
    out: Path,
    score_thr: float,
    batch_size: int,
    device: str,
    max_pixels: int = MAX_PIXELS,
    test_time: TestTime | None = None,
    precision: str = "auto",
) -> None:
    """Detects, draws and writes; see the command's own help for the arguments."""
    console, arithmetic = Console(), check_precision(precision)
    keep_freed_memory()
    loaded = [load_detector(model, device) for model in models]
    members = []
    for one, folder in loaded:
        own = evaluation_transforms(folder)
        if own is None:
            console.print(
                f"{folder} has no experiment.yaml beside it: images keep their own size", soft_wrap=True
            )
        members.append((one, own or ()))
    detector, transforms = (test_time or TestTime()).compose(members)
    root, paths = find_images(source)
    rows, number = [], 0
    with progress_bar(console, "predicting", len(paths)) as advance:
        for prediction in predict_files(
            detector,
            paths,
            transforms,
            score_thr=score_thr,
            batch_size=batch_size,
            max_pixels=max_pixels,
            precision=arithmetic,
        ):
            write_picture(prediction, detector.class_map.names, root, out)
            rows.append(prediction.to_dict(detector.class_map, root))
            number += len(prediction.found)
            advance(1)
    path = out / "predictions.json"
    write_json(rows, detector.class_map, ", ".join(str(folder) for _, folder in loaded), path)
    console.print(
        f"{number} detections with a score of at least {score_thr:g} on {len(paths)} images; "
        f"pictures: {out}; numbers: {path}",
        soft_wrap=True,
    )


def evaluation_transforms(folder: Path) -> tuple[Transform, ...] | None:
    """What images go through before the detector sees them for evaluation; None where nothing says so.

    Args:
        folder: The checkpoint.
    """
    from detcore.config import load

    file = experiment_of(folder)
    if file is None:
        return None
    data = as_spec(load(file).data, kind=Experiment.kind).params["data"]
    val = data.params.get("val") if isinstance(data, Spec) else data.val
    if not isinstance(val, Spec):
        return ()
    return tuple(
        part.build() if isinstance(part, Spec) else part for part in val.complete().get("transforms", ())
    )
