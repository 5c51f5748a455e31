"""What a component says of itself, and ``detcore show``."""

import json
from typing import Annotated, Literal

import pytest
from pydantic import Field
from typer.testing import CliRunner

from detcore.cli.app import app
from detcore.component import Part, wired
from detcore.describe import describe, type_text
from detcore.errors import UnknownComponentError
from detcore.interfaces import Assigner, Loss
from detcore.structures import FeatureSpec

Fraction = Annotated[float, Field(ge=0, le=1)]


class Documented(Assigner):
    """A prior to whatever is near.

    The long story,
    on two lines.

    Source: Someone et al., A Paper (arXiv:1234.56789); Others (arXiv 2001.00001).

    Args:
        thr: Where it starts,
            and where it ends.
        mode: How.

    Raises:
        ConfigError: Never.
    """

    def __init__(
        self,
        *,
        thr: Fraction | tuple[Fraction, Fraction],
        mode: Literal["a", "b"] = "a",
        names: Annotated[tuple[str, ...], Field(min_length=1)] | None = None,
        loss: Part[Loss] | None = None,
        in_features: tuple[FeatureSpec, ...] = wired(),
        width: Annotated[int, Field(gt=0, multiple_of=8)] = wired(16),
    ) -> None:
        """Nothing."""

    def assign(self, priors, targets, predictions=None, batch=None): ...


@pytest.fixture
def description():
    return describe(Documented)


def test_documentation(description):
    assert description.summary == "A prior to whatever is near."
    assert description.text.startswith("The long story,\non two lines.")
    assert "Args" not in description.text
    assert "Never" not in description.text
    assert description.papers == ("Someone et al., A Paper (arXiv:1234.56789); Others (arXiv 2001.00001).",)
    assert description.links == ("https://arxiv.org/abs/1234.56789", "https://arxiv.org/abs/2001.00001")
    assert (description.interface, description.kind, description.api_version) == ("Assigner", "assigners", 1)
    assert description.distribution == ""
    assert description.file.startswith(__file__)


def test_parameters(description):
    rows = {p.name: (p.type, p.default, p.constraint, p.wired, p.required) for p in description.parameters}
    assert rows == {
        "thr": ("float | tuple[float, float]", "", ">= 0, <= 1", False, True),
        "mode": ("'a' | 'b'", "'a'", "", False, False),
        "names": ("tuple[str, ...] | None", "None", "at least 1 long", False, False),
        "loss": ("Loss | None", "None", "", False, False),
        "in_features": ("tuple[FeatureSpec, ...]", "", "", True, False),
        "width": ("int", "16", "> 0, multiple of 8", True, False),
    }
    assert description.parameters[0].doc == "Where it starts, and where it ends."
    assert description.parameters[2].doc == ""


def test_usage(description):
    assert description.yaml == "type: Documented\nthr:  # float | tuple[float, float]"
    assert description.python == f"from {__name__} import Documented\n\nDocumented.spec(thr=...)"


def test_usage_of_what_a_package_exports():
    from detcore import SingleStageDetector

    described = describe(SingleStageDetector)
    assert described.python.startswith("from detcore import SingleStageDetector\n\nSingleStageDetector.spec(")
    assert described.distribution.startswith("detcore 0.")


def test_types_as_text():
    assert type_text(None) == "None"
    assert type_text(dict[str, Annotated[int, Field(ge=0)]]) == "dict[str, int]"


def test_every_installed_component_can_be_described():
    from detcore import registry
    from detcore.errors import BrokenPluginError

    for entry in registry.entries():
        try:
            component = registry.current().load(entry)
        except BrokenPluginError:  # a broken one has a test of its own
            continue
        described = describe(component)
        assert described.summary.endswith((".", "!", ":")), entry
        compile(described.python, "usage", "exec")


def invoke(*arguments):
    result = CliRunner().invoke(app, ["show", *arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_show(toys):
    lines = invoke("ToyAssigner").splitlines()
    assert lines[0] == "ToyAssigner: Every prior to the first ground truth."
    assert "  registered by  toys 1.0" in lines
    assert "  interface      Assigner (kind assigners, version 1)" in lines
    assert "  pos_thr: float; >= 0, <= 1; default 0.5" in lines
    assert "  type: ToyAssigner" in lines
    assert "  ToyAssigner()" in lines


def test_show_tells_what_an_owner_supplies(toys):
    out = invoke("ToyHead", "--kind", "dense_heads")
    assert "  num_classes: int; supplied by its owner" in out
    assert "  assigner: Assigner; default ToyAssigner.spec()" in out
    assert "  ToyHead.spec()" in out


def test_show_as_json(toys):
    data = json.loads(invoke("toys:ToyNeck", "--json"))
    assert data["name"] == "ToyNeck"
    assert data["parameters"][1]["constraint"] == ">= 1"


def test_show_an_unknown_one(toys):
    with pytest.raises(UnknownComponentError, match="did you mean 'ToyAssigner'"):
        invoke("ToyAsigner")
