"""Everything that ``detcore doctor`` finds out, as data."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import importlib_metadata

from detcore.entries import (
    CORE_DISTRIBUTION,
    DISABLE_VARIABLE,
    Damaged,
    Entry,
    is_disabled,
    normalise,
    scan,
)
from detcore.errors import UnknownComponentError, did_you_mean

#: States in which an entry point cannot be used as it is.
BAD = ("broken", "api_mismatch", "duplicate")


@dataclass(frozen=True)
class Finding:
    """One entry point.

    Args:
        entry: The entry point.
        state: "ok", "broken", "api_mismatch", "duplicate", "disabled" or "not_checked".
        cause: Why it is not ok.
        remedy: What to do about it.
        seconds: How long its import took, on top of torch's; None where it did not end.
        remarks: What else was noticed; none of it makes the entry point unusable.
    """

    entry: Entry
    state: str
    cause: str = ""
    remedy: str = ""
    seconds: float | None = None
    remarks: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        entry = {field: getattr(self.entry, field) for field in ("kind", "name", "target", "api")}
        rest = {field: getattr(self, field) for field in ("state", "cause", "remedy", "seconds")}
        return {**entry, **rest, "remarks": list(self.remarks)}


@dataclass(frozen=True)
class Report:
    """Everything that was found out.

    Args:
        environment: Python and the machine.
        versions: Of detcore and of what it needs; None where that is not installed.
        core: Why detcore itself cannot be imported; empty where it can.
        damaged: Distributions whose metadata cannot be read.
        findings: One per entry point, sorted by distribution.
    """

    environment: dict[str, Any]
    versions: dict[str, str | None]
    core: str
    damaged: tuple[Damaged, ...]
    findings: tuple[Finding, ...]

    @property
    def problems(self) -> int:
        """How many things are not as they should be; what is switched off is none."""
        missing = sum(version is None for version in self.versions.values())
        bad = sum(finding.state in BAD for finding in self.findings)
        return bool(self.core) + len(self.damaged) + missing + bad

    def by_distribution(self) -> dict[tuple[str, str], list[Finding]]:
        """The findings of each (distribution, version)."""
        groups: dict[tuple[str, str], list[Finding]] = {}
        for finding in self.findings:
            groups.setdefault((finding.entry.distribution, finding.entry.version), []).append(finding)
        return groups

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "problems": self.problems,
            "environment": self.environment,
            "versions": self.versions,
            "core": self.core,
            "damaged": [vars(damaged) for damaged in self.damaged],
            "plugins": [
                {"distribution": name, "version": version, "entry_points": [f.to_dict() for f in findings]}
                for (name, version), findings in self.by_distribution().items()
            ],
        }


def diagnose(names: Sequence[str] = (), *, timeout: float = 60.0) -> Report:
    """Looks at everything installed, importing plugins only in processes of their own.

    Args:
        names: Distributions to look at; all where empty.
        timeout: Seconds that one entry point's import may take.

    Raises:
        UnknownComponentError: One of ``names`` registers nothing for detcore.
    """
    found = list(scan())
    entries = _chosen([item for item in found if isinstance(item, Entry)], names)
    core, torch, results = _examine(
        [entry for entry in entries if not is_disabled(entry.distribution)], timeout
    )
    findings = [_finding(entry, results.get(entry), found, core) for entry in entries]
    return Report(
        environment=_environment(torch),
        versions=_versions(),
        core=core,
        damaged=tuple(dict.fromkeys(item for item in found if isinstance(item, Damaged))),
        findings=tuple(findings),
    )


def _chosen(entries: list[Entry], names: Sequence[str]) -> list[Entry]:
    known = {normalise(entry.distribution): entry.distribution for entry in entries}
    for name in names:
        if normalise(name) not in known:
            near = did_you_mean(normalise(name), known) or f"installed: {', '.join(sorted(known))}"
            raise UnknownComponentError(
                f"{name!r} is not installed, or registers nothing for detcore; {near}"
            )
    wanted = {normalise(name) for name in names} or set(known)
    chosen = [entry for entry in entries if normalise(entry.distribution) in wanted]
    return sorted(chosen, key=lambda e: (normalise(e.distribution), e.kind, e.name))


def _examine(entries: list[Entry], timeout: float) -> tuple[str, dict[str, Any], dict[Entry, dict[str, Any]]]:
    """What is wrong with the core, what torch says of the machine, and how each entry went."""
    numbered = list(enumerate(entries))
    distributions = dict.fromkeys(entry.distribution for entry in entries)
    path = [folder or os.getcwd() for folder in sys.path]
    request = {
        "path": path,
        "timeout": timeout,
        "distributions": [
            [(number, vars(entry)) for number, entry in numbered if entry.distribution == name]
            for name in distributions
        ],
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "request").write_text(json.dumps(request), encoding="utf-8")
        # -I would hide what is on the path; no warning of a plugin is to be taken for its output
        command = [sys.executable, "-W", "ignore", "-m", "detcore.cli.doctor.supervisor"]
        command += [str(folder / "request"), str(folder / "answer")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if not (folder / "answer").exists():
            lines = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
            return f"detcore cannot be imported: {lines[-1]}", {}, {}
        answer = json.loads((folder / "answer").read_text(encoding="utf-8"))
    results = {int(number): result for number, result in answer["results"].items()}
    return "", answer["torch"], {entry: results[number] for number, entry in numbered if number in results}


def _finding(entry: Entry, result: dict[str, Any] | None, found: Iterable[Any], core: str) -> Finding:
    if is_disabled(entry.distribution):
        return Finding(entry, "disabled", f"{DISABLE_VARIABLE} names {entry.distribution}")
    if result is None:
        return Finding(entry, "not_checked", core)
    state, cause, remedy = result["state"], result["cause"], ""
    if state == "broken":
        remedy = f"update or uninstall {entry.distribution}, or set {DISABLE_VARIABLE}={entry.distribution}"
    if state == "api_mismatch":
        cause, _, remedy = cause.partition(" cannot be used: ")[2].partition(". ")
    others = [
        other.distribution
        for other in found
        if isinstance(other, Entry)
        and (other.kind, other.name) == (entry.kind, entry.name)
        and other.distribution != entry.distribution
        and not is_disabled(other.distribution)
    ]
    if state == "ok" and others and entry.kind != "hooks":
        state, cause = "duplicate", f"registered by {' and '.join(sorted(others))} too"
        remedy = f"write {entry.qualified!r} for this one, or uninstall one of them"
    return Finding(entry, state, cause, remedy, result["seconds"], tuple(result["remarks"]))


def _environment(torch: dict[str, Any]) -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "torch": torch,
        "disabled": os.environ.get(DISABLE_VARIABLE, ""),
    }


def _versions() -> dict[str, str | None]:
    """Installed versions of the core and what it requires."""
    lines = importlib_metadata.requires(CORE_DISTRIBUTION) or []
    required = [re.match(r"[\w.-]+", line) for line in lines if "extra ==" not in line]
    names = [CORE_DISTRIBUTION, *sorted(Counter(found.group() for found in required if found))]
    return {name: _version(name) for name in names}


def _version(name: str) -> str | None:
    try:
        return importlib_metadata.version(name)
    except importlib_metadata.PackageNotFoundError:
        return None
