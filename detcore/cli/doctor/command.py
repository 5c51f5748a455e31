"""``detcore doctor`` as a command."""

from __future__ import annotations

from collections.abc import Iterator

import typer

from detcore.cli.doctor.report import BAD, Finding, Report

STATES = {
    "ok": "ok",
    "broken": "broken",
    "api_mismatch": "API mismatch",
    "duplicate": "duplicate",
    "disabled": "switched off",
    "not_checked": "not checked",
}


def doctor(
    distributions: list[str] = typer.Argument(None, help="Only these distributions; all by default."),
    as_json: bool = typer.Option(False, "--json", help="Print one object with everything."),
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Show the entry points that are ok, too."),
    timeout: float = typer.Option(60.0, min=0.1, help="Seconds that the import of one entry point may take."),
) -> None:
    """Checks everything installed: versions, and whether each entry point can be used.

    Plugins are imported in processes of their own, so that none can bring this one down. The exit code is 1
    where something is wrong.
    """
    from detcore.cli import listing
    from detcore.cli.doctor.report import diagnose

    report = diagnose(distributions or (), timeout=timeout)
    if as_json:
        listing.print_json(report.to_dict())
    else:
        for line in _lines(report, verbose):
            typer.echo(line)
    if report.problems:
        raise typer.Exit(1)


def _lines(report: Report, verbose: bool) -> Iterator[str]:
    environment = report.environment
    yield f"Python {environment['python']} ({environment['executable']}) on {environment['platform']}"
    yield ", ".join(f"{name} {version or 'MISSING'}" for name, version in report.versions.items())
    if torch := environment["torch"]:
        yield f"CUDA {torch['cuda'] or 'not built in'}, devices: {', '.join(torch['devices']) or 'CPU only'}"
    yield ""
    if report.core:
        yield typer.style(report.core, bold=True)
    for damaged in report.damaged:
        yield f"{_state('broken')} {damaged.path}"
        yield f"    metadata cannot be read: {damaged.cause}; reinstall it, or delete that folder"
    for (name, version), findings in report.by_distribution().items():
        yield from _plugin_lines(f"{name} {version}", findings, verbose)
    yield ""
    count = report.problems
    yield f"{count} problem{'s' * (count != 1)}" if count else "everything is fine"


def _plugin_lines(title: str, findings: list[Finding], verbose: bool) -> Iterator[str]:
    states = dict.fromkeys(finding.state for finding in findings)
    worst = next((state for state in (*BAD, *states) if state in states), "ok")
    counted = f"{len(findings)} entry point{'s' * (len(findings) != 1)}"
    yield f"{_state(worst)} {title} ({counted})"
    for finding in findings:
        if finding.state in BAD or verbose:
            yield f"    {finding.entry.name} ({finding.entry.kind}): {STATES[finding.state]}{_reason(finding)}"
        yield from (f"    {finding.entry.name} ({finding.entry.kind}) {remark}" for remark in finding.remarks)


def _reason(finding: Finding) -> str:
    return "".join(f"; {text}" for text in (finding.cause, finding.remedy) if text)


def _state(state: str) -> str:
    colour = {"ok": "green"}.get(state, "red" if state in BAD else "yellow")
    return typer.style(f"{STATES[state]:<12}", fg=colour)
