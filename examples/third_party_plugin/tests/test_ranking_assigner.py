"""RankingAssigner."""

from typing import Any

import pytest
import torch
from detcore import SingleStageDetector
from detcore.errors import ConfigError
from detcore.structures import Priors, Targets
from detcore.testing import parametrize_with_checks
from detcore_fpn import FPN
from detcore_resnet import ResNet
from detcore_retina import RetinaHead

from tiny_objects import NWDLoss, RankingAssigner

SQUARES = torch.tensor([[x, 0.0, x + 4.0, 4.0] for x in (0.0, 10.0, 20.0, 30.0)])


@parametrize_with_checks([RankingAssigner.spec(), RankingAssigner.spec(per_object=5, size=32.0)])
def test_conformance(component: Any, check: Any) -> None:
    check(component)


def targets(*boxes: list[float]) -> Targets:
    return Targets.stack(
        [{"boxes": torch.tensor(boxes), "labels": torch.zeros(len(boxes), dtype=torch.int64)}]
    )


def assign(assigner: RankingAssigner, *boxes: list[float]) -> tuple[list[int], list[int]]:
    result = assigner.assign(Priors(SQUARES, torch.ones(4, 2)), targets(*boxes))
    return result.state[0].tolist(), result.gt_index[0].tolist()


def test_each_object_takes_the_closest() -> None:
    # it overlaps no prior at all, and has its two all the same
    assert assign(RankingAssigner(per_object=2), [14.5, 0.0, 16.5, 4.0]) == ([0, 1, 1, 0], [0, 0, 0, 0])


def test_a_prior_goes_to_the_closer_object() -> None:
    state, gt_index = assign(RankingAssigner(per_object=2), [2.0, 0.0, 6.0, 4.0], [9.0, 0.0, 13.0, 4.0])
    assert state == [1, 1, 0, 0]
    assert gt_index == [0, 1, 0, 0]


def test_more_than_there_are() -> None:
    assert assign(RankingAssigner(per_object=9), [0.0, 0.0, 4.0, 4.0])[0] == [1, 1, 1, 1]


def test_no_prior() -> None:
    result = RankingAssigner().assign(
        Priors(torch.zeros(0, 4), torch.zeros(0, 2)), targets([0.0, 0.0, 4.0, 4.0])
    )
    assert result.state.shape == (1, 0)


def test_the_order_of_chunks_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    from tiny_objects import ranking_assigner

    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(30, 2, generator=generator) * 30
    boxes = torch.cat((corner, corner + 4), dim=1).tolist()
    whole = assign(RankingAssigner(), *boxes)
    monkeypatch.setattr(ranking_assigner, "CHUNK", 7)
    assert assign(RankingAssigner(), *boxes) == whole


def test_a_parameter_out_of_range() -> None:
    with pytest.raises(ConfigError, match="per_object: input should be greater than or equal to 1; got 0"):
        RankingAssigner(per_object=0)


def test_they_train_in_a_detector() -> None:
    torch.manual_seed(0)
    model = SingleStageDetector(
        num_classes=3,
        backbone=ResNet.spec(depth=18, frozen_stages=-1),
        neck=FPN.spec(out_channels=32, num_outs=5),
        head=RetinaHead.spec(
            feat_channels=32, stacked_convs=1, assigner=RankingAssigner(), loss_bbox=NWDLoss(loss_weight=10.0)
        ),
    )
    images = [torch.randint(0, 256, (3, 96, 128), dtype=torch.uint8)]
    wanted = [{"boxes": torch.tensor([[20.0, 30.0, 27.0, 36.0]]), "labels": torch.tensor([2])}]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    losses = model.train()(images, wanted)
    assert losses.metrics["num_positives"] == 2
    losses.total.backward()
    optimizer.step()
    assert all(p.isfinite().all() for p in model.parameters())
    assert model.eval()(images).boxes.isfinite().all()
