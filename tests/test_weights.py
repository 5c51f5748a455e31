import contextvars

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from detcore import hooks
from detcore.errors import CheckpointError
from detcore.interfaces import Detector
from detcore.weights import (
    AdaptedWeights,
    LoadReport,
    load_state,
    load_weights,
    read_weights,
    rename,
    skipping_weights,
    without_initial_values,
    without_weights,
)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.bn = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 2)


class Runs:
    """Unpickling an instance would run code."""

    def __reduce__(self):
        return print, ("executed",)


@pytest.fixture
def donor():
    torch.manual_seed(0)
    return {
        name: torch.randn_like(t) if t.is_floating_point() else t + 7
        for name, t in Net().state_dict().items()
    }


@pytest.fixture
def file(tmp_path, donor):
    save_file(donor, tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def state(net):
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


# -------------------------------------------------------------------------------------------------- reading


def test_reads_safetensors(file, donor):
    assert_same(read_weights(str(file)), donor)


@pytest.mark.parametrize(
    "wrap", [lambda w: w, lambda w: {"state_dict": w, "epoch": 3}, lambda w: {"model": w}]
)
def test_reads_what_torch_saved_bare_or_wrapped(tmp_path, donor, wrap):
    torch.save(wrap(donor), tmp_path / "net.pth")
    assert_same(read_weights(str(tmp_path / "net.pth")), donor)


def test_a_home_directory_is_expanded(tmp_path, file, donor, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert_same(read_weights("~/net.safetensors"), donor)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere\.pth: no such file of weights; give the path of"):
        read_weights(str(tmp_path / "nowhere.pth"))


@pytest.mark.parametrize("name", ["net.safetensors", "net.pth"])
def test_a_damaged_file_is_named(tmp_path, name, file, donor):
    torch.save(donor, tmp_path / "net.pth")
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=rf"{name}: damaged, .*fetch it again"):
        read_weights(str(tmp_path / name))


@pytest.mark.parametrize("content", [b"", b"not weights at all"])
def test_a_file_of_something_else_is_a_checkpoint_error(tmp_path, content):
    (tmp_path / "net.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"net\.pth: "):
        read_weights(str(tmp_path / "net.pth"))


def test_code_in_a_file_is_not_run(tmp_path, capsys):
    torch.save({"weight": Runs()}, tmp_path / "net.pth")
    with pytest.raises(
        CheckpointError, match=r"holds more than tensors .* save its weights alone as \.safetensors"
    ):
        read_weights(str(tmp_path / "net.pth"))
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(1)], "expected tensors by name, found list"),
        ({}, "expected tensors by name, found dict without any"),
        ({"a": torch.ones(1), "epoch": 3}, "these are none: epoch"),
    ],
)
def test_a_file_without_named_tensors_says_so(tmp_path, content, message):
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=message):
        read_weights(str(tmp_path / "net.pth"))


# --------------------------------------------------------------------------------------------------- schemes


@pytest.fixture
def plugin(monkeypatch):
    """A manager whose one plugin resolves ``toy://`` addresses; the addresses that it saw."""
    import pluggy

    seen = []

    class Plugin:
        @hooks.hookimpl
        def detcore_resolve_weights(self, address):
            seen.append(address)
            return {"weight": torch.full((1, 1), 5.0)} if address.startswith("toy://") else None

    manager = pluggy.PluginManager(hooks.PROJECT)
    manager.add_hookspecs(hooks.Hooks)
    manager.register(Plugin())
    monkeypatch.setattr(hooks, "manager", lambda: manager)
    return seen


def test_plugins_resolve_schemes(plugin):
    net = nn.Linear(1, 1, bias=False)
    report = load_weights(net, "toy://one")
    assert net.weight.item() == 5
    assert report == LoadReport("toy://one", ("weight",))
    assert plugin == ["toy://one"]


def test_an_unresolved_scheme_says_what_to_do(plugin):
    with pytest.raises(
        CheckpointError, match=r"other://x: no installed plugin resolves other:// addresses; give a path"
    ):
        read_weights("other://x")
    with pytest.raises(CheckpointError, match="install detcore-plugin-resnet, or give a path"):
        read_weights("torchvision://resnet50")


# --------------------------------------------------------------------------------------------------- loading


def test_all_or_nothing_loads_all(file, donor):
    net = Net()
    report = load_weights(net, str(file))
    assert_same(state(net), donor)
    assert set(report.loaded) == set(donor)
    assert report.skipped == report.kept == ()


def test_what_does_not_fit_is_named_and_nothing_is_loaded(donor):
    donor["fc.weight"] = donor["fc.bias"] = torch.ones(1)
    del donor["bn.running_mean"]
    donor["head.weight"] = torch.ones(9, 4)
    net = Net()
    before = state(net)
    with pytest.raises(CheckpointError) as caught:
        load_state(net, donor, source="net.pth")
    message = str(caught.value)
    assert message.startswith("net.pth: the weights do not fit Net (1 missing: bn.running_mean; ")
    assert "2 unexpected: fc.weight, fc.bias" in message
    assert "1 of another shape: head.weight ([9, 4] in the file, [2, 4] in the model)" in message
    assert "nothing was loaded: give weights of this architecture" in message
    assert_same(state(net), before)


def test_long_lists_are_cut():
    with pytest.raises(CheckpointError, match=r"20 unexpected: 0, 1, 2, 3, 4, \.\.\. and 15 more"):
        load_state(nn.Identity(), {str(i): torch.ones(1) for i in range(20)}, source="x")


def test_expected_differences_are_no_error_but_reported(file, donor):
    net = Net()
    before = state(net)
    report = load_weights(net, str(file), skip=("head.",), may_lack=("head.",))
    assert set(report.skipped) == set(report.kept) == {"head.weight", "head.bias"}
    assert torch.equal(net.head.weight, before["head.weight"])
    assert torch.equal(net.conv.weight, donor["conv.weight"])


def test_old_files_may_lack_the_batch_counter(donor):
    del donor["bn.num_batches_tracked"]
    net = Net()
    load_state(net, donor, source="old")
    assert torch.equal(net.bn.running_mean, donor["bn.running_mean"])
    assert net.bn.num_batches_tracked.item() == 0


def test_prefix_and_renames_lead_from_a_whole_detector(tmp_path, donor):
    theirs = {f"backbone.{name.replace('bn.', 'gn.')}": t for name, t in donor.items()}
    theirs["bbox_head.weight"] = torch.ones(1)
    torch.save(theirs, tmp_path / "detector.pth")
    net = Net()
    load_weights(net, str(tmp_path / "detector.pth"), prefix="backbone.", renames=((r"^gn\.", "bn."),))
    assert_same(state(net), donor)


def test_a_prefix_that_nothing_has_is_an_error(file):
    with pytest.raises(CheckpointError, match=r"no weight's name begins with 'backbone\.'; it has "):
        load_weights(Net(), str(file), prefix="backbone.")


def test_rename_applies_the_rules_in_order():
    weights = {"a.gn1.weight": torch.ones(1), "b": torch.zeros(1)}
    renamed = rename(weights, ((r"gn(\d)", r"bn\1"), (r"^a\.", ""), ("^bn1", "norm")))
    assert list(renamed) == ["norm.weight", "b"]
    assert renamed["b"] is weights["b"]


def test_rename_refuses_to_merge(file):
    with pytest.raises(
        ValueError, match=r"two weights get the name 'c', one of them 'b'; correct the rename rules"
    ):
        rename({"a": torch.ones(1), "b": torch.ones(1)}, (("[ab]", "c"),))
    with pytest.raises(CheckpointError, match=r"net\.safetensors: two weights get the name"):
        load_weights(Net(), str(file), renames=(("weight|bias", "x"),))


# ---------------------------------------------------------------------------------------------------- without


def test_without_weights_nothing_is_read():
    net = Net()
    before = state(net)
    with without_weights():
        assert skipping_weights()
        assert load_weights(net, "/no/such/file.pth") is None
    assert not skipping_weights()
    assert_same(state(net), before)


def test_without_weights_ends_with_an_error_too():
    with pytest.raises(CheckpointError), without_weights():
        read_weights("/no/such/file.pth")
    assert not skipping_weights()


def test_without_weights_keeps_to_its_context():
    with without_weights():
        assert not contextvars.Context().run(skipping_weights)


@pytest.mark.parametrize(
    "draw",
    [
        nn.init.uniform_, nn.init.normal_, nn.init.xavier_uniform_, nn.init.xavier_normal_,
        nn.init.kaiming_uniform_, nn.init.kaiming_normal_, torch.Tensor.uniform_, torch.Tensor.normal_,
    ],
)  # fmt: skip
def test_without_initial_values_no_parameter_is_drawn(draw):
    parameter, tensor = nn.Parameter(torch.full((4, 4), 7.0)), torch.full((4, 4), 7.0)
    with torch.no_grad(), without_initial_values():
        draw(parameter)
        draw(tensor)
    assert (parameter == 7).all()
    assert (tensor != 7).all()
    with torch.no_grad():
        draw(parameter)
    assert (parameter != 7).all()


def test_without_initial_values_layers_are_of_their_shape():
    before = torch.get_rng_state()
    with without_initial_values():
        layers = nn.Conv2d(3, 4, 3), nn.Linear(3, 4), nn.BatchNorm2d(4), nn.MultiheadAttention(4, 2)
    assert torch.equal(torch.get_rng_state(), before)
    assert layers[0].weight.shape == (4, 3, 3, 3)
    assert (layers[2].weight == 1).all()


def test_a_module_without_storage_is_left_alone():
    with torch.device("meta"):
        net = Net()
    assert load_weights(net, "/no/such/file.pth") is None


# --------------------------------------------------------------------------------------------- other classes


class Whole(Detector):
    """The least that is a detector."""

    def __init__(self, *, outputs: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.head = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, outputs))

    def preprocess(self, images, geometry=None): ...

    def features(self, batch): ...

    def forward(self, images, targets=None): ...

    def loss(self, batch, targets): ...

    def predict(self, batch): ...


@pytest.fixture
def eighty(tmp_path):
    torch.manual_seed(1)
    weights = Whole(outputs=80).state_dict()
    save_file(weights, tmp_path / "eighty.safetensors")
    return str(tmp_path / "eighty.safetensors"), weights


def test_a_mismatch_of_a_detector_names_the_remedy_and_loads_nothing(eighty):
    model = Whole(outputs=4)
    before = state(model)
    with pytest.raises(CheckpointError) as caught:
        load_weights(model, eighty[0])
    message = str(caught.value)
    assert "2 of another shape: head.1.weight ([80, 4] in the file, [4, 4] in the model)" in message
    assert message.endswith(
        "where the difference is meant (another number of classes), let these parts begin anew: "
        "reinit=['head.1'] in Python and in the experiment, --reinit head.1 for detcore train"
    )
    assert_same(state(model), before)


def test_reinit_keeps_what_the_module_was_made_with(eighty):
    model = Whole(outputs=4)
    before = state(model)
    report = load_weights(model, eighty[0], reinit=["head.1"])
    assert report.loaded == ("conv.weight", "conv.bias", "head.0.weight", "head.0.bias")
    assert report.reinitialised == ("head.1.weight", "head.1.bias")
    assert set(report.skipped) == set(report.reinitialised)
    assert torch.equal(model.head[1].weight, before["head.1.weight"])
    assert torch.equal(model.head[0].weight, eighty[1]["head.0.weight"])
    first, _, last = str(report).splitlines()
    assert first == f"weights from {eighty[0]}: 4 loaded, 2 skipped, 0 kept, 2 re-initialised"
    assert last == "  re-initialised: head.1.weight, head.1.bias"
    assert report.to_dict()["reinitialised"] == ["head.1.weight", "head.1.bias"]


def test_reinit_of_a_part_that_the_file_lacks_and_of_one_with_another_structure(eighty, tmp_path):
    weights = {n: t for n, t in eighty[1].items() if not n.startswith("head.")}
    weights["head.other"] = torch.ones(1)
    save_file(weights, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"reinit=\['head'\]"):
        load_weights(Whole(), str(tmp_path / "other.safetensors"))
    report = load_weights(Whole(), str(tmp_path / "other.safetensors"), reinit=["head"])
    assert len(report.reinitialised) == 4
    assert report.skipped == ("head.other",)


def test_reinit_of_everything_is_no_remedy(tmp_path):
    save_file({"other": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError) as caught:
        load_weights(Whole(), str(tmp_path / "other.safetensors"))
    assert "reinit=" not in str(caught.value)


def test_reinit_of_an_unknown_part(eighty):
    with pytest.raises(
        CheckpointError,
        match=r"no part 'heda' with weights; did you mean 'head'\?; it has: conv, head",
    ):
        load_weights(Whole(), eighty[0], reinit=["heda"])


def test_plugins_adapt_the_weights_of_whole_detectors(monkeypatch, eighty):
    import pluggy

    class Plugin:
        @hooks.hookimpl
        def detcore_adapt_weights(self, address, weights, detector):
            assert address == eighty[0]
            assert isinstance(detector, Whole)
            return AdaptedWeights({n: t[:4] if "head.1" in n else t for n, t in weights.items()}, ("extra",))

    manager = pluggy.PluginManager(hooks.PROJECT)
    manager.add_hookspecs(hooks.Hooks)
    manager.register(Plugin())
    monkeypatch.setattr(hooks, "manager", lambda: manager)
    model = Whole(outputs=4)
    report = load_weights(model, eighty[0])
    assert torch.equal(model.head[1].weight, eighty[1]["head.1.weight"][:4])
    assert report.skipped == ("extra",)


def test_the_folder_of_a_checkpoint_is_an_address(eighty, tmp_path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    save_file(eighty[1], folder / "model.safetensors")
    assert_same(read_weights(str(folder)), eighty[1])


def test_of_tied_weights_one_is_enough():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    weights = {name: torch.ones_like(t) for name, t in net.state_dict().items() if name != "1.weight"}
    load_state(net, weights, source="tied")
    assert net[1].weight.eq(1).all()
