"""What importing and listing must not do. Each runs in a fresh interpreter."""

import json
import subprocess
import sys

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


def test_list_imports_neither_torch_nor_a_plugin():
    out = run(
        "import sys; from detcore.cli.app import app; app(['list', '--json'], standalone_mode=False)" + CHECK
    )
    listing, _, loaded = out.rpartition("|")
    assert loaded.strip() == "[] []"
    rows = json.loads(listing)
    assert {"kind", "name", "distribution", "version", "target"} == set(rows[0])
    assert any(row["name"] == "SingleStageDetector" and row["kind"] == "detectors" for row in rows)


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
