"""What the README shows is run."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from detcore import config
from detcore.errors import ConfigError

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


def blocks(language):
    return [text for found, text in BLOCKS if found == language]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text in blocks("yaml"):
        name = re.match(r"# (\S+)", text)[1]
        (tmp_path / name).write_text(text)
    return tmp_path


def test_python_blocks_in_order(folder):
    torch.manual_seed(0)
    scope = {}
    for text in blocks("python"):
        exec(compile(text, "README.md", "exec"), scope)
    assert scope["losses"].total.isfinite()
    assert len(scope["again"].class_map) == 3

    from detcore_retina import RetinaHead

    scope["model"].head = RetinaHead(
        in_features=scope["model"].neck.out_features,
        num_classes=3,
        assigner=scope["BestIoUAssigner"](threshold=0.3),
    )
    scope["model"].train()(scope["images"], scope["targets"]).total.backward()


def test_yaml_blocks_validate(folder):
    from detcore.serialize import as_spec

    for path in sorted(folder.glob("*.yaml")):
        as_spec(config.load(path).data)


def test_toml_block_parses():
    assert (
        "BestIoUAssigner" in tomllib.loads(blocks("toml")[0])["project"]["entry-points"]["detcore.assigners"]
    )


def commands(name):
    lines = [line.partition("  #")[0] for text in blocks("bash") for line in text.splitlines()]
    return [shlex.split(line) for line in lines if line.startswith(f"detcore {name}")]


def test_config_and_schema_commands(folder):
    from detcore.cli.app import app

    runner = CliRunner()
    for command in [*commands("config"), *commands("schema")]:
        result = runner.invoke(app, command[1:])
        assert result.exit_code == 0, result.output
    assert json.loads((folder / "schema.json").read_text())["title"] == "SingleStageDetector"


def test_the_error_is_as_shown(folder):
    from detcore.cli.app import app

    command, *output = blocks("console")[0].splitlines()
    result = CliRunner().invoke(app, shlex.split(command.removeprefix("$ "))[1:])
    assert isinstance(result.exception, ConfigError)
    shown = "\n".join(output).removeprefix("ConfigError: ")
    pattern = re.escape(shown).replace(re.escape("..."), ".*")
    assert re.fullmatch(pattern, str(result.exception))


def test_every_named_command_exists():
    import typer.main

    from detcore.cli.app import app, plugin_commands

    known = {*typer.main.get_group(app).commands, *plugin_commands()}
    assert {command[1] for command in commands("")} <= known


def test_every_listed_package_exists():
    table = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| `detcore")]
    named = {
        name for line in table for name in re.findall(r"`(detcore-plugin-\w+|-\w+)`", line.split("|")[1])
    }
    named = {f"detcore-plugin{name}" if name.startswith("-") else name for name in named}
    assert named == {path.name for path in (ROOT / "plugins").iterdir() if (path / "pyproject.toml").exists()}
