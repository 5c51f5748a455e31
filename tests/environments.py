"""Bare environments, and wheels to install into them; for tests of packaging."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import IO

import pytest
from filelock import FileLock

ROOT = Path(__file__).parents[1]
PROJECTS = [ROOT, *sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml"))]


def uv(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs uv; skips where there is none. Asks the index only for what is not at hand already."""
    program = shutil.which("uv")
    if program is None:
        pytest.skip("uv is not on the path")
    environment = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    for where in ({"UV_OFFLINE": "1"}, {}):
        done = subprocess.run(
            [program, *map(str, arguments)],
            env=environment | where, cwd=cwd, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode == 0:
            return done
    if "hatchling" in done.stderr and "Because" in done.stderr:
        pytest.skip("hatchling cannot be had")
    raise AssertionError(done.stderr)


def build_wheel(project: Path, out: Path) -> Path:
    """The wheel of a project; skips where its build backend cannot be had."""
    uv("build", "--wheel", "--out-dir", out, project)
    name = tomllib.loads((project / "pyproject.toml").read_text())["project"]["name"]
    (wheel,) = out.glob(f"{name.replace('-', '_')}-[0-9]*.whl")
    return wheel


def first_party_wheels(session: Path) -> Path:
    """The folder of the wheels of the core and of every plugin, built once in a run of the tests.

    Args:
        session: A folder that all processes of the run share; see :func:`shared_folder`.
    """
    out = session / "wheels"
    with FileLock(session / "wheels.lock"):
        if not out.is_dir():
            for project in PROJECTS:
                uv("build", "--wheel", "--out-dir", session / "building", project)
            (session / "building").rename(out)
    return out


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """A temporary folder that is the same for all processes of a run of the tests."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def make_environment(folder: Path, session: Path, *requirements: str | Path) -> Path:
    """A bare environment with nothing but the requirements and what they depend on; returns its Python.

    Our own distributions come as wheels built from this checkout.
    """
    uv("venv", "--python", sys.executable, folder)
    python = folder / "bin" / "python"
    install(python, session, *requirements)
    return python


def install(python: Path, session: Path, *requirements: str | Path) -> None:
    """Installs requirements (names, or wheels by path) with what they depend on."""
    wheels = first_party_wheels(session)
    with FileLock(session / "install.lock"):
        uv("pip", "install", "--quiet", "--find-links", wheels, "--python", python, *requirements)


def make_wheel(
    out: Path, name: str, groups: dict[str, dict[str, str]], modules: dict[str, str], version: str = "1.0"
) -> Path:
    """A wheel with these modules and entry points ``{group: {entry: target}}``, made without a build backend."""
    stem = f"{name.replace('-', '_')}-{version}"
    sections = [
        f"[{group}]\n" + "".join(f"{entry} = {target}\n" for entry, target in points.items())
        for group, points in groups.items()
    ]
    files = {f"{module.replace('.', '/')}.py": source for module, source in modules.items()}
    info = f"{stem}.dist-info"
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files[f"{info}/WHEEL"] = (
        "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    files[f"{info}/entry_points.txt"] = "\n".join(sections)
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    wheel = out / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return wheel


def run(python: Path, *arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs Python in a folder."""
    return subprocess.run(
        [str(python), *arguments],
        cwd=cwd, env=_inherited() | environment, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip


def start(python: Path, *arguments: str, cwd: Path, stderr: IO[str]) -> subprocess.Popen[str]:
    """Starts Python in a folder, to be talked to by its input and output."""
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [str(python), *arguments],
        cwd=cwd,
        env=_inherited(),
        stdin=pipe,
        stdout=pipe,
        stderr=stderr,
        text=True,
    )


def _inherited() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
