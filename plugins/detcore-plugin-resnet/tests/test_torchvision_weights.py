import urllib.error

import detcore_resnet.hooks
import pluggy
import pytest
import torch
import torchvision
from detcore_resnet import ResNet
from detcore_resnet.torchvision_weights import resolve

from detcore import hooks, registry
from detcore.errors import CheckpointError, ConfigError
from detcore.weights import without_weights

V1 = "https://download.pytorch.org/models/resnet18-f37072fd.pth"


@pytest.fixture
def server(monkeypatch):
    """Stands for torchvision's downloads: files by address, and what was asked for."""
    files, asked = {}, []

    def load(url, **options):
        asked.append((url, options))
        if url not in files:
            raise urllib.error.URLError("Name or service not known")
        return files[url]

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", load)
    manager = pluggy.PluginManager(
        hooks.PROJECT
    )  # with this plugin's hooks alone: others' faults are not ours
    manager.add_hookspecs(hooks.Hooks)
    manager.register(detcore_resnet.hooks)
    monkeypatch.setattr(hooks, "manager", lambda: manager)
    return files, asked


def test_the_hooks_are_registered():
    ours = ("hooks", "resnet", "detcore-plugin-resnet")
    (entry,) = (e for e in registry.read_entries() if (e.kind, e.name, e.distribution) == ours)
    assert entry.load() is detcore_resnet.hooks


def test_a_models_name_means_its_first_weights(server):
    files, asked = server
    torch.manual_seed(3)
    files[V1] = torchvision.models.resnet18().state_dict()
    net = ResNet(depth=18, frozen_stages=1, weights="torchvision://resnet18")
    assert torch.equal(net.layer4[1].conv2.weight, files[V1]["layer4.1.conv2.weight"])
    ((_, options),) = asked
    assert options["weights_only"] is True
    assert options["check_hash"] is True


@pytest.mark.parametrize(
    ("address", "file"),
    [
        ("torchvision://ResNet50_Weights.IMAGENET1K_V1", "resnet50-0676ba61.pth"),
        ("torchvision://ResNet50_Weights.IMAGENET1K_V2", "resnet50-11ad3fa6.pth"),
        ("torchvision://resnet50", "resnet50-0676ba61.pth"),
        ("torchvision://vgg16", "vgg16-397923af.pth"),
    ],
)
def test_addresses_name_files(address, file, server):
    files, _ = server
    files[f"https://download.pytorch.org/models/{file}"] = {"here": torch.ones(1)}
    assert list(resolve(address)) == ["here"]


def test_addresses_of_others_are_left_to_them(server):
    assert resolve("mmdet://resnet50") is None
    assert resolve("resnet50.pth") is None
    assert server[1] == []


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("resnet5O", r"did you mean 'resnet50'\?"),
        ("ResNet50_Weights.V9", "an address looks like torchvision://resnet50 or"),
        ("Nobody_Weights.V1", "an address looks like"),
        ("resnet50.V1", "an address looks like|did you mean"),
        ("", "an address looks like"),
    ],
)
def test_unknown_weights_say_what_there_is(name, remedy, server):
    with pytest.raises(
        CheckpointError, match=rf"torchvision://{name}: torchvision publishes no such weights; ({remedy})"
    ):
        resolve(f"torchvision://{name}")
    assert server[1] == []


def test_no_network_says_to_give_a_path(server):
    with pytest.raises(CheckpointError) as caught:
        ResNet(depth=18, weights="torchvision://resnet18")
    message = str(caught.value)
    assert not isinstance(caught.value, ConfigError)
    assert message.startswith(f"torchvision://resnet18: cannot be fetched from {V1} (")
    assert "Name or service not known" in message
    assert "give its path as the address" in message


def test_no_download_where_a_checkpoint_follows(server):
    with without_weights():
        ResNet(depth=18, weights="torchvision://resnet18")
    assert server[1] == []


def test_weights_of_another_depth_are_refused(server):
    server[0][V1] = torchvision.models.resnet18().state_dict()
    with pytest.raises(CheckpointError, match=r"torchvision://resnet18: the weights do not fit ResNet \("):
        ResNet(depth=34, weights="torchvision://resnet18")
