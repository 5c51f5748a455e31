"""``detcore demo``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from detcore_data import collate
from detcore_eval.drawing import Drawn, side_by_side
from rich.console import Console
from torch import Tensor

import detcore
from detcore.errors import ConfigError
from detcore.interfaces import Dataset, Detector
from detcore_train.commands.common import check_accelerator, progress_bar
from detcore_train.commands.train import load_experiment
from detcore_train.engine.checkpointing import TrainingInterrupted
from detcore_train.engine.fit import fit
from detcore_train.evaluation import detect, device_of, evaluate, evaluating
from detcore_train.experiment import Experiment
from detcore_train.prediction import write_image
from detcore_train.runfolder import RunFolder
from detcore_train.runlock import locked

EXPERIMENT = Path(__file__).parent.parent / "demo.yaml"
_PAIRS = 8
_SCORE_THR = 0.4


def run(*, out: Path | None, overrides: Sequence[str], device: str) -> None:
    """Makes data, trains, evaluates and draws; see the command's own help for the arguments."""
    console = Console()
    out = out or _free_folder()
    folder = RunFolder(out / "run")
    with locked(folder.path, 0, console) as lock:  # around the data, too: a second demo would write it anew
        experiment = _with_data(out, overrides, console)
        console.print(
            "training a small RetinaNet, about two minutes on two CPU cores; Ctrl-C stops and saves"
        )
        try:
            result = fit(
                experiment,
                folder.path,
                accelerator=check_accelerator(device, "--device"),
                devices=1,
                console=console,
                lock=lock,
            )
        except TrainingInterrupted as stop:
            console.print(f"[yellow]{stop}[/]", soft_wrap=True)
            sys.exit(130)
        _show(experiment, folder, out, result.seconds, console)


def _with_data(out: Path, overrides: Sequence[str], console: Console) -> Experiment:
    """The demo's experiment, for which its pictures are made.

    Raises:
        ConfigError: An override is wrong.
    """
    console.print(f"making pictures of circles, squares and triangles in {out / 'shapes'}", soft_wrap=True)
    try:
        return load_experiment(str(EXPERIMENT), [f"data.root={out / 'shapes'}", *overrides])
    except ConfigError as error:
        raise ConfigError(error.problems, "the demo") from error.__cause__


def _show(experiment: Experiment, folder: RunFolder, out: Path, seconds: float, console: Console) -> None:
    """Evaluates, draws, and says where everything is; the numbers are the last line."""
    detector = detcore.load(folder.best, device=device_of(experiment.model))
    dataset = experiment.data.val
    if dataset is None:
        raise ConfigError("the demo's data.val is missing")
    with progress_bar(console, "evaluating", len(dataset)) as advance:
        evaluation = evaluate(detector, dataset, experiment.metric, batch_size=8, report=advance)
    picture = out / "predictions.png"
    write_image(grid(detector, dataset), picture)
    console.print(evaluation.table())
    evaluation.write(out / "evaluation.json")
    for line in (
        f"trained in {seconds:.0f} s",
        f"ground truth beside detections: {picture}",
        f"the detector: {folder.best}    (detcore.load({str(folder.best)!r}))",
        f"the run's logs: {folder.path}    (tensorboard --logdir {folder.path})",
        f"its experiment, to start your own from: {folder.experiment}",
        f"try: detcore predict {out / 'shapes'} --model {folder.path} --out {out / 'pictures'}",
    ):
        console.print(line, soft_wrap=True, highlight=False)
    print(evaluation.line())  # noqa: T201 - the last line is exactly this


def grid(detector: Detector, dataset: Dataset, pairs: int = _PAIRS) -> Tensor:
    """Pictures of the first images with objects: ground truth and detections side by side.

    Args:
        detector: Draws with its classes' names.
        dataset: Where the images come from; without random transforms.
        pairs: How many images.
    """
    rows: list[tuple[Tensor, Drawn, Drawn]] = []
    with evaluating(detector):
        for index in range(len(dataset)):
            example = dataset[index]
            if len(rows) == pairs or not len(example["boxes"]):
                continue
            batch = collate([example])
            (found,) = detect(detector, batch.to(device_of(detector)))
            shown = found.scores >= _SCORE_THR
            rows.append(
                (
                    batch.images[0],
                    Drawn(batch.targets.boxes[0], batch.targets.labels[0]),
                    Drawn(found.boxes[shown], found.labels[shown], found.scores[shown]),
                )
            )
    return side_by_side(rows, detector.class_map.names)


def _free_folder() -> Path:
    """``detcore-demo``, or with a number behind where that is taken."""
    first = Path("detcore-demo")
    if not first.exists():
        return first
    return next(p for p in (Path(f"detcore-demo-{n}") for n in count(2)) if not p.exists())
