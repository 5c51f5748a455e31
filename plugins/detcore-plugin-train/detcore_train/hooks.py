"""What this plugin adds to detcore's command line. Importing it imports neither torch nor lightning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from detcore.hooks import hookimpl

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Values over those of the file.", show_default=False),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Precision = Annotated[
    str,
    typer.Option(
        help="32: as in training; bf16: bfloat16; auto: that where the processor has it. Both fold normalisation."
    ),
]

# Test time: what `predict` and `eval` have in common.
Tile = Annotated[
    int | None,
    typer.Option(
        min=16, help="Look at large images in tiles of so many pixels.", show_default="whole images"
    ),
]
TileOverlap = Annotated[
    float, typer.Option(min=0, max=0.95, help="Share that neighbouring tiles have in common.")
]
Tta = Annotated[bool, typer.Option("--tta", help="As --scales 0.8,1,1.25 --flip.")]
Scales = Annotated[
    str | None,
    typer.Option(metavar="X,Y,...", help="Look at each image at several sizes.", show_default="1"),
]
Flip = Annotated[bool, typer.Option("--flip", help="Look at each image mirrored too.")]
Merge = Annotated[str, typer.Option(help="How what is seen becomes one: nms, soft_nms or wbf (no masks).")]


@hookimpl
def detcore_add_commands(app: typer.Typer) -> None:
    """Adds ``train``, ``eval``, ``predict``, ``demo``, ``replay`` and ``inspect data``."""
    app.command("train")(train)
    app.command("eval")(evaluate)
    app.command("predict")(predict)
    app.command("demo")(demo)
    app.command("replay")(replay)
    inspect = typer.Typer(help="Look into things before they are trained on.", no_args_is_help=True)
    inspect.callback()(lambda: None)  # a group, although it has one command
    inspect.command("data")(inspect_data)
    app.add_typer(inspect, name="inspect")


def train(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="An experiment (YAML, TOML, JSON) or a recipe's name.")
    ],
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run.", show_default="runs/NAME-OF-FILE")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in that folder, if there is one.")
    ] = False,
    weights: Annotated[
        str | None, typer.Option(help="Address of weights to begin with, in place of the file's `weights`.")
    ] = None,
    reinit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PART", help="A part that begins anew in spite of them (head, ...); may be repeated."
        ),
    ] = None,
    accelerator: Device = "auto",
    devices: Annotated[
        str,
        typer.Option(
            help="How many of them on this machine; auto: what torchrun or Slurm started, else all."
        ),
    ] = "auto",
    nodes: Annotated[
        str, typer.Option(help="How many machines; auto: what torchrun or Slurm started, else 1.")
    ] = "auto",
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds that a process waits for the others within a step.")
    ] = 600.0,
) -> None:
    """Train a detector as an experiment file says."""
    from detcore_train.commands.train import run

    run(
        file,
        overrides or [],
        out=out,
        resume=resume,
        weights=weights,
        reinit=reinit or [],
        accelerator=accelerator,
        devices=devices,
        nodes=nodes,
        timeout=timeout,
    )


def evaluate(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="A checkpoint, or a run (its best checkpoint); with --detections a run or an experiment's FILE."
        ),
    ],
    file_and_overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE] [KEY=VALUE]...",
            help="Another experiment than the checkpoint's own, and values over those in it.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="JSON with the numbers.", show_default="CHECKPOINT/evaluation.json")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images per step.", show_default="the experiment's")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that read images.", show_default="the experiment's")
    ] = None,
    device: Device = "auto",
    model: Annotated[
        list[Path] | None,
        typer.Option(help="Another checkpoint or run, for an ensemble; may be repeated.", show_default=False),
    ] = None,
    tile: Tile = None,
    tile_overlap: TileOverlap = 0.2,
    tta: Tta = False,
    scales: Scales = None,
    flip: Flip = False,
    merge: Merge = "nms",
    report: Annotated[
        Path | None,
        typer.Option(
            help="Folder for report.html, report.json and detections.json: errors by type, curves, ..."
        ),
    ] = None,
    detections: Annotated[
        Path | None,
        typer.Option(help="Evaluate these detections (COCO's results format), without a detector."),
    ] = None,
    score_thr: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Lowest score whose errors the report counts.", show_default="the best F1's"
        ),
    ] = None,
    iou_thr: Annotated[
        float, typer.Option(min=0.11, max=1, help="Overlap from which the report counts an object as found.")
    ] = 0.5,
    iou_type: Annotated[str, typer.Option(help="What the report compares: bbox or segm.")] = "bbox",
    worst: Annotated[
        int, typer.Option(min=0, help="Images with the most errors that the report shows.")
    ] = 20,
    precision: Precision = "auto",
) -> None:
    """Evaluate a detector on the validation set of an experiment."""
    from detcore_train.commands.evaluate import Analysing, run, run_on_detections
    from detcore_train.commands.testtime import TestTime

    analysing = Analysing(report, iou_type, iou_thr, score_thr, worst)
    if detections is not None:
        run_on_detections(
            checkpoint, file_and_overrides or [], detections=detections, out=out, analysing=analysing
        )
        return
    run(
        checkpoint,
        file_and_overrides or [],
        out=out,
        batch_size=batch_size,
        workers=workers,
        device=device,
        precision=precision,
        models=model or [],
        test_time=TestTime.of(
            tile=tile, tile_overlap=tile_overlap, tta=tta, scales=scales, flip=flip, merge=merge
        ),
        analysing=analysing,
    )


def predict(
    images: Annotated[Path, typer.Argument(metavar="IMAGE_OR_FOLDER", help="What to look at.")],
    model: Annotated[
        list[Path],
        typer.Option(help="A checkpoint, or a run (its best checkpoint); repeated for an ensemble."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for pictures and predictions.json.")],
    score_thr: Annotated[float, typer.Option(min=0, max=1, help="Lowest score that is shown.")] = 0.3,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per step.")] = 1,
    device: Device = "auto",
    tile: Tile = None,
    tile_overlap: TileOverlap = 0.2,
    tta: Tta = False,
    scales: Scales = None,
    flip: Flip = False,
    merge: Merge = "nms",
    max_pixels: Annotated[
        int, typer.Option(min=1, max=178_956_970, help="Larger images are refused, as they may be bombs.")
    ] = 100_000_000,
    precision: Precision = "auto",
) -> None:
    """Detect objects in images: pictures with boxes, and JSON."""
    from detcore_train.commands.predict import run
    from detcore_train.commands.testtime import TestTime

    run(
        images,
        models=model,
        out=out,
        score_thr=score_thr,
        batch_size=batch_size,
        device=device,
        precision=precision,
        max_pixels=max_pixels,
        test_time=TestTime.of(
            tile=tile, tile_overlap=tile_overlap, tta=tta, scales=scales, flip=flip, merge=merge
        ),
    )


def demo(
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for everything.", show_default="detcore-demo")
    ] = None,
    device: Device = "auto",
) -> None:
    """Train a small RetinaNet on generated pictures in about two minutes, and look at what it finds."""
    from detcore_train.commands.demo import run

    run(out=out, overrides=overrides or [], device=device)


def replay(
    batch: Annotated[
        Path, typer.Argument(metavar="BATCH", help="The folder bad-batch-STEP that stopped training wrote.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for pictures and replay.json.", show_default="BATCH/replay")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, nothing else.")] = False,
    device: Device = "cpu",
) -> None:
    """Compute the losses of a batch that stopped training again: where it arises, which images, which boxes.

    Exits with 1 if a loss or gradient is not finite again, with 0 if all are finite.
    """
    from detcore_train.commands.replay import run

    run(batch, out=out, as_json=as_json, device=device)


def inspect_data(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="An experiment (YAML, TOML, JSON) or a recipe's name.")
    ],
    overrides: Overrides = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything as JSON.")] = None,
    html_file: Annotated[
        Path | None, typer.Option("--html", help="Write one HTML page with pictures of what was found.")
    ] = None,
    small: Annotated[
        float, typer.Option(min=0, help="Objects whose shorter side is below so many pixels are small.")
    ] = 8.0,
    limit: Annotated[
        int | None,
        typer.Option(min=0, help="Images to open; annotations are all checked.", show_default="all"),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Threads that read images.")] = 2,
    examples: Annotated[int, typer.Option(min=1, help="Examples that are shown of each finding.")] = 5,
) -> None:
    """Look for mistakes in an experiment's data before it is trained on; exits with 1 if there are errors."""
    from detcore_data.inspection import Options

    from detcore_train.commands.inspect import run

    options = Options(small=small, limit=limit, workers=workers, examples=examples)
    run(file, overrides or [], json_file=json_file, html_file=html_file, options=options)
