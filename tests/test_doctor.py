"""``detcore doctor`` reports everything and is brought down by nothing."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from detcore.cli.doctor import supervisor
from detcore.entries import Entry

pytestmark = pytest.mark.xdist_group("doctor")
_spec = importlib.util.spec_from_file_location("distributions", Path(__file__).with_name("distributions.py"))
distributions = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(distributions)
ASSIGNER, install = distributions.ASSIGNER, distributions.install

#: Distribution -> (source of its module, state, what the cause says).
BAD = {
    "raises": ("raise RuntimeError('boom')", "broken", "RuntimeError: boom (raises.py:1)"),
    "lacks": ("import not_installed_anywhere", "broken", "No module named 'not_installed_anywhere'"),
    "misspelt": ("def f(:", "broken", "SyntaxError: invalid syntax"),
    "leaves": ("import sys; sys.exit(3)", "broken", "SystemExit: 3"),
    "exits": ("import os; os._exit(0)", "broken", "it ended the process with exit code 0"),
    "segfaults": (
        "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        "broken",
        "it ended the process with signal SIGSEGV",
    ),
    "hangs": ("import time; time.sleep(1e6)", "broken", "its import did not end within 3 s"),
    "empty": ("x = 1", "broken", "has no attribute 'Empty'"),
    "wrong": (
        "from detcore.interfaces import Loss as Wrong",
        "broken",
        "being a component of kind 'losses', registered as 'assigners'",
    ),
    "abstract": (
        "from detcore.interfaces import Assigner\nclass Abstract(Assigner): pass",
        "broken",
        "being abstract: it does not define assign",
    ),
    "unresolved": (
        "from __future__ import annotations\nfrom detcore.interfaces import Assigner\n"
        "class Unresolved(Assigner):\n    def __init__(self, *, x: Gone = 1) -> None: ...\n"
        "    def assign(self, priors, targets, predictions=None, batch=None): ...",
        "broken",
        "name 'Gone' is not defined",
    ),
    "newer": (
        ASSIGNER.format(name="Newer"),
        "api_mismatch",
        "built for version 2 of the interface of assigners",
    ),
    "loud": (
        "print('hello'); import os, torch\ntorch.set_default_dtype(torch.float64); os.environ['LOUD'] = '1'\n"
        + ASSIGNER.format(name="Loud"),
        "ok",
        "",
    ),
    "first": (ASSIGNER.format(name="Twice"), "duplicate", "registered by second too"),
    "second": (ASSIGNER.format(name="Twice"), "duplicate", "registered by first too"),
    "switched-off": (
        "raise AssertionError('imported')",
        "disabled",
        "DETCORE_DISABLE_PLUGINS names switched-off",
    ),
}


def component_of(name):
    return "Twice" if name in ("first", "second") else name.title().replace("-", "")


def good_of(name):
    return f"Good{name.title().replace('-', '')}"


def install_all(folder):
    for name, (source, _, _) in BAD.items():
        module, component = name.replace("-", "_"), component_of(name)
        groups = {"detcore.assigners": {component: f"{module}:{component}", good_of(name): "fine:Fine"}}
        if name == "newer":
            groups["detcore.api"] = {"assigners": "v2"}
        install(folder, name, groups, {module: source})
    (folder / "fine.py").write_text(ASSIGNER.format(name="Fine"))
    install(
        folder,
        "listener",
        {"detcore.hooks": {"good": "good_hooks", "odd": "odd_hooks"}, "detcore.recipes": {"gone": "fine"}},
        {
            "good_hooks": "from detcore.hooks import hookimpl\n@hookimpl\ndef detcore_configure(config): ...",
            "odd_hooks": "from detcore.hooks import hookimpl\n@hookimpl\ndef detcore_built(model, more): ...",
        },
    )


def add_damaged_metadata(folder):
    (folder / "junk-1.0.dist-info").mkdir()
    (folder / "junk-1.0.dist-info" / "entry_points.txt").write_text("[detcore.assigners]\nX = junk:X\n")


def doctor(folder, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(folder), "DETCORE_DISABLE_PLUGINS": "switched-off"}
    code = "from detcore.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, "doctor", *arguments],
        capture_output=True, text=True, timeout=300, env=environment, cwd=folder, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    install_all(folder)
    return folder


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged")
    install_all(folder)
    add_damaged_metadata(folder)
    result = doctor(folder, *BAD, "listener", "--json", "--timeout", "3")
    assert result.returncode == 1, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def findings(report):
    return {
        (plugin["distribution"], point["name"]): point
        for plugin in report["plugins"]
        for point in plugin["entry_points"]
    }


@pytest.mark.parametrize("name", BAD)
def test_each_state_is_found(findings, name):
    finding = findings[name, component_of(name)]
    _, state, cause = BAD[name]
    assert finding["state"] == state
    assert cause in finding["cause"]
    assert bool(finding["remedy"]) == (state not in ("ok", "disabled"))


@pytest.mark.parametrize("name", [name for name in BAD if name not in ("newer", "switched-off")])
def test_the_other_entry_points_of_the_distribution_are_examined(findings, name):
    finding = findings[name, good_of(name)]
    assert finding["state"] == "ok"
    assert finding["remarks"][-1] == "the class is called Fine: the entry point should have its name"


def test_what_an_import_does_besides_is_told(findings):
    assert findings["loud", "Loud"]["remarks"] == [
        "prints when it is imported: 'hello'",
        "changes global state when it is imported: the environment, torch's default dtype",
    ]


def test_a_mismatch_names_the_remedy(findings):
    assert findings["newer", "Newer"]["remedy"].startswith("Update detcore, or install an older newer")


def test_hooks_and_recipes(findings):
    assert findings["listener", "good"]["state"] == "ok"
    assert findings["listener", "odd"]["state"] == "broken"
    assert "PluginValidationError" in findings["listener", "odd"]["cause"]
    assert findings["listener", "gone"]["cause"].startswith("recipe 'gone' of listener 1.2 is not in fine")


def test_environment_and_versions(report):
    assert report["environment"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert report["environment"]["disabled"] == "switched-off"
    assert report["environment"]["torch"]["version"].startswith(report["versions"]["torch"])
    assert report["versions"]["detcore"].startswith("0.")
    assert report["core"] == ""
    (damaged,) = report["damaged"]
    assert damaged["path"].endswith("junk-1.0.dist-info")


def test_problems_are_counted(report, findings):
    bad = [f for f in findings.values() if f["state"] in ("broken", "api_mismatch", "duplicate")]
    assert report["problems"] == len(bad) + len(report["damaged"])


def test_the_core_alone_is_fine_and_printed(site):
    result = doctor(site, "detcore", "-v")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "ok           detcore 0." in result.stdout
    assert "SingleStageDetector (detectors): ok" in result.stdout
    assert result.stdout.endswith("everything is fine\n")


def test_bad_ones_are_printed_with_cause_and_remedy(site):
    result = doctor(site, "raises", "second")
    assert result.returncode == 1
    assert (
        "    Raises (assigners): broken; RuntimeError: boom (raises.py:1); update or uninstall raises, or set "
        "DETCORE_DISABLE_PLUGINS=raises\n" in result.stdout
    )
    assert "    Twice (assigners): duplicate; registered by first too; write 'second:Twice'" in result.stdout
    assert result.stdout.endswith("2 problems\n")


def test_an_unknown_distribution(site):
    result = doctor(site, "raizes")
    assert result.returncode == 2
    assert (
        "'raizes' is not installed, or registers nothing for detcore; did you mean 'raises'?" in result.stderr
    )


def test_a_core_that_cannot_be_imported(site, tmp_path):
    (tmp_path / "jaxtyping.py").write_text("raise ImportError('no jaxtyping today')")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(site)])}
    code = "from detcore.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code, "doctor", "raises"],
        capture_output=True, text=True, timeout=120, env=environment, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert "detcore cannot be imported: ImportError: no jaxtyping today" in result.stdout
    assert "not checked  raises 1.2" in result.stdout


@pytest.mark.slow
def test_without_forks(site, tmp_path, monkeypatch):
    """As on the systems where a process cannot be forked: each distribution in a new one."""
    monkeypatch.setattr(supervisor, "_FORKS", False)
    monkeypatch.syspath_prepend(str(site))
    entries = [
        (number, Entry("assigners", name, "segfaults", "1.2", target))
        for number, (name, target) in enumerate([("Segfaults", "segfaults:Segfaults"), ("Fine", "fine:Fine")])
    ]
    results = supervisor.examine(entries, tmp_path, 60)
    assert [results[number]["state"] for number in (0, 1)] == ["broken", "ok"]
    assert results[0]["cause"] == "it ended the process with signal SIGSEGV"
