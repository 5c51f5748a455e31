"""The errors: classes, messages, near names."""

from __future__ import annotations

import pickle

import pytest

from detcore.errors import (
    BrokenPluginError,
    CheckpointError,
    ComponentDefinitionError,
    ConfigError,
    DataError,
    DetcoreError,
    Problem,
    UnknownComponentError,
    did_you_mean,
    join_path,
)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (ConfigError, ValueError),
        (ComponentDefinitionError, TypeError),
        (UnknownComponentError, LookupError),
        (BrokenPluginError, ImportError),
        (CheckpointError, ValueError),
        (DataError, ValueError),
    ],
)
def test_each_error_is_ours_and_a_builtin_one(error, builtin):
    assert issubclass(error, DetcoreError)
    assert issubclass(error, builtin)
    with pytest.raises(builtin, match="text"):
        raise error("text")


def test_a_problem_on_one_line():
    assert str(Problem("head.depth", "is missing")) == "head.depth: is missing"
    assert str(Problem("", "is missing")) == "is missing"
    assert str(Problem("a", "is 3", "use 4")) == "a: is 3; use 4"


def test_a_problem_seen_from_an_owner():
    problem = Problem("depth", "is 3", "use 4")
    assert problem.below("backbone") == Problem("backbone.depth", "is 3", "use 4")
    assert problem.below("") == problem
    assert Problem("", "is 3").below("x") == Problem("x", "is 3")


def test_one_problem_is_one_line():
    assert str(ConfigError("is odd")) == "is odd"
    assert str(ConfigError("is odd", "FPN")) == "FPN: is odd"
    assert str(ConfigError([Problem("x", "is odd", "be even")], "FPN")) == "FPN: x: is odd; be even"


def test_several_problems_are_a_list():
    error = ConfigError([Problem("x", "is odd"), Problem("y", "is 1")], "FPN")
    assert str(error) == "FPN: 2 problems\n  - x: is odd\n  - y: is 1"
    assert [p.path for p in error.problems] == ["x", "y"]


def test_the_same_problem_is_told_once():
    assert len(ConfigError([Problem("x", "is odd"), Problem("x", "is odd")]).problems) == 1


def test_below_keeps_the_title_and_moves_every_path():
    error = ConfigError([Problem("x", "is odd"), Problem("", "is 1")], "FPN").below("neck")
    assert error.title == "FPN"
    assert [p.path for p in error.problems] == ["neck.x", "neck"]


def test_config_errors_pickle():
    error = ConfigError([Problem("x", "is odd", "be even"), Problem("y", "is 1")], "FPN")
    copy = pickle.loads(pickle.dumps(error))
    assert copy.problems == error.problems
    assert str(copy) == str(error)


def test_join_path_drops_empty_pieces():
    assert join_path("a", "", 0, "b") == "a.0.b"
    assert join_path("", "") == ""
    assert join_path() == ""


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("pos_iou_th", "did you mean 'pos_iou_thr'?"),
        ("POS_IOU_THR", "did you mean 'pos_iou_thr'?"),
        ("zzz", ""),
        (3, ""),
        ("", ""),
    ],
)
def test_did_you_mean(word, expected):
    assert did_you_mean(word, ["pos_iou_thr", "depth"]) == expected


def test_did_you_mean_gives_the_name_as_it_is_written():
    assert did_you_mean("maxiouassigner", ["MaxIoUAssigner"]) == "did you mean 'MaxIoUAssigner'?"
    assert did_you_mean("x", []) == ""
