"""ATSS, composed by hand, against the reference's numbers."""

import pytest
from detcore_assigners import ATSSAssigner
from detcore_atss import ATSSHead
from detcore_coders import DeltaXYWHBBoxCoder
from detcore_fpn import FPN
from detcore_resnet import ResNet

from detcore import SingleStageDetector
from detcore.testing.detector_goldens import detector_problems
from detcore.testing.goldens import missing, model, model_names
from detcore.testing.module_goldens import load_reference_weights

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

RULES = ((r"^bbox_head\.", "head."), *FPN.reference_names, *ATSSHead.reference_names)


def atss(num_classes):
    return SingleStageDetector(
        num_classes=num_classes,
        backbone=ResNet(depth=50, frozen_stages=1, norm_eval=True),
        neck=FPN.spec(start_level=1, num_outs=5, add_extra_convs="on_output"),
        head=ATSSHead.spec(
            assigner=ATSSAssigner(
                ignore_iof_thr=None,
                ignored_candidates=True,
                match_single_candidate=False,
                ignore_in_empty_images=False,
            ),
            bbox_coder=DeltaXYWHBBoxCoder(target_stds=(0.1, 0.1, 0.2, 0.2), empty_size=0),
        ),
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", [s for s in (0, 1) if model_names("atss_r50_fpn", seed=s)])
def test_atss_gives_the_references_numbers(seed):
    meta, data = model("atss_r50_fpn", seed)
    detector = atss(meta["num_classes"])
    load_reference_weights(detector, meta, RULES)
    assert detector_problems(detector, meta, data, RULES, ("logits", "codes", "centerness")) == []
