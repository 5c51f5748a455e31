"""What comes to light while a model of torchvision is described."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from detcore.errors import Problem
from detcore_torchvision.errors import TorchvisionImportError


@dataclass
class Findings:
    """Problems and notes, by the path of the module in torchvision's model.

    Args:
        problems: What has no counterpart here.
        notes: What was decided, or differs in training.
    """

    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)

    def problem(self, path: str, message: str, remedy: str = "") -> None:
        """Adds what has no counterpart."""
        self.problems.append(Problem(path, message, remedy))

    def note(self, path: str, message: str) -> None:
        """Adds what was decided."""
        self.notes.append(Problem(path, message))

    def is_a(self, path: str, module: Any, *types: type) -> bool:
        """Whether a module is one of the known types; a problem where it is not."""
        if isinstance(module, types):
            return True
        known = " or ".join(kind.__name__ for kind in types)
        self.problem(path, f"is a {type(module).__name__}; only {known} is translated")
        return False

    def same(self, path: str, values: Iterable[Any], what: str) -> Any:
        """The one value that all of ``values`` are; a problem where they differ."""
        found = list(dict.fromkeys(values))
        if len(found) != 1:
            self.problem(path, f"{what} should be the same everywhere, got {found}")
        return found[0] if found else None

    def check(self, title: str) -> None:
        """Raises what was found.

        Raises:
            TorchvisionImportError: There are problems.
        """
        if self.problems:
            raise TorchvisionImportError(self.problems, title)
