"""Discovery through entry points, with distributions as an installer leaves them."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from detcore import api, entries, registry
from detcore.errors import BrokenPluginError, InterfaceVersionError, UnknownComponentError

_spec = importlib.util.spec_from_file_location("distributions", Path(__file__).with_name("distributions.py"))
distributions = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(distributions)
ASSIGNER, install = distributions.ASSIGNER, distributions.install


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder on sys.path to install distributions into; the registry is read anew."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    registry.refresh()
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in sys.modules[name].__file__:
            del sys.modules[name]
    registry.refresh()


def good(site, distribution="acme-assigners", module="acme_good", name="AcmeAssigner", version="1.2"):
    install(
        site,
        distribution,
        {"detcore.assigners": {name: f"{module}:{name}"}},
        {module: ASSIGNER.format(name=name)},
        version,
    )
    registry.refresh()


def test_listing_imports_nothing(site):
    good(site)
    assert "AcmeAssigner" in registry.names("assigners")
    assert "assigners" in registry.kinds()
    entry = next(e for e in registry.entries("assigners") if e.name == "AcmeAssigner")
    assert (entry.distribution, entry.version, entry.target) == (
        "acme-assigners",
        "1.2",
        "acme_good:AcmeAssigner",
    )
    assert "acme_good" not in sys.modules


def test_resolving_imports_that_one(site):
    good(site)
    good(site, "other-assigners", "acme_other", "OtherAssigner")
    cls = registry.resolve("assigners", "AcmeAssigner")
    assert cls.__name__ == "AcmeAssigner"
    assert registry.resolve("assigners", "acme-assigners:AcmeAssigner") is cls
    assert registry.resolve("assigners", "Acme_Assigners:AcmeAssigner") is cls
    assert registry.resolve(None, "AcmeAssigner") is cls
    assert registry.current().entry_of(cls).qualified == "acme-assigners:AcmeAssigner"
    assert "acme_other" not in sys.modules


def test_same_name_twice(site):
    good(site)
    good(site, "zeta-assigners", "acme_zeta")
    with pytest.raises(
        UnknownComponentError,
        match=r"'AcmeAssigner' is registered by 2 distributions .*'acme-assigners:AcmeAssigner' or 'zeta-",
    ):
        registry.resolve("assigners", "AcmeAssigner")
    assert registry.resolve("assigners", "zeta-assigners:AcmeAssigner").__module__ == "acme_zeta"
    assert registry.names("assigners").count("AcmeAssigner") == 1


@pytest.mark.parametrize(
    ("source", "target", "cause"),
    [
        ("raise RuntimeError('boom')", "acme_bad:Bad", "RuntimeError: boom"),
        ("import not_installed_anywhere", "acme_bad:Bad", "No module named 'not_installed_anywhere'"),
        ("x = 1", "acme_bad:Bad", "has no attribute 'Bad'"),
        ("import sys; sys.exit(3)", "acme_bad:Bad", "SystemExit: 3"),
        ("Bad = 3", "acme_bad:Bad", "not being a component class but 3"),
        ("class Bad: pass", "acme_bad:Bad", "not being a component class"),
        (
            "from detcore.interfaces import Loss as Bad",
            "acme_bad:Bad",
            "kind 'losses', registered as 'assigners'",
        ),
        ("x = 1", "acme_gone:Bad", "No module named 'acme_gone'"),
        ("def f(:", "acme_bad:Bad", "SyntaxError"),
        ("class Bad: pass", "acme bad", "not being of the form module:Class"),
    ],
)
def test_a_broken_plugin_breaks_only_itself(site, source, target, cause):
    install(site, "bad-plugin", {"detcore.assigners": {"Bad": target}}, {"acme_bad": source})
    good(site)
    assert "Bad" in registry.names("assigners")
    with pytest.raises(BrokenPluginError, match=cause) as caught:
        registry.resolve("assigners", "Bad")
    assert f"'Bad' (assigners) of bad-plugin 1.2 cannot be used: its entry point '{target}'" in str(
        caught.value
    )
    assert "DETCORE_DISABLE_PLUGINS=bad-plugin" in str(caught.value)
    assert registry.resolve("assigners", "AcmeAssigner").__name__ == "AcmeAssigner"


class TestInterfaceVersions:
    """A plugin built for another version of an interface is refused, before it is imported where possible."""

    def plugin(self, site, declared, source=ASSIGNER.format(name="AcmeAssigner"), kind="assigners"):
        groups = {f"detcore.{kind}": {"AcmeAssigner": "acme_good:AcmeAssigner"}}
        if declared:
            groups["detcore.api"] = {kind: declared}
        install(site, "acme-assigners", groups, {"acme_good": source})
        registry.refresh()

    def refused(self, kind="assigners"):
        with pytest.raises(InterfaceVersionError) as caught:
            registry.resolve(kind, "AcmeAssigner")
        return str(caught.value)

    def test_declared_or_not_the_installed_version_loads(self, site):
        self.plugin(site, "v1")
        assert registry.resolve("assigners", "AcmeAssigner").api_version == 1

    def test_built_for_a_newer_one(self, site):
        self.plugin(site, "v9", source="raise RuntimeError('imported')")
        assert self.refused() == (
            "'AcmeAssigner' (assigners) of acme-assigners 1.2 cannot be used: it was built for version 9 of the "
            "interface of assigners, and the installed detcore has version 1. Update detcore, or install an older "
            "acme-assigners, or set DETCORE_DISABLE_PLUGINS=acme-assigners."
        )

    @pytest.mark.parametrize("declared", ["", "v1"])
    def test_built_for_an_older_one(self, site, monkeypatch, declared):
        monkeypatch.setitem(api.INTERFACE_VERSIONS, "assigners", 2)
        self.plugin(site, declared, source="from detcore.interfaces import GoneSince")
        assert self.refused() == (
            "'AcmeAssigner' (assigners) of acme-assigners 1.2 cannot be used: it was built for version 1 of the "
            "interface of assigners, and the installed detcore has version 2. Update acme-assigners (its author: "
            'change it to version 2, then declare assigners = "v2" under [project.entry-points."detcore.api"]), '
            "or install an older detcore, or set DETCORE_DISABLE_PLUGINS=acme-assigners."
        )

    def test_a_declaration_that_is_none(self, site):
        self.plugin(site, "2.0")
        assert "built for interface version '2.0', which is not of the form 'v1'" in self.refused()

    def test_of_an_interface_that_a_plugin_defines(self, site):
        source = (
            "from detcore.component import Component\n"
            "class Gadget(Component):\n kind = 'gadgets'\n api_version = 3\n"
            "class AcmeAssigner(Gadget): ...\n"
        )
        self.plugin(site, "v2", source, kind="gadgets")
        assert (
            "built for version 2 of the interface of gadgets, and the installed acme_good has version 3"
            in (self.refused("gadgets"))
        )

    def test_listing_shows_no_declarations(self, site):
        self.plugin(site, "v9")
        assert "api" not in registry.kinds()
        assert "AcmeAssigner" in registry.names("assigners")

    def test_the_core_has_one_table(self):
        from detcore import interfaces

        found = [getattr(interfaces, name) for name in interfaces.__all__]
        found = [cls for cls in found if isinstance(cls, type) and hasattr(cls, "kind")]
        assert {cls.kind: cls.api_version for cls in found} == api.INTERFACE_VERSIONS

    def test_asking(self):
        from detcore import api_version
        from detcore.interfaces import Loss

        assert api_version(Loss) == api_version("losses") == api.INTERFACE_VERSIONS["losses"]
        with pytest.raises(
            UnknownComponentError, match="no interface of kind 'loses'; did you mean 'losses'"
        ):
            api_version("loses")


def test_damaged_metadata_is_passed_over(site):
    good(site)
    info = site / "junk-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_bytes(b"\xff\xfe\x00garbage")
    (info / "entry_points.txt").write_text("[detcore.assigners\nnonsense")
    registry.refresh()
    assert "AcmeAssigner" in registry.names("assigners")
    (damaged,) = [found for found in entries.scan() if isinstance(found, entries.Damaged)]
    assert damaged.path == str(info)
    assert "UnicodeDecodeError" in damaged.cause or "ValueError" in damaged.cause


def test_metadata_without_name(site):
    good(site)
    install(site, "junk", {"detcore.assigners": {"Junk": "junk:Junk"}}, {})
    (site / "junk-1.2.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\n\nName: in the description\n"
    )
    registry.refresh()
    assert "AcmeAssigner" in registry.names("assigners")
    assert "Junk" not in registry.names("assigners")
    (damaged,) = [found for found in entries.scan() if isinstance(found, entries.Damaged)]
    assert damaged.cause == "ValueError: its METADATA states no name and version"


def test_refresh_sees_what_was_installed_since(site):
    assert "AcmeAssigner" not in registry.names("assigners")
    install(site, "acme-assigners", {"detcore.assigners": {"AcmeAssigner": "acme_good:AcmeAssigner"}}, {})
    assert "AcmeAssigner" not in registry.names("assigners")
    registry.refresh()
    assert "AcmeAssigner" in registry.names("assigners")


def test_switching_plugins_off(site, monkeypatch):
    good(site)
    monkeypatch.setenv(registry.DISABLE_VARIABLE, "Acme_assigners, something-else")
    assert "AcmeAssigner" not in registry.names("assigners")
    assert "SingleStageDetector" in registry.names("detectors")
    monkeypatch.setenv(registry.DISABLE_VARIABLE, "all")
    assert {e.distribution for e in registry.entries()} == {"detcore"}
    monkeypatch.delenv(registry.DISABLE_VARIABLE)
    assert "AcmeAssigner" in registry.names("assigners")


def test_the_first_on_the_path_counts(site, tmp_path_factory, monkeypatch):
    good(site)
    newer = tmp_path_factory.mktemp("newer")
    monkeypatch.syspath_prepend(str(newer))
    install(
        newer, "acme-assigners", {"detcore.assigners": {"AcmeAssigner": "acme_new:AcmeAssigner"}}, {}, "2.0"
    )
    registry.refresh()
    assert [e.version for e in registry.entries("assigners") if e.name == "AcmeAssigner"] == ["2.0"]


class TestMessages:
    entries = tuple(
        registry.Entry(kind, name, "some-plugin", "1", "m:X")
        for kind, name in [
            ("assigners", "MaxIoUAssigner"),
            ("assigners", "ATSSAssigner"),
            ("losses", "FocalLoss"),
        ]
    )

    def test_near_name(self):
        with pytest.raises(
            UnknownComponentError, match=r"did you mean 'MaxIoUAssigner'.; installed: ATSSAssigner, MaxIoU"
        ):
            registry.Registry(self.entries).find("MaxIouAssigner", "assigners")

    def test_of_another_kind(self):
        with pytest.raises(
            UnknownComponentError,
            match="'FocalLoss' is not an installed component of kind 'assigners'; it is one of kind losses",
        ):
            registry.Registry(self.entries).find("FocalLoss", "assigners")

    def test_package_to_install(self, monkeypatch):
        monkeypatch.setitem(registry.PACKAGE_OF, "RetinaHead", "detcore-plugin-retina")
        with pytest.raises(UnknownComponentError, match="install it with: pip install detcore-plugin-retina"):
            registry.Registry(self.entries).find("RetinaHead", "dense_heads")

    def test_nothing_installed(self):
        with pytest.raises(UnknownComponentError, match="nothing of that kind is installed"):
            registry.Registry(()).find("Whatever", "assigners")

    def test_of_several_kinds(self):
        both = (*self.entries, registry.Entry("metrics", "FocalLoss", "some-plugin", "1", "m:Y"))
        with pytest.raises(
            UnknownComponentError, match=r"names components of several kinds \(losses, metrics\)"
        ):
            registry.Registry(both).find("FocalLoss")


def test_use_is_undone():
    outside = registry.current()
    with registry.use(registry.Registry(())) as inside:
        assert registry.current() is inside
    assert registry.current() is outside


def test_known_packages_are_those_of_the_plugins():
    """The table that the error for a missing package reads is what the plugins' own files say."""
    import tomllib

    declared = {}
    for file in sorted((Path(__file__).parents[1] / "plugins").glob("*/pyproject.toml")):
        project = tomllib.loads(file.read_text())["project"]
        for group, points in project.get("entry-points", {}).items():
            if group.removeprefix("detcore.") not in registry.OTHER_GROUPS and group.startswith("detcore."):
                declared |= dict.fromkeys(points, project["name"])
    assert declared == registry.PACKAGE_OF


def test_two_hundred_plugins_are_listed_and_none_imported(tmp_path):
    """The bench measures how long it takes; a plugin of its that is imported raises."""
    import subprocess

    spec = importlib.util.spec_from_file_location(
        "list_plugins", Path(__file__).parents[1] / "bench" / "list_plugins.py"
    )
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    bench.make_plugins(tmp_path, 200)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        bench.COMMAND, env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.count(" Part") == 600
