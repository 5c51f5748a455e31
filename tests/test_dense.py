"""What dense heads share, on toy parts."""

from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from detcore import boxes, dense
from detcore.errors import ConfigError
from detcore.interfaces import (
    Assigner,
    BBoxCoder,
    BoxLoss,
    ClassificationLoss,
    Postprocess,
    PriorGenerator,
    Sampler,
)
from detcore.structures import (
    Assignment,
    DenseOutput,
    Detections,
    Encoded,
    FeatureSpec,
    ImageBatch,
    LevelShape,
    PriorLevel,
    Priors,
    Sample,
    Targets,
)
from detcore.targets import DenseTargets, Positives

LEVELS = (LevelShape(2, 3), LevelShape(1, 2))


class Generator(PriorGenerator):
    def __init__(self, *, num_per_cell: tuple[int, ...] = (1, 1)) -> None:
        self.num_per_cell = num_per_cell

    def __call__(self, level_sizes, batch):
        raise AssertionError("not used")


class Shift(BBoxCoder):
    """Corners relative to the prior's, in units of a scale."""

    def __init__(self, *, scale: float = 2.0, weighted: bool = False) -> None:
        self.scale, self.weighted = scale, weighted

    def encode(self, priors, boxes):
        values = (boxes - priors.boxes) / self.scale
        return Encoded(values, torch.full_like(values, 3.0) if self.weighted else None)

    def decode(self, priors, codes, sizes=None):
        return priors.boxes + codes * self.scale


class Difference(BoxLoss):
    def forward(self, pred, target, *, weight=None, avg_factor=None, reduction=None):
        loss = (pred - target).abs()
        if weight is not None:
            loss = loss * (weight if weight.dim() == 2 else weight[:, None])
        return loss.sum() / avg_factor


class BoxDifference(Difference):
    space: ClassVar = "boxes"


class Entropy(ClassificationLoss):
    def __init__(self) -> None:
        super().__init__()
        self.calls = []

    def channels(self, num_classes):
        return num_classes

    def scores(self, logits):
        return logits.sigmoid()

    def forward(self, pred, target, *, weight=None, avg_factor=None, reduction=None, quality=None):
        self.calls.append(len(pred))
        hot = F.one_hot(target, pred.shape[-1] + 1)[..., :-1].float()
        loss = F.binary_cross_entropy_with_logits(pred, hot, reduction="none")
        if reduction == "none":
            return loss
        return (loss * weight[:, None]).sum() / avg_factor


class LevelWise(Entropy):
    additive: ClassVar = False


class Watcher(Assigner):
    def __init__(self, *, needs: tuple[str, ...] = ()) -> None:
        self.needs = frozenset(needs)

    def assign(self, priors, targets, predictions=None, batch=None):
        self.seen = priors, predictions
        state = torch.zeros(len(targets), len(priors), dtype=torch.int8)
        return Assignment(torch.zeros_like(state, dtype=torch.int64), state, state.float())


class Asker(Sampler):
    def __init__(self, *, asks: bool = True) -> None:
        self.asks = asks

    def sample(self, assignment, *, predict=None, generator=None):
        self.got = predict() if self.asks else None
        return Sample(assignment.positive, assignment.negative)


class Everything(Postprocess):
    """All priors of the first class."""

    def __call__(self, scores, decode, batch, *, levels=(), factors=None, valid=None):
        self.seen = levels, factors
        prior = torch.arange(scores.shape[1]).flip(0).expand(scores.shape[:2])
        label = torch.zeros_like(prior)
        return Detections(
            decode(prior, label), scores[..., 0], label, torch.ones_like(label, dtype=torch.bool)
        )


@pytest.fixture
def priors():
    boxes = torch.arange(8.0)[:, None] + torch.tensor([0.0, 0.0, 4.0, 4.0])
    levels = tuple(PriorLevel(h, w, 1, (8.0, 8.0)) for h, w in LEVELS)
    return Priors(boxes, torch.ones(8, 2), levels)


@pytest.fixture
def output():
    torch.manual_seed(0)
    logits, codes = torch.randn(2, 8, 3, requires_grad=True), torch.randn(2, 8, 4, requires_grad=True)
    return DenseOutput(LEVELS, logits, codes)


@pytest.fixture
def batch():
    return ImageBatch.of(torch.zeros(2, 3, 16, 24))


@pytest.fixture
def targets():
    boxes = torch.tensor([[1.0, 2, 5, 6]])
    return Targets.stack(
        [{"boxes": boxes, "labels": torch.tensor([2])}, {"boxes": boxes + 1, "labels": torch.tensor([0])}]
    )


def chosen(weight=None):
    boxes = torch.tensor([[1.0, 2, 5, 6], [2.0, 2, 8, 8]])
    return Positives(torch.tensor([0, 1]), torch.tensor([3, 7]), boxes, torch.tensor([2, 0]), weight)


# ----------------------------------------------------------------------------------------------- the network


def test_tower():
    layers = dense.tower(6, 8, 3, norm="GN", num_groups=4)
    assert layers(torch.rand(1, 6, 5, 7)).shape == (1, 8, 5, 7)
    assert [type(layer.norm) for layer in layers] == [nn.GroupNorm] * 3
    assert "2.conv.weight" in layers.state_dict()
    x = torch.rand(1, 6, 5, 7)
    assert dense.tower(6, 8, 0)(x) is x


def test_scale_is_learned():
    scale, x = dense.Scale(2.0), torch.ones(3)
    scale(x).sum().backward()
    assert scale(x).tolist() == [2, 2, 2]
    assert scale.scale.grad == 3


def test_init_convs():
    torch.manual_seed(0)
    head = nn.ModuleDict({"a": nn.Conv2d(64, 64, 3), "norm": nn.GroupNorm(4, 64), "cls": nn.Conv2d(64, 5, 3)})
    dense.init_convs(head, head["cls"], 0.02)
    assert abs(head["a"].weight.std().item() - 0.01) < 1e-3
    assert not head["a"].bias.any()
    torch.testing.assert_close(head["cls"].bias.sigmoid(), torch.full((5,), 0.02))
    assert head["norm"].weight.eq(1).all()
    bare = nn.Conv2d(2, 2, 1, bias=False)
    dense.init_convs(nn.ModuleList([bare]), bare, 0.5)


def test_per_prior_is_row_major_with_the_priors_of_a_cell_together():
    """Channel a * C + c of cell (y, x) becomes row (y * w + x) * A + a, column c."""
    per_cell, channels = 2, 3
    maps = []
    for level, (h, w) in enumerate(LEVELS):
        c, y, x = torch.meshgrid(
            torch.arange(per_cell * channels), torch.arange(h), torch.arange(w), indexing="ij"
        )
        maps.append((level * 1000 + y * 100 + x * 10 + c)[None].float())
    rows = dense.per_prior(maps, per_cell)
    assert rows.shape == (1, 16, 3)
    expected = [
        [level * 1000 + y * 100 + x * 10 + a * channels + c for c in range(channels)]
        for level, (h, w) in enumerate(LEVELS)
        for y in range(h)
        for x in range(w)
        for a in range(per_cell)
    ]
    assert rows[0].tolist() == expected


def test_level_shapes():
    assert dense.level_shapes([torch.zeros(1, 4, 2, 3), torch.zeros(1, 4, 1, 2)]) == LEVELS


# -------------------------------------------------------------------------------------------------- checks


def test_shared_channels():
    assert dense.shared_channels((FeatureSpec(8, 4), FeatureSpec(8, 8))) == 8
    with pytest.raises(
        ValueError, match=r"same number of channels; got \[8, 16\]; put a neck such as FPN before it"
    ):
        dense.shared_channels((FeatureSpec(8, 4), FeatureSpec(16, 8)))
    with pytest.raises(ValueError, match=r"got \[\]"):
        dense.shared_channels(())


def test_shared_per_cell():
    features = (FeatureSpec(8, 4), FeatureSpec(8, 8))
    assert dense.shared_per_cell(Generator(num_per_cell=(3, 3)), features) == 3
    with pytest.raises(
        ValueError, match="makes priors for 3 levels, the pyramid has 2; leave out its strides"
    ):
        dense.shared_per_cell(Generator(num_per_cell=(3, 3, 3)), features)
    with pytest.raises(ValueError, match=r"as many priors per cell in each; got \(3, 4\)"):
        dense.shared_per_cell(Generator(num_per_cell=(3, 4)), features)


@pytest.mark.parametrize(
    ("loss", "asked", "expected"),
    [
        (Difference, None, False),
        (Difference, False, False),
        (Difference, True, True),
        (BoxDifference, None, True),
        (BoxDifference, True, True),
    ],
)
def test_compares_boxes(loss, asked, expected):
    assert dense.compares_boxes(loss(), asked) is expected


def test_a_loss_on_boxes_cannot_get_codes():
    with pytest.raises(
        ValueError, match="reg_decoded_bbox should not be false with BoxDifference, which works on"
    ):
        dense.compares_boxes(BoxDifference(), False)


# ------------------------------------------------------------------------------------------------ training


@pytest.mark.parametrize("needs", [("logits",), ("boxes",), ("levels", "boxes")])
def test_an_assigner_that_asks_gets_predictions(needs, output, priors, targets, batch):
    assigner = Watcher(needs=needs)
    dense.match(assigner, output, priors, targets, batch, Shift())
    _, seen = assigner.seen
    torch.testing.assert_close(seen.boxes, (priors.boxes + output.codes * 2).detach())
    assert torch.equal(seen.logits, output.logits)
    assert not seen.boxes.requires_grad
    assert not seen.logits.requires_grad


def test_an_assigner_that_does_not_ask_gets_none(output, priors, targets, batch):
    assigner = Watcher(needs=("levels",))
    dense.match(assigner, output, priors, targets, batch, Shift(), allowed_border=0)
    seen, predictions = assigner.seen
    assert predictions is None
    assert seen.valid.shape == (2, 8)


def test_a_sampler_that_asks_gets_losses_and_boxes(output, priors, targets):
    state = torch.zeros(2, 8, dtype=torch.int8)
    state[0, 2] = 1
    assignment = Assignment(torch.zeros(2, 8, dtype=torch.int64), state, torch.zeros(2, 8))
    sampler = Asker()
    parts = {"coder": Shift(), "loss_cls": Entropy(), "num_classes": 3}
    dense.sample(sampler, assignment, output, priors, targets, **parts)
    wanted = torch.zeros(2, 8, 3)
    wanted[0, 2, 2] = 1
    expected = F.binary_cross_entropy_with_logits(output.logits, wanted, reduction="none").sum(-1)
    torch.testing.assert_close(sampler.got.losses, expected.detach())
    assert not sampler.got.losses.requires_grad
    torch.testing.assert_close(sampler.got.boxes, (priors.boxes + output.codes * 2).detach())

    quiet = Asker(asks=False)
    dense.sample(quiet, assignment, output, priors, targets, **parts)
    assert len(parts["loss_cls"].calls) == 1


@pytest.mark.parametrize(("loss", "calls"), [(Entropy, [16]), (LevelWise, [12, 4])])
def test_a_loss_that_is_not_additive_goes_level_by_level(loss, calls, output):
    loss = loss()
    labels = torch.randint(0, 4, (2, 8))
    weights = torch.rand(2, 8)
    wanted = DenseTargets(labels, weights, chosen(), torch.tensor(5.0))
    total = dense.classification_loss(loss, output.logits, wanted, [6, 2])
    assert loss.calls == calls
    whole = Entropy()(output.logits.flatten(0, 1), labels.flatten(), weight=weights.flatten(), avg_factor=5.0)
    torch.testing.assert_close(total, whole)


class Quality(Entropy):
    uses_quality: ClassVar = True

    def forward(self, pred, target, *, weight=None, avg_factor=None, reduction=None, quality=None):
        self.calls.append(quality)
        each = super().forward(pred, target, reduction="none")
        each = each * quality[..., None]
        return each if reduction == "none" else each.sum() / avg_factor


class LevelQuality(Quality):
    additive: ClassVar = False


def test_quality_is_measured_at_the_positives(output, priors):
    positives = chosen()
    assert dense.localization_quality(Entropy(), output.codes, priors, positives, Shift()) is None
    quality = dense.localization_quality(Quality(), output.codes, priors, positives, Shift())
    assert quality.shape == (2, 8)
    assert not quality.requires_grad
    own = priors.boxes[positives.prior] + 2 * output.codes[positives.image, positives.prior]
    expected = boxes.aligned_overlap(own, positives.boxes).clamp(0, 1)
    torch.testing.assert_close(quality[positives.image, positives.prior], expected.detach())
    assert quality.count_nonzero() == expected.count_nonzero()


@pytest.mark.parametrize("loss", [Quality, LevelQuality])
def test_a_loss_that_asks_gets_the_quality(loss, output):
    loss, quality = loss(), torch.rand(2, 8)
    wanted = DenseTargets(torch.randint(0, 4, (2, 8)), torch.ones(2, 8), chosen(), torch.tensor(5.0))
    dense.classification_loss(loss, output.logits, wanted, [6, 2], quality)
    seen = [call for call in loss.calls if isinstance(call, torch.Tensor)]
    pieces = [quality] if loss.additive else quality.split([6, 2], 1)
    assert [s.tolist() for s in seen] == [p.flatten().tolist() for p in pieces]


def test_without_quality_a_loss_that_asks_is_refused(output):
    wanted = DenseTargets(torch.zeros(2, 8, dtype=torch.int64), torch.ones(2, 8), chosen(), torch.tensor(5.0))
    with pytest.raises(
        ConfigError, match=r"Quality regresses to the localisation quality.*such as FocalLoss"
    ):
        dense.classification_loss(Quality(), output.logits, wanted, [6, 2])


def test_a_sampler_ranks_by_a_loss_with_quality(output, priors, targets):
    state = torch.zeros(2, 8, dtype=torch.int8)
    state[0, 2] = 1
    assignment = Assignment(torch.zeros(2, 8, dtype=torch.int64), state, torch.zeros(2, 8))
    loss = Quality()
    dense.sample(Asker(), assignment, output, priors, targets, coder=Shift(), loss_cls=loss, num_classes=3)
    decoded = priors.boxes + 2 * output.codes.detach()
    expected = boxes.aligned_overlap(decoded, targets.boxes[:, :1].expand(-1, 8, -1)).clamp(0, 1)
    torch.testing.assert_close(loss.calls[0], expected)


class LevelDifference(Difference):
    additive: ClassVar = False

    def __init__(self) -> None:
        super().__init__()
        self.rows = []

    def forward(self, pred, target, *, weight=None, avg_factor=None, reduction=None):
        self.rows.append(len(pred))
        return super().forward(pred, target, weight=weight, avg_factor=avg_factor)


@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 2.0])])
def test_a_box_loss_that_is_not_additive_goes_level_by_level(weight, output, priors):
    loss = LevelDifference()
    arguments = (output.codes, priors, chosen(), Shift(), torch.tensor(4.0))
    by_level = dense.box_loss(loss, *arguments, on_boxes=False, weight=weight)
    assert loss.rows == [1, 1]  # prior 3 is of the first level, prior 7 of the second
    whole = dense.box_loss(Difference(), *arguments, on_boxes=False, weight=weight)
    torch.testing.assert_close(by_level, whole)


def test_box_loss_on_codes_and_on_boxes(output, priors):
    own = torch.stack((output.codes[0, 3], output.codes[1, 7]))
    anchors = priors.boxes[[3, 7]]
    count = torch.tensor(4.0)
    on_codes = dense.box_loss(Difference(), output.codes, priors, chosen(), Shift(), count, on_boxes=False)
    torch.testing.assert_close(on_codes, (own - (chosen().boxes - anchors) / 2).abs().sum() / 4)
    on_boxes = dense.box_loss(Difference(), output.codes, priors, chosen(), Shift(), count, on_boxes=True)
    torch.testing.assert_close(on_boxes, (own * 2 + anchors - chosen().boxes).abs().sum() / 4)


@pytest.mark.parametrize("on_boxes", [False, True])
def test_weights_of_sample_coder_and_caller_multiply(on_boxes, output, priors):
    def value(positives, coder, weight=None):
        return dense.box_loss(
            Difference(), output.codes, priors, positives, coder, 1.0, on_boxes=on_boxes, weight=weight
        )

    plain = value(chosen(), Shift())
    halved = chosen(weight=torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(value(halved, Shift()), plain / 2)
    torch.testing.assert_close(value(chosen(), Shift(), weight=torch.full((2,), 0.25)), plain / 4)
    factor = 1 if on_boxes else 3
    torch.testing.assert_close(value(chosen(), Shift(weighted=True)), plain * factor)
    torch.testing.assert_close(value(halved, Shift(weighted=True)), plain / 2 * factor)


@pytest.mark.parametrize("on_boxes", [False, True])
def test_without_positives_the_box_loss_is_zero_and_connected(on_boxes, output, priors):
    nothing = torch.zeros(0, dtype=torch.int64)
    none = Positives(nothing, nothing, torch.zeros(0, 4), nothing, None)
    loss = dense.box_loss(
        Difference(), output.codes, priors, none, Shift(), torch.tensor(1.0), on_boxes=on_boxes
    )
    loss.backward()
    assert loss == 0
    assert not output.codes.grad.any()


# ---------------------------------------------------------------------------------------------- prediction


def test_detect_decodes_the_chosen_candidates(output, priors, batch):
    post, factors = Everything(), torch.rand(2, 8)
    found = dense.detect(post, output.logits.sigmoid(), output, priors, batch, Shift(), factors)
    torch.testing.assert_close(found.boxes, (priors.boxes + output.codes * 2).flip(1))
    assert post.seen[0] == [6, 2]
    assert post.seen[1] is factors
