"""A broken plugin breaks only itself: each kind of breakage as a real wheel in an environment of its own."""

import importlib.util
import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("isolation")
_spec = importlib.util.spec_from_file_location("environments", Path(__file__).with_name("environments.py"))
environments = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(environments)

ASSIGNER = '''\
from detcore.interfaces import Assigner
from detcore.structures import Assignment


class {name}(Assigner):
    """An assigner."""

    def assign(self, priors, targets, predictions=None, batch=None) -> Assignment:
        raise AssertionError
'''
HOOK = "from detcore.hooks import hookimpl\n@hookimpl\ndef {signature}:\n    {body}\n"
#: Distribution -> (source of its module, what the error says of the cause).
BROKEN = {
    "raises": ("raise RuntimeError('boom')", "failed with RuntimeError: boom"),
    "lacks": (
        "import not_installed_anywhere",
        "ModuleNotFoundError: No module named 'not_installed_anywhere'",
    ),
    "misspelt": ("def f(:", "SyntaxError: invalid syntax"),
    "leaves": ("raise SystemExit(3)", "SystemExit: 3"),
    "empty": ("x = 1", "has no attribute 'Empty'"),
    "wrong": (
        "from detcore.interfaces import Loss as Wrong",
        "being a component of kind 'losses', registered as 'assigners'",
    ),
    "newer": (ASSIGNER.format(name="Newer"), "it was built for version 2 of the interface of assigners"),
}
SLOW = "import time; time.sleep(1000)\n" + ASSIGNER.format(name="Slow")
LOUD = "import torch; torch.set_num_threads(1); torch.manual_seed(7); print('loud')\n" + ASSIGNER.format(
    name="Loud"
)
PROGRAM = """
import json, warnings
from detcore import hooks, registry
from detcore.errors import BrokenPluginError, UnknownComponentError
said = {}
for name in %r:
    try:
        said[name] = registry.resolve("assigners", name).__name__
    except (BrokenPluginError, UnknownComponentError) as error:
        said[name] = f"{type(error).__name__}: {error}"
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(3):
        manager = hooks.manager()
    said["warnings"] = [str(warning.message) for warning in caught]
config = {}
manager.hook.detcore_configure(config=config)
said["configured"] = config
print(json.dumps(said))
"""


def wheels(out):
    """One wheel per way to be broken, and good ones beside them."""
    made = []
    for name, (source, _) in BROKEN.items():
        groups = {"detcore.assigners": {name.title(): f"{name}:{name.title()}"}}
        if name == "newer":
            groups["detcore.api"] = {"assigners": "v2"}
        made.append(environments.make_wheel(out, name, groups, {name: source}))
    for name, source in (("slow", SLOW), ("loud", LOUD), ("good", ASSIGNER.format(name="Good"))):
        group = {"detcore.assigners": {name.title(): f"{name}:{name.title()}"}}
        made.append(environments.make_wheel(out, name, group, {name: source}))
    for name in ("first", "second"):
        group = {"detcore.assigners": {"Twice": f"{name}:Twice"}}
        made.append(environments.make_wheel(out, name, group, {name: ASSIGNER.format(name="Twice")}))
    hooks = {
        "bad_import": "raise SystemExit('no')",
        "bad_signature": HOOK.format(signature="detcore_built(model, more)", body="pass"),
        "bad_command": HOOK.format(
            signature="detcore_add_commands(app)", body="raise RuntimeError('no command')"
        ),
        "good_hook": HOOK.format(signature="detcore_configure(config)", body="config['good'] = True"),
        "good_command": HOOK.format(
            signature="detcore_add_commands(app)",
            body="@app.command('acme')\n    def acme():\n        'Says hello.'\n        print('hello from acme')",
        ),
    }
    for name, source in hooks.items():
        points = {"detcore.hooks": {name: name}}
        made.append(environments.make_wheel(out, name.replace("_", "-"), points, {name: source}))
    return made


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    folder = tmp_path_factory.mktemp("isolation")
    session = environments.shared_folder(tmp_path_factory)
    python = environments.make_environment(folder / "env", session, "detcore", *wheels(folder))
    # what no installer accepts, but a disk may hold
    (packages,) = (folder / "env").glob("lib/python*/site-packages")
    (packages / "junk-1.0.dist-info").mkdir()
    (packages / "junk-1.0.dist-info" / "METADATA").write_bytes(b"\xff\xfe")
    (packages / "junk-1.0.dist-info" / "entry_points.txt").write_text(
        "[detcore.assigners]\nJunk = junk:Junk\n"
    )
    return python


@pytest.fixture(scope="module")
def said(python, tmp_path_factory):
    names = [*(name.title() for name in BROKEN), "Good", "Twice", "first:Twice", "second:Twice"]
    done = environments.run(python, "-c", PROGRAM % names, cwd=tmp_path_factory.mktemp("cwd"))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.reliability(
    area="plugins",
    fault="an installed plugin that fails on import, lacks a dependency, ends the process, or is of another version",
    outcome="it alone cannot be used, and says why and how to switch it off",
)
@pytest.mark.parametrize("name", BROKEN)
def test_the_broken_one_says_why(said, name):
    message = said[name.title()]
    assert BROKEN[name][1] in message
    assert f"'{name.title()}' (assigners) of {name} 1.0 cannot be used" in message
    assert f"DETCORE_DISABLE_PLUGINS={name}" in message


def test_the_others_work(said):
    assert said["Good"] == "Good"
    assert said["first:Twice"] == said["second:Twice"] == "Twice"
    assert said["Twice"] == (
        "UnknownComponentError: 'Twice' is registered by 2 distributions (assigners); "
        "write 'first:Twice' or 'second:Twice'"
    )


def test_broken_hooks_are_left_out_and_warned_of_once(said):
    warned = "\n".join(said["warnings"])
    assert len(said["warnings"]) == 2
    assert "'bad_import' (hooks) of bad-import 1.0 cannot be used" in warned
    assert "SystemExit: no" in warned
    assert "PluginValidationError" in warned
    assert said["configured"] == {"good": True}


@pytest.mark.reliability(
    area="plugins",
    fault="listing with such plugins installed",
    outcome="they are listed, none is imported",
)
def test_listing_imports_none_of_them(python, tmp_path):
    done = environments.run(
        python, "-W", "error", "-m", "detcore", "list", "assigners", "--json", cwd=tmp_path
    )
    names = {row["name"] for row in json.loads(done.stdout)}
    assert {*(name.title() for name in BROKEN), "Slow", "Loud", "Good", "Twice"} <= names
    assert done.stderr == ""


def test_commands_of_the_others_are_added(python, tmp_path):
    done = environments.run(python, "-m", "detcore", "acme", cwd=tmp_path)
    assert done.stdout == "hello from acme\n", done.stderr
    assert "bad_command cannot add its commands: no command" in done.stderr


def test_doctor_reports_them_all(python, tmp_path):
    names = [*BROKEN, "slow", "loud", "good", "first", "bad-signature"]
    done = environments.run(
        python, "-m", "detcore", "doctor", "--json", "--timeout", "4", *names, cwd=tmp_path
    )
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    points = {plugin["distribution"]: plugin["entry_points"][0] for plugin in report["plugins"]}
    states = {name: point["state"] for name, point in points.items()}
    assert states == {
        **dict.fromkeys(BROKEN, "broken"),
        "newer": "api_mismatch",
        "slow": "broken",
        "loud": "ok",
        "good": "ok",
        "first": "duplicate",
        "bad-signature": "broken",
    }
    assert points["slow"]["cause"] == "its import did not end within 4 s"
    assert points["loud"]["remarks"][0] == "prints when it is imported: 'loud'"
    assert "torch's random state" in points["loud"]["remarks"][1]
    assert len(report["damaged"]) == 1


def test_one_can_be_switched_off(python, tmp_path):
    done = environments.run(
        python,
        "-m",
        "detcore",
        "list",
        "assigners",
        "--json",
        cwd=tmp_path,
        DETCORE_DISABLE_PLUGINS="second,raises",
    )
    rows = [(row["name"], row["distribution"]) for row in json.loads(done.stdout)]
    assert ("Twice", "first") in rows
    assert ("Twice", "second") not in rows
    assert "Raises" not in {name for name, _ in rows}
