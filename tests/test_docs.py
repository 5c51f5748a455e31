"""What the guides show is run."""

import importlib.util
import re
import shlex
import tomllib
import types
from pathlib import Path

import pytest
import torch

from detcore import config, hooks, interfaces, registry
from detcore.api import INTERFACE_VERSIONS
from detcore.serialize import as_spec
from detcore.testing import ConformanceError, run_check

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(page for page in (DOCS / "interfaces").glob("*.md") if page.stem != "index")
CLASSES = [getattr(interfaces, name) for name in interfaces.__all__]
INTERFACES = {cls.kind: cls for cls in CLASSES if "kind" in vars(cls)}


def blocks(page, language):
    return re.findall(
        rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


def run(page):
    torch.manual_seed(0)
    scope = {"__name__": "snippet"}
    for text in blocks(page, "python"):
        exec(compile(text, str(page), "exec"), scope)
    return scope


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_example_of_an_interface(page):
    run(page)


def test_each_interface_has_a_page_that_names_all_of_it():
    assert {*INTERFACES} == {*INTERFACE_VERSIONS}
    pages = {re.search(r"Kind `(\w+)`", page.read_text())[1]: page.read_text() for page in PAGES}
    assert {*pages} == {*INTERFACES}
    for kind, interface in INTERFACES.items():
        assert pages[kind].startswith(f"# {interface.__name__}\n")
        for method in interface.__abstractmethods__:
            assert f"`{method}" in pages[kind] or f" {method}(" in pages[kind] or method == "class_map", (
                kind,
                method,
            )
        for section in ("## Shapes", "## Invariants", "## Pitfalls", "## Example"):
            assert section in pages[kind]


def test_links_between_pages_lead_somewhere():
    for page in DOCS.rglob("*.md"):
        for link in re.findall(r"\]\(([^)#:\s]+\.md)[^)]*\)", page.read_text()):
            made_by_the_build = link == "components.md"
            assert made_by_the_build or (page.parent / link).exists(), f"{page}: {link}"


def test_the_page_of_components():
    spec = importlib.util.spec_from_file_location("component_reference", DOCS / "component_reference.py")
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    text = "\n".join(reference.lines())
    for entry in registry.entries():
        assert f"### {entry.name}\n" in text
    assert "| `num_classes` | `int; >= 1` | *its owner's* | K; supplied by" in text
    for link in re.findall(r"\]\((interfaces/\w+\.md)\)", text):
        assert (DOCS / link).exists(), link


def test_the_example_of_evaluation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    analysis = run(DOCS / "evaluation.md")["analysis"]
    assert analysis.error_counts["classification"] == analysis.confusion.sum() > 0
    assert analysis.gains["classification"] == pytest.approx(1.0)


def test_the_example_of_augmentation(tmp_path):
    run(DOCS / "augmentation.md")
    (text,) = blocks(DOCS / "augmentation.md", "yaml")
    (tmp_path / "data.yaml").write_text(text)
    transforms = config.load(tmp_path / "data.yaml").data["data"]["train"]["transforms"]
    assert [as_spec(one).type.__name__ for one in transforms] == [
        "Mosaic",
        "RandomAffine",
        "MixUp",
        "RandomFlip",
    ]


def test_every_page_is_in_the_menu():
    menu = re.findall(
        r"^ +- (?:[\w ]+: )?([\w/-]+\.md)$", (DOCS.parent / "mkdocs.yml").read_text(), re.MULTILINE
    )
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert {*menu} == pages | {"components.md"}


class TestWriteAPlugin:
    page = DOCS / "write-a-plugin.md"

    def test_its_class_works_and_fails_what_it_is_said_to_fail(self):
        assigner = run(self.page)["AcmeAssigner"]
        with pytest.raises(ConformanceError, match="not valid"):
            run_check(assigner.spec(), "assigner_leaves_invalid_priors_out")
        run_check(assigner.spec(), "assigner_ignores_padding")

    @pytest.mark.slow
    def test_memory(self):
        with pytest.raises(ConformanceError):
            run_check(run(self.page)["AcmeAssigner"].spec(), "assigner_memory_is_bounded")

    def test_yaml(self, tmp_path):
        from detcore.serialize import as_spec
        from detcore.testing import registered

        (tmp_path / "detector.yaml").write_text(blocks(self.page, "yaml")[0])
        data = config.load(tmp_path / "detector.yaml").data
        with registered(run(self.page)["AcmeAssigner"]):
            assert registry.resolve("assigners", "AcmeAssigner")
            as_spec(data)

    def test_toml(self):
        points = tomllib.loads(blocks(self.page, "toml")[0])["project"]["entry-points"]
        assert points["detcore.api"] == {"assigners": "v1"}


def test_every_command_exists():
    import typer.main

    from detcore.cli.app import app, plugin_commands

    known = {*typer.main.get_group(app).commands, *plugin_commands()}
    for page in DOCS.rglob("*.md"):
        for text in blocks(page, "bash"):
            for line in text.splitlines():
                words = shlex.split(line.partition("  #")[0])
                if words[:1] == ["detcore"]:
                    assert words[1] in known, f"{page}: {line}"


HOOKS = dict(
    re.findall(
        r"^## (detcore_\w+)\n.*?^```python\n(.*?)^```",
        (DOCS / "hooks.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )
)


class TestHooks:
    """Each example of docs/hooks.md, as a plugin."""

    @pytest.fixture
    def call(self, request):
        def with_plugin(name, **arguments):
            module = types.ModuleType("acme_hooks")
            exec(compile(HOOKS[name], "hooks.md", "exec"), vars(module))
            manager = hooks.empty_manager()
            manager.register(module)
            return getattr(manager.hook, name)(**arguments)

        return with_plugin

    def test_all_are_documented(self):
        assert {*HOOKS} == {name for name in vars(hooks.Hooks) if name.startswith("detcore_")}

    def test_commands(self, call, tmp_path):
        import typer
        from typer.testing import CliRunner

        app = typer.Typer()
        call("detcore_add_commands", app=app)
        (tmp_path / "a.yaml").write_text("x: 1\ny: 2\n")
        assert CliRunner().invoke(app, [str(tmp_path / "a.yaml")]).output == "2\n"

    def test_weights(self, call):
        assert call("detcore_resolve_weights", address="zeros://3")["weight"].tolist() == [0, 0, 0]
        assert call("detcore_resolve_weights", address="others://3") is None

    def test_adapting(self, call):
        weights = {"acme.stem": torch.ones(1), "counter": torch.ones(1)}
        adapted = call("detcore_adapt_weights", address="", weights=weights, detector=None)
        assert {*adapted.weights} == {"stem"}
        assert adapted.skipped == ("counter",)
        assert call("detcore_adapt_weights", address="", weights={"x": torch.ones(1)}, detector=None) is None

    def test_configure(self, call):
        data = {"data": {"batch_size": 16}}
        call("detcore_configure", config=data)
        assert data == {"data": {"batch_size": 2}}

    def test_built(self, call):
        model = torch.nn.ModuleDict({"stem": torch.nn.Linear(1, 1), "head": torch.nn.Linear(1, 1)})
        call("detcore_built", model=model)
        assert not model["stem"].weight.requires_grad
        assert model["head"].weight.requires_grad

    def test_examples(self, call):
        ((example,),) = call("detcore_conformance_examples")
        assert example.build().size_divisor == 64

    def test_checks(self, call):
        from detcore.detectors import ImagePreprocessor
        from detcore.testing import Subject

        ((check,),) = call("detcore_add_checks")
        assert check.applies_to(ImagePreprocessor)
        check.run(Subject(ImagePreprocessor.spec()), 0)
