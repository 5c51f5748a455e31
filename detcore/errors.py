"""Every error that detcore raises on purpose. All derive from :class:`DetcoreError`.

The two-way inheritance (``ConfigError`` is a ``ValueError`` too) lets code that knows nothing of detcore
handle the errors with the builtin classes it already catches.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace


class DetcoreError(Exception):
    """Base of all errors raised by detcore and its first-party plugins."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a configuration.

    Args:
        path: Where, as dotted keys from the root (``head.assigner.pos_iou_thr``); empty for the root itself.
        message: What is wrong, with the offending value.
        remedy: What to do about it; empty where the message already says so.
        origin: Where the value was written (``file:line``); empty where no file is behind it.
    """

    path: str
    message: str
    remedy: str = ""
    origin: str = ""

    def below(self, prefix: str) -> Problem:
        """The same problem, seen from an owner that holds the component under ``prefix``."""
        return replace(self, path=join_path(prefix, self.path))

    def __str__(self) -> str:
        """``path (origin): message; remedy`` on one line."""
        where = f"{self.path} ({self.origin})" if self.path and self.origin else self.path or self.origin
        text = f"{where}: {self.message}" if where else self.message
        return f"{text}; {self.remedy}" if self.remedy else text


class ConfigError(DetcoreError, ValueError):
    """A configuration, or the arguments of a constructor, cannot be used.

    Args:
        problems: Everything that is wrong, not only the first thing found.
        title: What was being configured: a component's name or a file.
    """

    def __init__(self, problems: Sequence[Problem] | str, title: str = "") -> None:
        if isinstance(problems, str):
            problems = (Problem("", problems),)
        self.problems: tuple[Problem, ...] = tuple(dict.fromkeys(problems))
        self.title = title
        super().__init__(self.problems, title)

    def below(self, prefix: str) -> ConfigError:
        """The same error with every path put below ``prefix``."""
        return ConfigError([problem.below(prefix) for problem in self.problems], self.title)

    def __str__(self) -> str:
        """One line for one problem, a list for several."""
        where = f"{self.title}: " if self.title else ""
        if len(self.problems) == 1:
            return f"{where}{self.problems[0]}"
        lines = "".join(f"\n  - {problem}" for problem in self.problems)
        return f"{where}{len(self.problems)} problems{lines}"


class ComponentDefinitionError(DetcoreError, TypeError):
    """A component class is written in a way that its parameters cannot be validated (for plugin authors)."""


class UnknownComponentError(DetcoreError, LookupError):
    """No installed distribution registers a component of that kind and name, or several do."""


class BrokenPluginError(DetcoreError, ImportError):
    """An entry point cannot be loaded; names its distribution, version, target and the cause."""


class InterfaceVersionError(BrokenPluginError):
    """An entry point was built for another version of its interface than the one that is installed."""


class CheckpointError(DetcoreError, ValueError):
    """A checkpoint is missing, damaged, or does not fit the model."""


class DataError(DetcoreError, ValueError):
    """A dataset, an annotation or an image cannot be used; names the file and the record."""


def join_path(*parts: str | int) -> str:
    """Joins the pieces of a configuration path with dots; empty pieces vanish."""
    return ".".join(str(part) for part in parts if str(part) != "")


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """``did you mean 'x'?`` for the known name nearest to ``word``, or an empty string."""
    names = list(known)
    by_lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(str(word).lower(), by_lower, n=1, cutoff=0.6)
    return f"did you mean {by_lower[near[0]]!r}?" if near else ""
