"""Hook plugins, each loaded on its own."""

import importlib.util
import sys
from pathlib import Path

import pytest

from detcore import hooks

_spec = importlib.util.spec_from_file_location("distributions", Path(__file__).with_name("distributions.py"))
distributions = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(distributions)
install = distributions.install

GOOD = """\
from detcore.hooks import hookimpl

@hookimpl
def detcore_resolve_weights(address):
    return {"w": 1} if address.startswith("acme://") else None

@hookimpl
def detcore_configure(config):
    config["touched"] = True

@hookimpl
def detcore_add_commands(app):
    @app.command()
    def acme():
        "Says hello."
        print("hello from acme")
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("acme_hooks", "bad_hooks"):
        sys.modules.pop(name, None)
    hooks.refresh()


def test_hooks_are_called(site):
    install(site, "acme", {"detcore.hooks": {"acme": "acme_hooks"}}, {"acme_hooks": GOOD})
    hooks.refresh()
    manager = hooks.manager()
    assert manager.hook.detcore_resolve_weights(address="acme://x") == {"w": 1}
    assert manager.hook.detcore_resolve_weights(address="nobody://x") is None
    config = {}
    manager.hook.detcore_configure(config=config)
    assert config == {"touched": True}


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("raise ImportError('no cuda')", "ImportError: no cuda"),
        (
            "from detcore.hooks import hookimpl\n@hookimpl\ndef detcore_configure(config, nonsense): ...",
            "PluginValidationError",
        ),
    ],
)
def test_a_broken_hook_plugin_is_left_out(site, source, cause):
    install(site, "acme", {"detcore.hooks": {"acme": "acme_hooks"}}, {"acme_hooks": GOOD})
    install(site, "bad", {"detcore.hooks": {"bad": "bad_hooks"}}, {"bad_hooks": source})
    hooks.refresh()
    with pytest.warns(hooks.BrokenPluginWarning, match=f"of bad 1.2 cannot be used.*{cause}"):
        manager = hooks.manager()
    assert manager.hook.detcore_resolve_weights(address="acme://x") == {"w": 1}
    assert len(hooks.failures()) == 1


def test_a_broken_one_is_warned_of_once(site, recwarn):
    install(site, "bad", {"detcore.hooks": {"bad": "bad_hooks"}}, {"bad_hooks": "raise ImportError('no')"})
    hooks.refresh()
    for _ in range(3):
        hooks.manager()
    assert [warning.category for warning in recwarn] == [hooks.BrokenPluginWarning]
    hooks.refresh()
    with pytest.warns(hooks.BrokenPluginWarning):
        hooks.manager()
