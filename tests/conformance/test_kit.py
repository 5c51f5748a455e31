"""The kit itself: parametrisation, expected failures, the pytest option, registries, reports."""

import contextlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detcore_losses import FocalLoss, L1Loss

from detcore import hooks, registry
from detcore.component import wired
from detcore.errors import ConfigError, DetcoreError
from detcore.interfaces import BoxLoss, Loss
from detcore.testing import (
    Check,
    ConformanceError,
    NotApplicableError,
    Subject,
    all_checks,
    check,
    checks_of,
    make_targets,
    parametrize_with_checks,
    registered,
    registry_of,
    run_check,
    subjects_of,
)
from detcore.testing.catalog import Unavailable, run_expecting

ROOT = Path(__file__).parents[2]


class Halved(L1Loss):
    """Half of what it should be where ``loss_weight`` is not 1."""

    def forward(self, pred, target, *, weight=None, avg_factor=None, reduction=None):
        loss = super().forward(pred, target, weight=weight, avg_factor=avg_factor, reduction=reduction)
        return loss / self.loss_weight


class Needy(BoxLoss):
    """Has a parameter that only its author knows a value for."""

    def __init__(self, *, colour: str, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.colour, self.loss_weight = colour, loss_weight

    def forward(self, pred, target, *, weight=None, avg_factor=None, reduction=None):
        return (pred - target).square().mean()


@parametrize_with_checks([L1Loss, FocalLoss.spec(gamma=1.5), L1Loss(loss_weight=2.0)])
def test_sound_components(component, check):
    check(component)


@parametrize_with_checks(Halved, expected_failures={"loss_weight_is_a_factor": "for this test"})
def test_expected_failures(component, check):
    check(component)


# ------------------------------------------------------------------------------------- failures and reports


def test_a_report_tells_behaviour_input_and_how_to_run_it_again():
    with pytest.raises(ConformanceError) as error:
        run_check(Halved.spec(loss_weight=1.0), "loss_weight_is_a_factor", seed=3)
    lines = str(error.value).splitlines()
    assert lines[0] == (
        "Halved does not conform: ``loss_weight`` multiplies the result (loss_weight_is_a_factor, version 1)"
    )
    assert lines[1].startswith("  with twice the loss_weight: 1 of 1 values: ")
    assert lines[2] == "    with pred [12, 4], target [12, 4], seed=3"
    assert lines[3] == (
        '  again: detcore.testing.run_check(Halved.spec(loss_weight=1.0), "loss_weight_is_a_factor", seed=3)'
    )


def test_an_expected_failure_that_passes_is_an_error():
    subject = Subject(L1Loss.spec(), expected_failures={"loss_weight_is_a_factor": "it was so once"})
    found = next(c for c in checks_of(L1Loss) if c.name == "loss_weight_is_a_factor")
    with pytest.raises(ConformanceError, match=r"it was so once.* but passes; remove it"):
        run_expecting(found, subject)


def test_an_expected_failure_that_does_not_apply_is_an_error():
    subject = Subject(L1Loss.spec(), expected_failures={"component_state_round_trip": "no state"})
    found = next(c for c in checks_of(L1Loss) if c.name == "component_state_round_trip")
    with pytest.raises(ConformanceError, match="does not apply"):
        run_expecting(found, subject)


def test_an_expected_failure_of_no_check_is_refused():
    with pytest.raises(ConfigError, match="did you mean 'loss_weight_is_a_factor'"):
        parametrize_with_checks(L1Loss, expected_failures={"loss_weight_is_factor": "misspelt"})
    with pytest.raises(ConfigError, match="no check of L1Loss is called 'coder_inverts'"):
        parametrize_with_checks(L1Loss, expected_failures={"coder_inverts": "of another interface"})


def test_what_is_no_component_is_refused():
    with pytest.raises(TypeError, match=r"write parametrize_with_checks\(MyAssigner.spec"):
        parametrize_with_checks("L1Loss")
    with pytest.raises(ConfigError, match="has no check 'coder_inverts'"):
        run_check(L1Loss, "coder_inverts")


class Raises(L1Loss):
    """Fails whenever there are weights."""

    def forward(self, pred, target, *, weight=None, avg_factor=None, reduction=None):
        if weight is not None:
            raise KeyError("weights")
        return super().forward(pred, target, avg_factor=avg_factor, reduction=reduction)


def test_an_exception_of_the_component_is_a_failure_with_its_cause():
    with pytest.raises(ConformanceError, match="raised KeyError: 'weights'") as error:
        run_check(Raises, "loss_weights_scale")
    assert isinstance(error.value.__cause__, KeyError)


def test_a_check_without_meaning_says_so():
    with pytest.raises(NotApplicableError, match="it has no state"):
        run_check(L1Loss, "component_state_round_trip")


def test_an_instance_is_not_changed_by_its_checks():
    loss = L1Loss()
    loss.register_buffer("calls", torch.zeros(()))
    for found in checks_of(L1Loss):
        if not found.slow and found.name != "component_config_round_trip":
            with contextlib.suppress(ConformanceError, NotApplicableError):
                found.run(Subject(loss))
    assert loss.calls == 0
    assert loss.training


def test_checks_leave_the_global_generator_alone():
    state = torch.get_rng_state()
    run_check(L1Loss, "loss_rows_are_independent")
    assert torch.equal(torch.get_rng_state(), state)


def test_checks_are_named_once_and_say_what_they_check():
    checks = all_checks()
    assert len({c.name for c in checks}) == len(checks) > 100
    assert all(c.behaviour[0].isupper() or c.behaviour[0] == "`" for c in checks)
    assert all(c.version >= 1 and c.cases for c in checks)


# ----------------------------------------------------------------------------------- registries and hooks


def test_a_registry_of_given_classes(detcore_registry):
    detcore_registry(Halved, Needy)
    assert registry.names("losses") == ("Halved", "Needy")
    assert registry.resolve("losses", "tests:Halved") is Halved
    detcore_registry(Halved, installed=True)
    assert {"Halved", "FocalLoss"} <= set(registry.names("losses"))


def test_registered_adds_to_what_is_installed():
    with registered(Halved):
        assert registry.resolve("losses", "Halved") is Halved
        assert registry.resolve("losses", "FocalLoss") is FocalLoss
    assert "Halved" not in registry.names("losses")


@check(Loss)
def loss_is_named_after_a_loss(trial):
    """Its class ends in Loss."""
    trial.require(type(trial.component()).__name__.endswith("Loss"), "it does not")


class Plugin:
    """What a distribution's hook module would hold."""

    @staticmethod
    @hooks.hookimpl
    def detcore_conformance_examples():
        return [Subject(Needy.spec(colour="red"), name="red"), Needy.spec(colour="blue")]

    @staticmethod
    @hooks.hookimpl
    def detcore_add_checks():
        return [loss_is_named_after_a_loss]


class BrokenPlugin:
    """Fails when it is asked."""

    @staticmethod
    @hooks.hookimpl
    def detcore_conformance_examples():
        raise RuntimeError("no data")


@pytest.fixture
def plugin():
    manager = hooks.manager()
    added = []

    def add(module):
        manager.register(module)
        added.append(module)

    yield add
    for module in added:
        manager.unregister(module)


def test_what_needs_values_is_unavailable_without_an_example(detcore_registry, plugin):
    detcore_registry(Needy, Halved)
    needy, halved = subjects_of("tests")[::-1]
    assert isinstance(needy, Unavailable)
    assert "Needy needs values for colour; let its distribution offer an example" in needy.reason
    assert halved.spec == Halved.spec()
    plugin(BrokenPlugin)
    needy = subjects_of("tests")[-1]
    assert "failed with RuntimeError: no data" in needy.reason


def test_examples_come_from_a_hook(detcore_registry, plugin):
    plugin(Plugin)
    detcore_registry(Needy)
    assert [subject.id for subject in subjects_of("tests")] == ["Needy-red", "Needy"]


def test_checks_come_from_a_hook(plugin):
    plugin(Plugin)
    assert loss_is_named_after_a_loss in checks_of(L1Loss)
    assert isinstance(loss_is_named_after_a_loss, Check)
    run_check(L1Loss, "loss_is_named_after_a_loss")
    with pytest.raises(ConformanceError, match="Its class ends in Loss"):
        run_check(Halved, "loss_is_named_after_a_loss")


def test_two_checks_of_one_name_are_refused(plugin):
    first = all_checks()[0]

    class Twice:
        @staticmethod
        @hooks.hookimpl
        def detcore_add_checks():
            return [first]

    plugin(Twice)
    with pytest.raises(DetcoreError, match="several conformance checks are called component_"):
        all_checks()


def test_an_unknown_distribution():
    with pytest.raises(DetcoreError, match="did you mean 'detcore-plugin-losses'"):
        subjects_of("detcore-plugin-loses")


class Wants(BoxLoss):
    """Wired to something that the kit knows nothing of."""

    def __init__(self, *, moon_phase: float = wired(), loss_weight: float = 1.0) -> None:
        super().__init__()
        self.moon_phase, self.loss_weight = moon_phase, loss_weight

    def forward(self, pred, target, *, weight=None, avg_factor=None, reduction=None):
        return (pred - target).square().mean()


def test_what_an_owner_would_supply_is_supplied():
    assert Subject(Wants.spec(), wired={"moon_phase": 0.25}).build().moon_phase == 0.25
    with registry.use(registry_of(Wants)):
        (missing,) = subjects_of("tests")
    assert "needs values for moon_phase" in missing.reason


# ---------------------------------------------------------------------------------------- the pytest option


def run_pytest(*arguments, folder):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_the_option_checks_a_distribution_and_nothing_else(tmp_path):
    (tmp_path / "test_here.py").write_text("def test_other():\n    assert False\n")
    result = run_pytest(
        "--detcore-conformance", "detcore-plugin-coders", "-m", "not slow", "-v", folder=tmp_path
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"\d+ passed", result.stdout)
    assert not re.search(r"\d+ failed", result.stdout)
    assert "detcore-plugin-coders::DeltaXYWHBBoxCoder::coder_inverts PASSED" in result.stdout
    assert "test_here.py" not in result.stdout


def test_the_option_names_what_is_not_installed(tmp_path):
    result = run_pytest("--detcore-conformance", "nobody", folder=tmp_path)
    assert result.returncode == 4
    assert "no installed distribution 'nobody' registers components" in result.stderr


def test_importing_the_kit_is_light():
    code = (
        "import sys, detcore.testing, detcore.testing.pytest_plugin\n"
        "dir(detcore.testing)\n"
        "assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules), 'heavy'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_every_public_name_resolves():
    import detcore.testing as kit

    assert sorted(kit.__all__) == sorted(kit._HOME)
    assert all(getattr(kit, name) is not None for name in kit.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'make_tragets'"):
        _ = kit.make_tragets
    assert len(make_targets("one")) == 2


# ------------------------------------------------------------------------------------------------ documents


def test_the_page_lists_every_check():
    from detcore.testing.table import table

    page = (ROOT / "docs" / "conformance.md").read_text()
    head, _, rest = page.partition("<!-- checks: begin -->\n")
    body, _, tail = rest.partition("<!-- checks: end -->")
    assert head
    assert tail
    assert body == table(), "run: python -m detcore.testing.table docs/conformance.md"
