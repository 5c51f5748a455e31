"""Recipes: found through metadata, and what bare names mean in them."""

import importlib.util
import sys
from pathlib import Path

import pytest

from detcore import config, registry
from detcore.errors import ConfigError

_spec = importlib.util.spec_from_file_location("distributions", Path(__file__).with_name("distributions.py"))
distributions = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(distributions)
COMPONENT = "detcore.assigners"


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Three distributions with a component of the same name; ``acme`` has a recipe and requires ``base``."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("acme", "base", "other"):
        groups = {COMPONENT: {"Shared": f"{name}_code:Shared", f"Own{name.title()}": f"{name}_code:Own"}}
        if name != "acme":
            groups[COMPONENT]["Lower"] = f"{name}_code:Lower"
        else:
            groups["detcore.recipes"] = {
                "acme_recipe": "acme_package.recipes",
                "lost": "acme_package.recipes",
            }
        distributions.install(tmp_path, name, groups, {})
    metadata = tmp_path / "acme-1.2.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text() + "Requires-Dist: base>=1\n")
    folder = tmp_path / "acme_package" / "recipes"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise AssertionError('imported')")
    (folder / "acme_recipe.yaml").write_text("extends: _base.yaml\nb: {type: Lower}\nc: {thr: 0.5}\n")
    (folder / "_base.yaml").write_text(
        "a: {type: Shared}\nb: {type: OwnOther}\nc: {type: Shared, thr: 0.1}\n"
    )
    importlib.invalidate_caches()
    registry.refresh()
    yield tmp_path
    monkeypatch.undo()
    registry.refresh()
    sys.modules.pop("acme_package", None)


def test_a_recipe_is_found_without_importing_its_package(site):
    assert "acme_recipe" in config.recipes()
    config.load("acme_recipe")
    assert "acme_package" not in sys.modules


def test_bare_names_mean_its_own_distribution_then_those_it_requires(site):
    data = config.load("acme_recipe").data
    assert data["b"]["type"] == "base:Lower"
    assert data["a"]["type"] == "acme:Shared"  # written in the file that the recipe extends
    assert data["c"] == {"type": "acme:Shared", "thr": 0.5}


def test_a_file_that_extends_a_recipe_keeps_its_own_bare_names(site, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: acme_recipe\nd: {type: Shared}\na: {thr: 0.3}\n")
    loaded = config.load(mine)
    assert loaded.data["d"] == {"type": "Shared"}
    assert loaded.data["a"] == {"type": "acme:Shared", "thr": 0.3}
    assert loaded.origin("a.thr").endswith("mine.yaml:3")
    assert loaded.origin("c.thr").endswith("acme_recipe.yaml:3")


def test_a_recipe_that_its_distribution_lacks(site):
    with pytest.raises(ConfigError, match=r"recipe 'lost' of acme 1\.2 is not in acme_package\.recipes"):
        config.load("lost")


def test_a_misspelt_recipe(site):
    with pytest.raises(
        ConfigError, match=r"neither a file .* nor an installed recipe; did you mean 'acme_recipe'"
    ):
        config.load("acme_recip")
