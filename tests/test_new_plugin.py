"""``detcore new-plugin``: what it writes is complete, builds, installs, and passes its own tests."""

import ast
import importlib.util
import json
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.testing import CliRunner

from detcore import registry
from detcore.api import INTERFACE_VERSIONS
from detcore.cli.app import app
from detcore.cli.scaffold import examples
from detcore.cli.scaffold.files import write
from detcore.cli.scaffold.plan import TEMPLATES, find_kind, plan
from detcore.errors import ConfigError, UnknownComponentError

_spec = importlib.util.spec_from_file_location("environments", Path(__file__).with_name("environments.py"))
environments = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(environments)

KINDS = sorted({*INTERFACE_VERSIONS, *registry.kinds()})
#: Kinds that start from a registered component.
VARIATIONS = {"detectors", "roi_heads"}


def topic_of(kind):
    return f"made-{kind.replace('_', '-')}"


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_complete(kind, tmp_path):
    made = plan(topic_of(kind), kind)
    names = {path.relative_to(tmp_path).as_posix() for path in write(made, tmp_path)}
    assert {"pyproject.toml", "README.md", ".github/workflows/tests.yml", f"{made.package}/py.typed"} <= names
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text())["project"]
    target = f"{made.package}.{made.module}:{made.component}"
    assert project["entry-points"][f"detcore.{kind}"] == {made.component: target}
    assert project["entry-points"]["detcore.api"] == {kind: f"v{made.api}"}
    assert project["dependencies"][0].startswith("detcore>=0.")
    for path in tmp_path.rglob("*.py"):
        compile(path.read_text(), path.name, "exec")
    for path in filter(Path.is_file, tmp_path.rglob("*")):
        text = path.read_text()
        for left in (
            "MyComponent",
            "my_component",
            "my_package",
            "my-distribution",
            "my_kind",
            "BASE_",
            "DEPENDENCIES",
        ):
            assert left not in text, path


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_in_style(kind, tmp_path):
    ruff = Path(sys.executable).with_name("ruff")
    if not ruff.exists():
        pytest.skip("ruff is not installed")
    write(plan("ab", kind), tmp_path)
    for arguments in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
        done = subprocess.run([ruff, *arguments, tmp_path], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_kinds_with_a_template_have_a_test_of_the_component_at_work():
    with_template = {
        path.name.removesuffix(".py.txt") for path in (TEMPLATES / "components").glob("[!_]*.py.txt")
    }
    assert {*INTERFACE_VERSIONS} - VARIATIONS <= with_template
    assert with_template <= {*examples._RETINA, *examples._FASTER, *examples._OTHER}


def test_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["new-plugin", "tiny-things", "--kind", "bbox-coder"])
    assert result.exit_code == 0, result.output
    assert "TinyThingsBBoxCoder is a working component of kind bbox_coders" in result.output
    source = tmp_path / "detcore-plugin-tiny-things" / "detcore_tiny_things" / "tiny_things_bbox_coder.py"
    assert "class TinyThingsBBoxCoder(BBoxCoder):" in source.read_text()


def test_other_names(tmp_path):
    made = plan("detcore-plugin-acme", "losses", "BestLoss")
    assert (made.distribution, made.component, made.module) == (
        "detcore-plugin-acme",
        "BestLoss",
        "best_loss",
    )
    assert plan("acme-assigner", "assigner").component == "AcmeAssigner"
    assert plan("soft-nms", "postprocess").component == "SoftNmsPostprocess"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("9lives", "assigner"), "'9lives' cannot name a plugin; use letters, digits and dashes"),
        (("a b", "assigner"), "'a b' cannot name a plugin"),
        (("acme", "assigner", "best"), "'best' cannot name a class; use CamelCase"),
        (("testing.nothing!", "assigner"), "cannot name a plugin"),
        (("retina", "assigner"), "a package detcore_retina is installed already; choose another name"),
    ],
)
def test_names_that_cannot_be_used(arguments, message):
    if arguments[0] == "retina" and importlib.util.find_spec("detcore_retina") is None:
        pytest.skip("needs an installed plugin")
    with pytest.raises(ConfigError, match=message):
        plan(*arguments)


def test_kinds_by_other_names():
    assert find_kind("assigner") == find_kind("Assigners") == "assigners"
    assert find_kind("loss") == "losses"
    assert find_kind("prior-generator") == "prior_generators"
    with pytest.raises(UnknownComponentError, match="there is no kind 'asigner'; did you mean 'assigners'"):
        find_kind("asigner")


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ConfigError, match="exists and is not empty; choose another place with --out"):
        write(plan("acme", "assigner"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


#: Packages that the core is sure to bring.
WITH_CORE = {"torch", "torchvision", "pydantic", "jaxtyping", "yaml"}


def distributions_imported(folder, own):
    """The distributions that the Python files below a folder import from, but for Python and their own."""
    packages = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                packages |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                packages.add(node.module.partition(".")[0])
    packages -= {*sys.stdlib_module_names, *WITH_CORE, own}
    ours = {name for name in packages if name.startswith("detcore")}
    others = {canonicalize_name(metadata.packages_distributions()[name][0]) for name in packages - ours}
    return others | {name.replace("detcore_", "detcore-plugin-") for name in ours}


@pytest.mark.parametrize("kind", KINDS)
def test_it_declares_what_it_imports(kind, tmp_path):
    made = plan(topic_of(kind), kind)
    write(made, tmp_path)
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text())
    declared = {Requirement(line).name for line in project["project"]["dependencies"]}
    assert distributions_imported(tmp_path / made.package, made.package) <= declared
    declared |= {Requirement(line).name for line in project["dependency-groups"]["dev"]}
    assert distributions_imported(tmp_path / "tests", made.package) <= declared


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    return environments.shared_folder(tmp_path_factory)


@pytest.fixture(scope="module")
def environment(session):
    """A bare environment, one for all kinds and processes: importing torch for the first time takes long."""
    folder = session / "new-plugin"
    with environments.FileLock(session / "new-plugin.lock"):
        if not folder.exists():
            environments.make_environment(folder, session, "detcore", "pytest")
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def run_pytest(environment, tmp_path_factory):
    """``run_pytest(folder, *arguments)``: exit code and output of the environment's pytest, in a process of its own.

    All are forked from one that has imported torch.
    """
    folder = tmp_path_factory.mktemp("pytest")
    log = folder / "warm.txt"

    def run(where, *arguments):
        output = folder / f"{where.name}.txt"
        process.stdin.write(json.dumps([*map(str, (where, output)), *arguments]) + "\n")
        process.stdin.flush()
        code = process.stdout.readline()
        assert code, log.read_text()
        return int(code), output.read_text()

    with (
        log.open("w") as errors,
        environments.start(
            environment, str(Path(__file__).with_name("warm_pytest.py")), cwd=folder, stderr=errors
        ) as process,
    ):
        yield run
        process.stdin.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_it_builds_installs_and_passes_its_own_tests(kind, tmp_path, environment, session, run_pytest):
    """Its tests run the conformance kit and, where the kind fits one, train a detector by a step."""
    made = plan(topic_of(kind), kind)
    folder = tmp_path / made.distribution
    write(made, folder)
    wheel = environments.build_wheel(folder, tmp_path / "dist")
    group = tomllib.loads((folder / "pyproject.toml").read_text())["dependency-groups"]["dev"]
    environments.install(environment, session, wheel, *group)
    shutil.rmtree(folder / made.package)  # what is tested is the wheel
    listed = environments.run(environment, "-m", "detcore", "list", kind, "--json", cwd=tmp_path)
    assert made.component in {row["name"] for row in json.loads(listed.stdout)}, listed.stderr
    code, output = run_pytest(folder, "-q", "-m", "not slow")
    assert code == 0, output
    assert " passed" in output
