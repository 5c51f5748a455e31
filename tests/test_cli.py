"""The core's commands."""

import json
import subprocess
import sys

import pytest
import typer
import typer.main
from typer.testing import CliRunner

import detcore.cli.app as cli_app
from detcore.cli.app import app
from detcore.config import to_yaml
from detcore.errors import ConfigError, UnknownComponentError
from detcore.hooks import BrokenPluginWarning

runner = CliRunner()


def invoke(*arguments):
    result = runner.invoke(app, list(arguments))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_list_names_everything(toys):
    result = invoke("list")
    assert result.exit_code == 0
    assert "SingleStageDetector" in result.output
    assert "ToyAssigner" in result.output


def test_list_one_kind(toys):
    rows = json.loads(invoke("list", "necks", "--json").output)
    assert {"kind": "necks", "name": "ToyNeck", "distribution": "toys", "version": "1.0"}.items() <= next(
        row for row in rows if row["name"] == "ToyNeck"
    ).items()
    assert {row["kind"] for row in rows} == {"necks"}


def test_list_unknown_kind(toys):
    with pytest.raises(
        UnknownComponentError, match="no component of kind 'neck' is installed; did you mean 'necks'"
    ):
        invoke("list", "neck")


def test_config_show_tells_origins(toys, toy_config, tmp_path):
    path = tmp_path / "model.yaml"
    path.write_text(to_yaml(toy_config))
    lines = invoke("config", "show", str(path), "head.assigner.pos_thr=0.7").output.splitlines()
    found = {line.split("#")[0].strip(): line.rpartition("#")[2].strip() for line in lines}
    assert found["pos_thr: 0.7"] == "command line"
    assert found["neg_thr: 0.4"] == "default"
    assert found["channels: 5"] == f"{path}:5"
    assert found["type: toys:ToyBackbone"] == f"{path}:4"


def test_config_show_is_yaml_that_builds(toys, toy_config, tmp_path):
    from detcore.config import load
    from detcore.serialize import build, dump

    path = tmp_path / "model.yaml"
    toy_config["head"]["losses"] = [{"type": "ToyLoss"}, {"type": "ToyLoss", "loss_weight": 2}]
    path.write_text(to_yaml(toy_config))
    shown = tmp_path / "shown.yaml"
    shown.write_text(invoke("config", "show", str(path)).output)
    assert dump(build(load(shown).data)) == dump(build(toy_config))


def test_config_check(toys, toy_config, tmp_path):
    path = tmp_path / "model.yaml"
    path.write_text(to_yaml(toy_config))
    assert invoke("config", "check", str(path)).output.endswith("ok\n")
    with pytest.raises(
        ConfigError,
        match=r"model.yaml: head.asigner \(command line\): unknown parameter 'asigner'; did you mean 'assigner'",
    ):
        invoke("config", "check", str(path), "head.asigner=1")


def test_schema(toys):
    schema = json.loads(invoke("schema", "SingleStageDetector").output)
    head = schema["$defs"]["toys.ToyHead"]
    assert head["additionalProperties"] is False
    assert head["properties"]["assigner"]["$ref"] == "#/$defs/Assigner"
    assert {"$ref": "#/$defs/toys.ToyAssigner"} in schema["$defs"]["Assigner"]["oneOf"]
    assert schema["$defs"]["toys.ToyAssigner"]["properties"]["pos_thr"]["maximum"] == 1
    assert schema["$defs"]["toys.ToyAssigner"]["properties"]["pos_thr"]["default"] == 0.5
    assert "backbone" in schema["properties"]


def test_errors_have_no_traceback(tmp_path):
    code = "import sys; sys.argv = ['detcore', 'config', 'check', 'gone.yaml']; from detcore.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert result.returncode == 2
    assert "ConfigError: gone.yaml: no such file" in result.stderr
    assert "Traceback" not in result.stderr


def test_version():
    assert invoke("--version").output.startswith("detcore 0.")


def _commands(*names):
    app, group = typer.Typer(), typer.Typer()
    group.callback()(lambda: None)
    for name in names:
        group.command(name)(lambda: None)
    app.callback()(lambda: None)
    app.add_typer(group, name="inspect")
    return typer.main.get_group(app).commands


def test_groups_of_several_plugins_become_one():
    commands = {}
    cli_app._add(commands, _commands("data"), "one")
    cli_app._add(commands, _commands("model"), "two")
    assert set(commands["inspect"].commands) == {"data", "model"}


def test_a_command_that_is_there_already_stays():
    commands = {}
    cli_app._add(commands, _commands("data"), "one")
    first = commands["inspect"].commands["data"]
    with pytest.warns(
        BrokenPluginWarning, match="two adds the command 'data', which another plugin has added"
    ):
        cli_app._add(commands, _commands("data"), "two")
    assert commands["inspect"].commands["data"] is first
