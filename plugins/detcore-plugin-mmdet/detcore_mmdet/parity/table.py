"""The table in ``docs/parity.md``."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

from detcore.testing import goldens
from detcore_mmdet.errors import TranslationError
from detcore_mmdet.parity.detectors import compare_detector
from detcore_mmdet.parity.modules import compare_module
from detcore_mmdet.parity.result import Result
from detcore_mmdet.parity.switches import SWITCHES
from detcore_mmdet.parity.tasks import DECISIONS, FAMILIES, cases_of, compare_case

#: Columns, and the sections of a result that count in each.
COLUMNS = {
    "forward": ("features", "forward"),
    "loss": ("loss",),
    "gradient": ("gradient",),
    "prediction": ("prediction",),
}

_HEAD = """# Parity with MMDetection

Every golden number that MMDetection 3.3.0 gave (whole models, backbones and necks alone, single components)
against detcore, each configuration translated by `detcore-plugin-mmdet`, each weight renamed by its tables.
Written by `nox -s parity`; do not edit.

Numbers are the largest relative errors over all cases: relative to the largest number of the compared array
(gradients: of the tensor; indices and states: the share that differs). Float32 on a CPU. "not yet" means that
a component is not in detcore; the test turns itself on when it is.
"""
_DECISIONS = {
    "boxes in the file's pixels": "clipped to the file's size; the reference clips before it rescales",
    **DECISIONS,
}


def write_table(seed: int = 0, progress: Callable[[str], None] = lambda name: None) -> str:
    """The whole page.

    Args:
        seed: Which set of goldens.
        progress: Told the name of each golden before it is compared.
    """
    models = goldens.model_names(seed=seed)
    detectors = [name for name in models if goldens.model(name, seed)[0]["kind"] == "detector"]
    modules = [name for name in models if name not in detectors]
    parts = [
        _HEAD,
        *_section("Models", ((n, functools.partial(compare_detector, n, seed)) for n in detectors), progress),
        *_section(
            "Backbones, necks and other modules",
            ((n, functools.partial(compare_module, n, seed)) for n in modules),
            progress,
        ),
        *_tasks(progress),
        "\n## Decisions\n\nWhere the reference is not followed.\n\n| what | here |\n|---|---|\n",
        *(f"| {name} | {decision} |\n" for name, decision in _DECISIONS.items()),
        *switches(),
    ]
    return "".join(parts)


def switches() -> Iterator[str]:
    """The table of parameters whose default differs from the reference's behaviour."""
    yield "\nWhere the default here is another than the reference's; the bridge sets its value.\n\n"
    yield "| component | parameter | the reference's value | what is wrong with it |\n|---|---|---|---|\n"
    yield from (f"| {s.component} | {s.parameter} | `{s.reference!r}` | {s.why} |\n" for s in SWITCHES)


def _section(
    title: str, comparisons: Iterable[tuple[str, Callable[[], Result]]], progress: Callable[[str], None]
) -> Iterator[str]:
    rows, missing = [], []
    for name, compare in comparisons:
        progress(name)
        try:
            rows.append(_row(name, compare()))
        except TranslationError as error:
            missing.append((name, needed(error)))
    yield f"\n## {title}\n\n{_header('golden')}"
    yield from rows
    yield from (f"| {name} | not yet: {why} | | | |\n" for name, why in missing)


def _tasks(progress: Callable[[str], None]) -> Iterator[str]:
    yield f"\n## Components\n\n{_header('component (cases)')}"
    for family in FAMILIES:
        results: dict[str, list[Result | None]] = defaultdict(list)
        for case in cases_of(family):
            progress(case["id"])
            try:
                results[case["cls"]].append(compare_case(case))
            except TranslationError:
                results[case["cls"]].append(None)
        for cls, found in results.items():
            merged = Result()
            for one in filter(None, found):
                merged.merge(one)
            name = f"{cls} ({len(found)})"
            yield f"| {name} | not yet | | | |\n" if None in found else _row(name, merged)


def _header(first: str) -> str:
    return f"| {first} | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}\n"


def _row(name: str, result: Result) -> str:
    cells = []
    for sections in COLUMNS.values():
        found = [result.errors[section] for section in sections if section in result.errors]
        largest = max(found, default=-1.0)
        cells.append("" if largest < 0 else f"{largest:.0e}" if largest else "0")
    mark = f" (**{len(result.problems)} beyond tolerance**)" if result.problems else ""
    return f"| {name}{mark} | {' | '.join(cells)} |\n"


def needed(error: TranslationError) -> str:
    """The components and options that a translation lacks, in a few words."""
    names = [
        problem.message.split("'")[1]
        if problem.path.endswith("type") and "'" in problem.message
        else problem.path
        for problem in error.problems
    ]
    return ", ".join(dict.fromkeys(names))
