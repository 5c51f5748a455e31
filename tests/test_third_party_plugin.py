"""The example of a plugin from outside: as a wheel, in an environment of its own, with its own tests."""

import importlib.util
import json
import shutil
import tomllib
from pathlib import Path

import pytest

from detcore import registry

_spec = importlib.util.spec_from_file_location("environments", Path(__file__).with_name("environments.py"))
environments = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(environments)

PROJECT = Path(__file__).parents[1] / "examples" / "third_party_plugin"
NAME = "detcore-plugin-tiny-objects"
USE = """
import sys
from detcore import build, config
print(type(build(config.load(sys.argv[1]).data).head.assigner).__name__)
"""


def test_it_brings_what_nobody_else_does():
    points = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["entry-points"]
    assert points["detcore.api"] == {"assigners": "v1", "losses": "v1"}
    for group in ("assigners", "losses"):
        (name,) = points[f"detcore.{group}"]
        assert name not in registry.names(group)


@pytest.mark.slow
def test_it_builds_installs_and_passes(tmp_path, tmp_path_factory):
    project = tmp_path / NAME
    shutil.copytree(
        PROJECT, project, ignore=shutil.ignore_patterns(".*cache", "__pycache__", "dist", ".venv")
    )
    wheel = environments.build_wheel(project, tmp_path / "dist")
    group = tomllib.loads((project / "pyproject.toml").read_text())["dependency-groups"]["dev"]
    session = environments.shared_folder(tmp_path_factory)
    python = environments.make_environment(tmp_path / "env", session, wheel, *group)
    shutil.rmtree(project / "tiny_objects")  # what is tested is the wheel

    listed = environments.run(python, "-m", "detcore", "list", "assigners", "--json", cwd=tmp_path)
    assert "RankingAssigner" in {row["name"] for row in json.loads(listed.stdout)}
    examined = environments.run(python, "-m", "detcore", "doctor", NAME, cwd=tmp_path)
    assert examined.returncode == 0, examined.stdout
    readme = (project / "README.md").read_text()
    (tmp_path / "detector.yaml").write_text(readme.partition("```yaml\n")[2].partition("```")[0])
    built = environments.run(python, "-c", USE, "detector.yaml", cwd=tmp_path)
    assert built.stdout == "RankingAssigner\n", built.stderr
    tested = environments.run(
        python, "-m", "pytest", "-q", "tests", "--detcore-conformance", NAME, cwd=project
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr
