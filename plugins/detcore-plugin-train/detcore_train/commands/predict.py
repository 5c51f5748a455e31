"""``detcore predict``."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from detcore.component import Spec
from detcore.interfaces import Transform
from detcore.serialize import as_spec
from detcore_train.commands.common import load_detector, progress_bar
from detcore_train.experiment import Experiment
from detcore_train.prediction import find_images, predict_files, write_json, write_picture
from detcore_train.runfolder import experiment_of


def run(source: Path, *, model: Path, out: Path, score_thr: float, batch_size: int, device: str) -> None:
    """Detects, draws and writes; see the command's own help for the arguments."""
    console = Console()
    detector, folder = load_detector(model, device)
    transforms = evaluation_transforms(folder)
    if transforms is None:
        console.print(
            f"{folder} has no experiment.yaml beside it: images keep their own size", soft_wrap=True
        )
    root, paths = find_images(source)
    rows, number = [], 0
    with progress_bar(console, "predicting", len(paths)) as advance:
        for prediction in predict_files(
            detector, paths, transforms or (), score_thr=score_thr, batch_size=batch_size
        ):
            write_picture(prediction, detector.class_map.names, root, out)
            rows.append(prediction.to_dict(detector.class_map, root))
            number += len(prediction.found)
            advance(1)
    path = out / "predictions.json"
    write_json(rows, detector.class_map, str(folder), path)
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
