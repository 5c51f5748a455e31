"""docs/reliability.md tells of the faults that tests try, and of no others."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reliability.md"
_spec = importlib.util.spec_from_file_location("reliability", Path(__file__).with_name("reliability.py"))
reliability = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = reliability  # dataclasses look their module up
_spec.loader.exec_module(reliability)


@pytest.fixture(scope="module")
def sources():
    """The text of every file of tests, and the faults in reliability markers that are written out there."""
    texts, faults = [], set()
    for path in [*ROOT.glob("tests/**/test_*.py"), *ROOT.glob("plugins/*/tests/**/test_*.py")]:
        source = path.read_text(encoding="utf-8")
        if "mark.reliability(" not in source or path == Path(__file__):
            continue
        texts.append(source)
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.reliability":
                words = {word.arg: word.value for word in node.keywords}
                assert words.keys() == {"area", "fault", "outcome"}, path
                assert ast.literal_eval(words["area"]) in reliability.AREAS, path
                if isinstance(words["fault"], ast.Constant):
                    faults.add(words["fault"].value)
    return "".join(texts), faults


def test_the_page_is_up_to_date(sources):
    """Where this fails: ``nox -s reliability``."""
    texts, faults = sources
    page = PAGE.read_text(encoding="utf-8")
    rows = {line.split(" | ")[0].removeprefix("| ") for line in page.splitlines() if line.startswith("| ")}
    rows -= {"fault or input"}
    assert faults <= rows
    # a long text may be written over several lines: how it begins is looked for
    assert [row for row in rows - faults if row[:16] not in texts] == []
    assert "**failed" not in page


TESTS = """
import pytest
from hypothesis import given, settings, strategies as st

def case(fault):
    return pytest.mark.reliability(area="data", fault=fault, outcome="an error")

@case("good")
@pytest.mark.parametrize("number", [1, 2])
def test_good(number): pass

@case("several")
def test_several(record_property): record_property("tried", 20)

@case("generated")
@settings(max_examples=30, database=None)
@given(st.integers())
def test_generated(number): pass

@case("skipped")
def test_skipped(): pytest.skip("no folder")

@case("bad")
def test_bad(): assert False

def test_other(): pass
"""


@pytest.mark.parametrize("parallel", [(), ("-n", "2")], ids=["one process", "two processes"])
def test_what_is_written(parallel, tmp_path):
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    reliability: x\n")
    options = ["-q", "-p", "reliability", "-m", "reliability", "-p", "no:detcore", *parallel]
    subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--reliability-page", str(tmp_path / "page.md")],
        cwd=tmp_path, env={"PYTHONPATH": str(Path(__file__).parent), "PATH": ""}, check=False, capture_output=True,
    )  # fmt: skip
    page = (tmp_path / "page.md").read_text()
    assert "| good | 2 | an error |" in page
    assert "| several | 20 | an error |" in page
    assert "| generated | 30 | an error |" in page
    assert "| skipped | 0 | an error (1 not tried here: no folder) |" in page
    assert "| bad | 0 | **failed (1):** an error |" in page
    assert "5 faults, 52 inputs in all." in page
    assert "## Data" in page
