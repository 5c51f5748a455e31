"""Components that are wrong on purpose: each fails the check made for it, and none of an unrelated behaviour."""

import importlib.util
import sys
from pathlib import Path

import pytest

from detcore.testing import ConformanceError, NotApplicableError, all_checks, checks_of
from detcore.testing.subject import as_subject

FOLDER = Path(__file__).parent / "mutants"


def _module(path):
    name = f"conformance_mutants_{path.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        sys.modules[name] = importlib.util.module_from_spec(spec)  # so that its classes can be pickled
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


MODULES = [_module(path) for path in sorted(FOLDER.glob("*.py"))]
MUTANTS = [mutant for module in MODULES for mutant in module.MUTANTS]
SOUND = [subject for module in MODULES for subject in module.SOUND]
HEAVY = ("dense_heads", "roi_heads", "detectors")


def parameter(component, *values):
    subject = as_subject(component)
    marks = [pytest.mark.slow] if subject.type.kind in HEAVY else []
    return pytest.param(subject, *values, marks=marks, id=subject.id)


def failing(subject, slow=()):
    failed = set()
    for check in checks_of(subject.type):
        if check.slow and check.name not in slow:
            continue
        try:
            check.run(subject)
        except ConformanceError:
            failed.add(check.name)
        except NotApplicableError:
            pass
    return failed


@pytest.mark.parametrize(("component", "made_for", "related"), [parameter(*mutant) for mutant in MUTANTS])
def test_a_mutant_is_caught(component, made_for, related):
    failed = failing(component, made_for)
    assert made_for <= failed, f"not caught by {made_for - failed}"
    assert failed <= made_for | related, f"unrelated checks fail: {failed - made_for - related}"


@pytest.mark.parametrize("component", [parameter(component) for component in SOUND])
def test_what_the_mutants_derive_from_is_sound(component):
    assert failing(component) == set()


def test_there_are_enough():
    assert len(MUTANTS) >= 40
    names = [as_subject(mutant[0]).id for mutant in MUTANTS]
    assert len(set(names)) == len(names)


def test_every_interface_has_mutants():
    kinds = {as_subject(mutant[0]).type.kind for mutant in MUTANTS}
    checked = {check.interface.kind for check in all_checks() if hasattr(check.interface, "kind")}
    assert checked <= kinds
