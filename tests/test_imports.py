"""What importing and listing must not do. Each runs in a fresh interpreter."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest


def run(code, *arguments):
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


CHECK = """
import sys
heavy = sorted({name.split('.')[0] for name in sys.modules} & {
    'torch', 'torchvision', 'numpy', 'lightning', 'pycocotools', 'yaml'})
plugins = sorted(name for name in sys.modules if name.startswith('detcore_'))
print('|', heavy, plugins)
"""


def test_import_is_light():
    assert run("import detcore; detcore.__version__; dir(detcore)" + CHECK).split("|")[1].strip() == "[] []"


LISTINGS = {
    "quick": "import sys; sys.argv = ['detcore', 'list', '--json']; from detcore.cli import main; main()",
    "typer": "import sys; from detcore.cli.app import app; app(['list', '--json'], standalone_mode=False)",
}


@pytest.mark.parametrize("code", LISTINGS.values(), ids=LISTINGS)
def test_list_imports_neither_torch_nor_a_plugin(code):
    out = run(code + CHECK)
    listing, _, loaded = out.rpartition("|")
    assert loaded.strip() == "[] []"
    rows = json.loads(listing)
    assert {"kind", "name", "distribution", "version", "target"} == set(rows[0])
    assert any(row["name"] == "SingleStageDetector" and row["kind"] == "detectors" for row in rows)


@pytest.mark.parametrize(
    "command", [["list"], ["list", "detectors"], ["list", "--json", "losses"], ["recipes"]]
)
def test_listing_needs_neither_typer_nor_pydantic_nor_rich(command):
    code = f"import sys; sys.argv = ['detcore', *{command}]; from detcore.cli import main; main()"
    check = "print('|', sorted({'typer', 'pydantic', 'rich', 'click'} & set(sys.modules)))"
    assert run(f"{code}\n{check}").rpartition("|")[2].strip() == "[]"


@pytest.mark.parametrize(
    "command",
    [["list"], ["list", "detectors"], ["list", "--json", "detectors"], ["recipes"], ["recipes", "--json"]],
)
def test_the_quick_way_prints_what_the_application_prints(command, capsys):
    from typer.testing import CliRunner

    from detcore.cli import listing
    from detcore.cli.app import app

    assert listing.quick(command)
    assert capsys.readouterr().out == CliRunner().invoke(app, command).output


@pytest.mark.parametrize(
    "command", [[], ["list", "--help"], ["list", "a", "b"], ["recipes", "x"], ["list", "--jsn"], ["schema"]]
)
def test_all_else_is_left_to_the_application(command, capsys, monkeypatch):
    from detcore.cli import listing

    assert not listing.quick(command)
    monkeypatch.setenv("_DETCORE_COMPLETE", "complete_bash")
    assert not listing.quick(["list"])
    assert capsys.readouterr().out == ""


def test_a_closed_pipe_is_no_error():
    code = "import sys; sys.argv = ['detcore', 'list']; from detcore.cli import main; main()"
    command = f'{sys.executable} -c "{code}" | head -n 1'
    result = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert "Error" not in result.stderr


def test_every_public_name_resolves():
    run("import detcore\nfor name in detcore.__all__: getattr(detcore, name)")


def test_unknown_attribute():
    import detcore

    with pytest.raises(AttributeError, match="module 'detcore' has no attribute 'biuld'"):
        _ = detcore.biuld


def test_no_sockets_on_import():
    run(
        "import socket\n"
        "def refuse(*a, **k): raise AssertionError('network')\n"
        "socket.socket.connect = refuse; socket.create_connection = refuse; socket.getaddrinfo = refuse\n"
        "import detcore\nfor name in detcore.__all__: getattr(detcore, name)"
    )


def test_the_environment_of_the_tests_has_every_plugin():
    root = Path(__file__).parents[1]
    data = tomllib.loads((root / "pyproject.toml").read_text())
    listed = {
        re.match(r"[\w-]+", item)[0] for item in data["dependency-groups"]["dev"] if isinstance(item, str)
    }
    plugins = {path.parent.name for path in root.glob("plugins/*/pyproject.toml")}
    assert plugins <= listed
    assert plugins <= set(data["tool"]["uv"]["sources"])
