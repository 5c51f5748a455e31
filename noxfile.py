"""Everything that is run on the project. ``nox -l`` lists the sessions; ``nox -s tests`` is what CI calls."""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from pathlib import Path

import nox

ROOT = Path(__file__).parent
DIST = ROOT / "dist"
PLUGINS = sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml"))
#: Tests run in a process per core, each with one thread; tests of one ``xdist_group`` run in the same process.
PARALLEL = ("-n", "auto", "--dist", "loadgroup")
#: Tests start many processes: without bytecode on the disk, each would compile torch again (seven seconds).
TEST_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}
PYTHON_SOURCES = ("detcore", "plugins", "tests", "examples", "docs", "bench", "conftest.py", "noxfile.py")

nox.needs_version = ">=2024.10"
nox.options.default_venv_backend = "uv"
nox.options.sessions = ["lint", "types", "tests"]


def project(folder: Path) -> dict:
    """The [project] table of a distribution."""
    return tomllib.loads((folder / "pyproject.toml").read_text())["project"]


def with_extras(folder: Path) -> str:
    """A distribution with all that is optional, as pip has it."""
    extras = ",".join(project(folder).get("optional-dependencies", {}))
    return f"{folder}[{extras}]" if extras else str(folder)


def first_party(folder: Path) -> list[Path]:
    """The folders of a plugin, the core, and every first-party distribution that it depends on."""
    by_name = {project(path)["name"]: path for path in [ROOT, *PLUGINS]}
    wanted, found = [project(folder)["name"]], {}
    while wanted:
        name = wanted.pop()
        if name in by_name and name not in found:
            found[name] = by_name[name]
            wanted += [re.match(r"[\w.-]+", line)[0] for line in project(by_name[name])["dependencies"]]
    return [*found.values()]


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Style: ruff's rules and format."""
    session.run("ruff", "check", *PYTHON_SOURCES)
    session.run("ruff", "format", "--check", *PYTHON_SOURCES)


@nox.session(venv_backend="none")
def types(session: nox.Session) -> None:
    """Types: mypy, strict, on the core and on every plugin."""
    session.run("mypy")
    for folder in PLUGINS:
        session.run("mypy", *map(str, folder.glob("detcore_*")))


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """Every test of the core, of the plugins and across packages, in the present environment."""
    session.run("pytest", *PARALLEL, *session.posargs, env=TEST_ENVIRONMENT)


@nox.session(venv_backend="none")
def fast(session: nox.Session) -> None:
    """The tests without the slow ones."""
    session.run("pytest", "-m", "not slow", *PARALLEL, *session.posargs, env=TEST_ENVIRONMENT)


@nox.session
@nox.parametrize("plugin", [nox.param(path, id=path.name) for path in PLUGINS])
def plugins(session: nox.Session, plugin: Path) -> None:
    """Each plugin's tests, with that plugin and its declared dependencies installed and nothing else of ours."""
    session.install("pytest", "hypothesis", *map(str, first_party(plugin)))
    session.run("pytest", str(plugin / "tests"), *session.posargs)


def build_wheels(session: nox.Session) -> None:
    """Builds a wheel of every distribution into dist/."""
    shutil.rmtree(DIST, ignore_errors=True)
    for folder in [ROOT, *PLUGINS]:
        session.run("uv", "build", "--wheel", "--out-dir", str(DIST), str(folder), external=True, silent=True)


@nox.session
def wheels(session: nox.Session) -> None:
    """Builds all wheels and composes a detector from them in an environment that has nothing else."""
    build_wheels(session)
    session.install("--find-links", str(DIST), "detcore-plugin-retina")
    with session.chdir(session.create_tmp()):
        session.run("detcore", "list")
        session.run("python", str(ROOT / "tests" / "wheels_check.py"), str(ROOT / "README.md"))


@nox.session
def minimum(session: nox.Session) -> None:
    """The fast tests with the lowest versions that the distributions declare for what they depend on."""
    session.install(
        "--resolution", "lowest-direct",
        "pytest>=8.3", "pytest-xdist>=3.6", "hypothesis>=6.100", *map(with_extras, [ROOT, *PLUGINS]),
    )  # fmt: skip
    session.run("pytest", "-m", "not slow", *PARALLEL, *session.posargs, env=TEST_ENVIRONMENT)


@nox.session(venv_backend="none")
def parity(session: nox.Session) -> None:
    """Writes docs/parity.md: how far every golden number of the reference is from ours."""
    session.run("python", "-m", "detcore_mmdet.parity", "docs/parity.md")


@nox.session(venv_backend="none")
def reliability(session: nox.Session) -> None:
    """Writes docs/reliability.md: the faults and bad inputs that tests try, how many, and what happens."""
    page = ("-p", "reliability", "--reliability-page", "docs/reliability.md")
    env = {**TEST_ENVIRONMENT, "PYTHONPATH": str(ROOT / "tests")}
    session.run("pytest", "-m", "reliability", *page, *PARALLEL, *session.posargs, env=env)


@nox.session
def docs(session: nox.Session) -> None:
    """Builds the documentation into site/, with the reference of all components; broken links are errors."""
    environment = {"UV_PROJECT_ENVIRONMENT": session.virtualenv.location}
    session.run_install(
        "uv", "sync", "--quiet", "--all-packages", "--group", "docs", env=environment, external=True
    )
    session.run("mkdocs", "build", "--strict", *session.posargs)


@nox.session(venv_backend="none")
def bench(session: nox.Session) -> None:
    """Measures speed and memory beside the peers, and writes docs/performance.md."""
    session.run("python", "-m", "bench", "--page", "docs/performance.md", *session.posargs)


@nox.session(venv_backend="none")
def known(session: nox.Session) -> None:
    """Writes detcore/known.py: which package brings a component's name."""
    names = {}
    for folder in PLUGINS:
        for group, points in project(folder).get("entry-points", {}).items():
            if group.startswith("detcore.") and group not in (
                "detcore.hooks",
                "detcore.recipes",
                "detcore.api",
            ):
                names |= dict.fromkeys(points, project(folder)["name"])
    path = ROOT / "detcore" / "known.py"
    head = path.read_text().partition("PACKAGE_OF")[0]
    rows = "".join(f'    "{name}": "{names[name]}",\n' for name in sorted(names))
    path.write_text(f"{head}PACKAGE_OF: dict[str, str] = {{\n{rows}}}\n")


if os.environ.get("CI"):
    nox.options.error_on_missing_interpreters = True
