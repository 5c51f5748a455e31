"""Writes a new plugin."""

from __future__ import annotations

from pathlib import Path

from detcore import __version__
from detcore.cli.scaffold.examples import tests_of
from detcore.cli.scaffold.plan import TEMPLATES, Plan, distributions_in
from detcore.errors import ConfigError


def write(plan: Plan, folder: Path) -> list[Path]:
    """Writes every file of a plugin.

    Args:
        plan: What to write.
        folder: Where; made if it is not there.

    Raises:
        ConfigError: There is something in the folder.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists and is not empty; choose another place with --out")
    texts = files_of(plan)
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def files_of(plan: Plan) -> dict[str, str]:
    """The files of a plugin by their paths."""
    tests = plan.filled(tests_of(plan.kind, _has_defaults(plan)))
    return {
        "pyproject.toml": _pyproject(plan, tests),
        "README.md": _readme(plan),
        ".gitignore": _template("gitignore.txt"),
        ".github/workflows/tests.yml": plan.filled(_template("tests.yml.txt")),
        f"{plan.package}/__init__.py": plan.filled(_template("init.py.txt")),
        f"{plan.package}/py.typed": "",
        f"{plan.package}/{plan.module}.py": plan.source,
        f"tests/test_{plan.module}.py": tests,
    }


def _has_defaults(plan: Plan) -> bool:
    """Whether the component can be made without arguments; templates can, variations only if what they vary can."""
    file = TEMPLATES / "components" / f"{plan.kind}.py.txt"
    if file.is_file():
        return True
    from detcore.cli.scaffold.plan import base_of
    from detcore.signature import signature_of

    parameters = signature_of(base_of(plan.kind)).parameters.values()
    return not any(p.required and p.wired is None for p in parameters)


def _pyproject(plan: Plan, tests: str) -> str:
    needed = _requirements(["detcore", *plan.dependencies])
    more = _requirements(["pytest", *distributions_in(tests, known=[plan.distribution, *plan.dependencies])])
    text = _template("pyproject.toml.txt").replace("TEST_DEPENDENCIES", more)
    return plan.filled(text.replace("DEPENDENCIES", needed).replace("API", str(plan.api)))


def _requirements(names: list[str]) -> str:
    ours = ".".join(__version__.split(".")[:2])
    bounds = {"pytest": "8.3", "pillow": "10"}
    return ", ".join(f'"{name}>={bounds.get(name, ours)}"' for name in names)


def _readme(plan: Plan) -> str:
    text = _template("README.md.txt")
    python = f"from {plan.package} import {plan.component}\n\n{plan.component}.spec()"
    return plan.filled(text.replace("USAGE_YAML", f"type: {plan.component}").replace("USAGE_PYTHON", python))


def _template(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")
