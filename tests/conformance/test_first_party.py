"""Every component that first-party distributions register conforms to its interface.

One test per entry point, taken from metadata: what a plugin adds is checked without a line here. Examples and
expected failures are the plugins' own, see ``conformance.py`` in each.
"""

import functools

import pytest

from detcore import registry
from detcore.testing import ConformanceError, NotApplicableError, checks_of, subjects_of
from detcore.testing.catalog import Unavailable, check_expected_failures, run_expecting

FIRST_PARTY = ("detcore", "detcore-plugin-")
ENTRIES = [
    entry
    for entry in registry.entries()
    if entry.distribution == FIRST_PARTY[0] or entry.distribution.startswith(FIRST_PARTY[1])
]


@functools.cache
def subjects(distribution):
    return subjects_of(distribution)


def problems_of(entry, *, slow):
    """What is wrong with the subjects of an entry."""
    found = []
    component = registry.current().load(entry)
    for subject in subjects(entry.distribution):
        if isinstance(subject, Unavailable):
            found += [subject.reason] if subject.entry == entry and not slow else []
            continue
        if subject.type is not component:
            continue
        check_expected_failures(subject)
        for check in checks_of(component):
            if check.slow == slow:
                try:
                    run_expecting(check, subject)
                except NotApplicableError:
                    pass
                except ConformanceError as error:
                    found.append(str(error))
    return found


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.qualified)
def test_conforms(entry):
    problems = problems_of(entry, slow=False)
    assert not problems, "\n".join(problems)


@pytest.mark.slow
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.qualified)
def test_conforms_slowly(entry):
    problems = problems_of(entry, slow=True)
    assert not problems, "\n".join(problems)


def test_nothing_was_left_out():
    assert len(ENTRIES) > 50
    assert {"assigners", "losses", "dense_heads", "roi_heads", "datasets"} <= {
        entry.kind for entry in ENTRIES
    }
