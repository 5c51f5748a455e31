"""Virtual environments that see what is installed here, and wheels to install into them; for tests of packaging."""

from __future__ import annotations

import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


def make_environment(folder: Path) -> Path:
    """An environment of its own above the present one: what is installed into it is seen beside what is here.

    Returns its Python. Torch is not installed anew, which would be gigabytes per test.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    lines = [f"import site; site.addsitedir({path!r})\n" for path in site.getsitepackages()]
    (packages / "_below.pth").write_text("".join(lines))
    return folder / "bin" / "python"


def uv(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs uv; skips where there is none."""
    program = shutil.which("uv")
    if program is None:
        pytest.skip("uv is not on the path")
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False)


def build_wheel(project: Path, out: Path) -> Path:
    """The wheel of a project; skips where its build backend cannot be had."""
    for offline in (["--offline"], []):
        built = uv("build", "--wheel", *offline, "--out-dir", out, project)
        if built.returncode == 0:
            (wheel,) = out.glob(f"{project.name.replace('-', '_')}-*.whl")
            return wheel
    if "hatchling" in built.stderr and "Because" in built.stderr:
        pytest.skip("hatchling cannot be had")
    raise AssertionError(built.stderr)


def install(python: Path, *wheels: Path) -> None:
    """Installs wheels without what they depend on, which is there."""
    done = uv("pip", "install", "--quiet", "--offline", "--no-deps", "--python", python, *wheels)
    assert done.returncode == 0, done.stderr


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
    import os

    inherited = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        [str(python), *arguments],
        cwd=cwd, env={**inherited, **environment}, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
