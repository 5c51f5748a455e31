"""Every golden through the bridge: translated, weights renamed, all numbers compared.

A golden whose components do not exist yet is skipped with what is missing, and turns into a test when they
do.
"""

import json

import pytest
import torch
from detcore_mmdet import TranslationError, translate
from detcore_mmdet.parity.detectors import compare_detector
from detcore_mmdet.parity.modules import compare_module
from detcore_mmdet.parity.switches import SWITCHES
from detcore_mmdet.parity.table import needed
from detcore_mmdet.parity.tasks import FAMILIES, cases_of, compare_case

from detcore import build, registry
from detcore.signature import signature_of
from detcore.testing.goldens import folder, missing, model_names, task_cases
from detcore.weights import without_weights

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

MODULES = ("backbone_", "neck_", "head_", "roi_extractor_", "shared_head_", "layer_")
#: What must not fall back to "not yet".
DONE_DETECTORS = (
    "retinanet_r18_fpn",
    "retinanet_r50_fpn",
    "retinanet_r50_caffe_fpn",
    "retinanet_r101_fpn",
    "atss_r50_fpn",
    "rpn_r50_fpn",
    "faster_rcnn_r50_fpn",
    "faster_rcnn_r50_fpn_3class",
    "faster_rcnn_r50_caffe_c4",
    "faster_rcnn_r50_caffe_dc5",
    "faster_rcnn_r50_dcn_c3_c5",
    "faster_rcnn_r50_mdcn_c3_c5",
    "attn0010_faster_rcnn_r50",
    "attn1111_faster_rcnn_r50",
    "gcnet_mask_rcnn_r50",
    "faster_rcnn_r101_fpn",
    "giou_faster_rcnn_r18",
    "ohem_faster_rcnn_r18",
    "pisa_faster_rcnn_r18",
    "mask_rcnn_r50_fpn",
    "mask_rcnn_r50_gn",
    "cascade_rcnn_r50_fpn",
    "cascade_mask_rcnn_r50_fpn",
)
DONE_MODULES = (
    *(f"backbone_resnet{depth}" for depth in (18, 34, 50, 101, 152)),
    "backbone_resnet50_caffe",
    "backbone_resnet50_deep_stem",
    "backbone_resnet50_gn",
    "backbone_resnetv1d50",
    "backbone_resnet50_dcn",
    "backbone_resnet50_dcn_fallback",
    "backbone_resnet50_mdcn_g4",
    "backbone_resnet50_plugin_context_block",
    "backbone_resnet50_plugin_gen_attention",
    "backbone_resnet50_plugin_nonlocal2d",
    "shared_head_res_layer",
    "layer_aspp_rfp",
    "layer_context_block_att_add_mul",
    "layer_dcn_pack_g4",
    "layer_gen_attention_0100",
    "layer_gen_attention_1111_range",
    "layer_mdcn_pack_g1",
    "layer_nonlocal_concatenation",
    "layer_nonlocal_embedded_gaussian_sub",
    "layer_se",
    "layer_spp_bottleneck",
    "neck_fpn_4",
    "neck_fpn_on_input",
    "neck_fpn_on_output",
    "neck_fpn_gn_relu",
    "neck_fpn_bilinear",
    "head_shared2fc",
    "head_convfc_split_convs",
    "head_fcn_mask_deconv",
    "roi_extractor_single_align",
)
DONE_COMPONENTS = (
    "AnchorGenerator",
    "LegacyAnchorGenerator",
    "LegacySSDAnchorGenerator",
    "MlvlPointGenerator",
    "SSDAnchorGenerator",
    "YOLOAnchorGenerator",
    "BucketingBBoxCoder",
    "DeltaXYWHBBoxCoder",
    "DistancePointBBoxCoder",
    "LegacyDeltaXYWHBBoxCoder",
    "PseudoBBoxCoder",
    "TBLRBBoxCoder",
    "YOLOBBoxCoder",
    "MaxIoUAssigner",
    "ATSSAssigner",
    "ApproxMaxIoUAssigner",
    "CenterRegionAssigner",
    "GridAssigner",
    "PointAssigner",
    "RegionAssigner",
    "UniformAssigner",
    "CombinedSampler",
    "InstanceBalancedPosSampler",
    "IoUBalancedNegSampler",
    "OHEMSampler",
    "PseudoSampler",
    "RandomSampler",
    "ScoreHLRSampler",
    "CrossEntropyLoss",
    "FocalLoss",
    "QualityFocalLoss",
    "VarifocalLoss",
    "GHMC",
    "SeesawLoss",
    "L1Loss",
    "SmoothL1Loss",
    "MSELoss",
    "BalancedL1Loss",
    "GHMR",
    "IoULoss",
    "GIoULoss",
    "DIoULoss",
    "CIoULoss",
    "EIoULoss",
    "SIoULoss",
    "BoundedIoULoss",
    "GaussianFocalLoss",
    "DistributionFocalLoss",
    "KnowledgeDistillationKLDivLoss",
    "DiceLoss",
    "AssociativeEmbeddingLoss",
)


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors gain nothing from threads, and lose much where a machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def compared(compare, *args, done):
    """The comparison, or a skip that says which component is missing."""
    try:
        return compare(*args)
    except TranslationError as error:
        if done:
            raise
        pytest.skip(f"not yet: {needed(error)}")


def detectors():
    for name in model_names():
        if not name.startswith(MODULES):
            large = not ("_r18" in name and "mask" not in name)
            yield pytest.param(name, id=name, marks=[pytest.mark.slow] * large)


def modules():
    for name in model_names(*MODULES):
        large = name.startswith("backbone_") and name not in ("backbone_resnet18", "backbone_resnet50_gn")
        yield pytest.param(name, id=name, marks=[pytest.mark.slow] * large)


@pytest.mark.parametrize("name", list(detectors()))
def test_detector(name):
    """Features, raw outputs, detections, losses and gradients, within the goldens' tolerances."""
    result = compared(compare_detector, name, done=name in DONE_DETECTORS)
    assert result.problems == []
    assert {"features", "forward", "prediction", "loss", "gradient"} <= set(result.errors)


@pytest.mark.parametrize("name", list(modules()))
def test_module(name):
    result = compared(compare_module, name, done=name in DONE_MODULES)
    assert result.problems == []
    assert "forward" in result.errors


@pytest.mark.parametrize(("family", "cls"), sorted({(f, c["cls"]) for f in FAMILIES for c in cases_of(f)}))
def test_component(family, cls):
    """All cases of a component, its parameters as the bridge sets them."""
    for case in cases_of(family):
        if case["cls"] == cls:
            result = compared(compare_case, case, done=cls in DONE_COMPONENTS)
            assert result.problems == [], case["id"]


def configs():
    path = folder() and folder().parent / "mmdet_configs.json"
    return json.loads(path.read_text()) if path and path.is_file() else {}


CONFIGS = configs()
MISSING = ("would need a detcore plugin", "no counterpart in detcore", "options are not translated yet")


@pytest.mark.parametrize("name", list(CONFIGS))
def test_config_translates_or_says_what_is_missing(name):
    config = CONFIGS[name]
    before = json.dumps(config)
    problems, translated = [], None
    try:
        translated = translate(config)
    except TranslationError as error:
        problems = error.problems
    for problem in problems:
        assert problem.path
        assert any(
            text in problem.message for text in ("would need a detcore plugin", "no counterpart in detcore")
        )
    if not problems:
        assert translated["num_classes"] == (1 if config["type"] == "RPN" else 80)
        with without_weights():
            build(translated)
    assert json.dumps(config) == before


def test_the_goldens_are_all_there():
    assert len(list(detectors())) == 100
    assert len(list(modules())) == 182
    assert task_cases("losses")


@pytest.mark.parametrize("switch", SWITCHES, ids=lambda s: f"{s.component}.{s.parameter}")
def test_switches_exist_and_are_off_by_default(switch):
    found = [kind for kind in registry.kinds() if switch.component in registry.names(kind)]
    (kind,) = found
    parameter = signature_of(registry.resolve(kind, switch.component)).parameters[switch.parameter]
    assert parameter.default != switch.reference
