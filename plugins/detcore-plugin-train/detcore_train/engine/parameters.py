"""A run's note of which parameters are trained, and how."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from rich.console import Console

from detcore_train.optimizers.groups import group_table

PARAMETERS = "parameters.json"


class ParameterLog(Callback):
    """Writes the optimizer's groups into the run's folder, and says how many there are. First process only.

    Args:
        folder: The run's folder.
        console: Where to say it.
    """

    def __init__(self, folder: Path, console: Console) -> None:
        self.folder, self.console = folder, console

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Writes the groups."""
        if not trainer.is_global_zero:
            return
        table = group_table(trainer.optimizers[0], pl_module.model)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / PARAMETERS).write_text(json.dumps(table, indent=1), encoding="utf-8")
        trained = sum(row["values"] for row in table if row["lr"])
        whole = sum(row["values"] for row in table)
        groups = len(trainer.optimizers[0].param_groups)
        self.console.print(
            f"training {trained / 1e6:.2f} of {whole / 1e6:.2f} million parameters in {groups} "
            f"group{'s'[: groups != 1]}; see {PARAMETERS}",
            soft_wrap=True,
            highlight=False,
        )
