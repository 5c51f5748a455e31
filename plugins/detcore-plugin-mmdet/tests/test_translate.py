"""Configurations are translated completely, or it is said what is not."""

import copy

import pytest
from detcore_mmdet import TranslationError, translate, translation_of

from detcore import build
from detcore.errors import ConfigError
from detcore.weights import without_weights


def test_retinanet(retinanet):
    before = copy.deepcopy(retinanet)
    config = translate(retinanet)
    assert retinanet == before
    assert config["type"] == "SingleStageDetector"
    assert config["num_classes"] == 3
    assert config["backbone"] == {
        "type": "ResNet",
        "depth": 18,
        "num_stages": 4,
        "out_indices": [0, 1, 2, 3],
        "style": "pytorch",
        "frozen_stages": 1,
        "norm_eval": True,
        "norm": "BN",
    }
    assert config["neck"]["add_extra_convs"] == "on_input"
    assert config["head"]["assigner"]["match_without_overlap"] is True
    assert config["head"]["postprocess"]["iou_threshold"] == 0.5
    with without_weights():
        model = build(config)
    assert model.head.num_classes == 3


def test_notes_tell_what_was_left_out(retinanet):
    translation = translation_of(retinanet)
    notes = {note.path: note.message for note in translation.notes}
    assert "torchvision://resnet18" in notes["backbone.init_cfg"]
    assert notes["train_cfg.debug"].startswith("False")
    assert translation.report.weights == {"backbone": "torchvision://resnet18"}


def test_every_option_is_translated_or_reported(retinanet):
    """A made-up option anywhere is an error with its path."""

    def places(value, path=""):
        if isinstance(value, dict):
            yield path
            for key, item in value.items():
                yield from places(item, f"{path}.{key}".strip("."))

    for path in places(retinanet):
        if (
            path.endswith("init_cfg") or path == "train_cfg.sampler"
        ):  # looked into, or the reference takes anything
            continue
        config = copy.deepcopy(retinanet)
        place = config
        for step in filter(None, path.split(".")):
            place = place[step]
        place["made_up"] = 7
        with pytest.raises(TranslationError) as raised:
            translate(config)
        assert [p.path for p in raised.value.problems] == [f"{path}.made_up".strip(".")], path
        assert "7" in str(raised.value)


def test_all_problems_at_once(retinanet):
    retinanet["backbone"] = {"type": "HourglassNet", "num_stacks": 2}
    retinanet["neck"]["conv_cfg"] = {"type": "DCN"}
    retinanet["bbox_head"]["loss_cls"] = {"type": "MadeUpLoss", "weight": 1}
    retinanet["test_cfg"]["nms"]["type"] = "made_up_nms"
    with pytest.raises(TranslationError) as raised:
        translate(retinanet)
    assert [problem.path for problem in raised.value.problems] == [
        "backbone.type",
        "neck.conv_cfg",
        "bbox_head.loss_cls.type",
        "test_cfg.nms.type",
    ]
    assert "'HourglassNet' (backbone) would need a detcore plugin" in str(raised.value)
    assert isinstance(raised.value, ConfigError)


def test_unknown_detector_names_all_that_is_missing():
    config = {
        "type": "PointRend",
        "backbone": {"type": "HourglassNet", "norm_cfg": {"type": "BN"}},
        "roi_head": {"type": "PointRendRoIHead", "mask_head": {"type": "CoarseMaskHead"}},
    }
    with pytest.raises(TranslationError) as raised:
        translate(config)
    paths = [problem.path for problem in raised.value.problems]
    assert paths == ["type", "backbone.type", "roi_head.type", "roi_head.mask_head.type"]


@pytest.mark.parametrize(
    ("nms", "expected"),
    [
        ({"type": "nms", "iou_threshold": 0.6, "split_thr": 1}, {"iou_threshold": 0.6}),
        (
            {"type": "nms", "iou_thr": 0.4, "class_agnostic": True},
            {"iou_threshold": 0.4, "class_agnostic": True},
        ),
        ({"iou_threshold": 0.6, "max_num": 7}, {"iou_threshold": 0.6, "max_per_img": 7}),
        (
            {"type": "nms", "iou_threshold": 0.6, "offset": 1, "score_threshold": 0.2},
            {"iou_threshold": 0.6, "nms": {"type": "NMS", "offset": 1, "score_threshold": 0.2}},
        ),
        ({"type": "soft_nms"}, {"iou_threshold": 0.3, "nms": {"type": "SoftNMS"}}),
        (
            {"type": "soft_nms", "iou_threshold": 0.5, "method": "gaussian", "sigma": 0.4, "min_score": 0.05},
            {
                "iou_threshold": 0.5,
                "nms": {"type": "SoftNMS", "method": "gaussian", "sigma": 0.4, "min_score": 0.05},
            },
        ),
    ],
)
def test_suppression(retinanet, nms, expected):
    retinanet["test_cfg"]["nms"] = nms
    post = translate(retinanet)["head"]["postprocess"]
    stated = {name: post[name] for name in ("iou_threshold", "class_agnostic", "nms") if name in post}
    assert {**stated, **{n: post[n] for n in expected}} == expected
    assert build(post, kind="postprocess").nms.iou_threshold == expected["iou_threshold"]
    retinanet["test_cfg"]["nms"] = {**nms, "made_up": 7}
    with pytest.raises(TranslationError, match="made_up"):
        translate(retinanet)


def test_two_stages():
    """Settings of both stages reach their heads; proposals for training are their own."""
    anchors = {"type": "AnchorGenerator", "scales": [8], "ratios": [1.0], "strides": [4, 8, 16, 32, 64]}
    assigner = {"type": "MaxIoUAssigner", "pos_iou_thr": 0.7, "neg_iou_thr": 0.3}
    sampler = {"type": "RandomSampler", "num": 8, "pos_fraction": 0.5, "add_gt_as_proposals": False}
    proposals = {"nms_pre": 400, "max_per_img": 48, "nms": {"type": "nms", "iou_threshold": 0.7}}
    extractor = {"type": "SingleRoIExtractor", "out_channels": 256, "featmap_strides": [4, 8, 16, 32]}
    layer = {"type": "RoIAlign", "output_size": 7, "sampling_ratio": 0}
    box_head = {"type": "Shared2FCBBoxHead", "num_classes": 7, "roi_feat_size": 7}
    config = translate(
        {
            "type": "FasterRCNN",
            "backbone": {"type": "ResNet", "depth": 18},
            "neck": {"type": "FPN", "in_channels": [64, 128, 256, 512], "num_outs": 5},
            "rpn_head": {"type": "RPNHead", "in_channels": 256, "anchor_generator": anchors},
            "roi_head": {
                "type": "StandardRoIHead",
                "bbox_roi_extractor": {**extractor, "roi_layer": layer},
                "bbox_head": box_head,
            },
            "train_cfg": {
                "rpn": {"assigner": assigner, "sampler": sampler, "allowed_border": 0},
                "rpn_proposal": proposals,
                "rcnn": {"assigner": assigner, "sampler": {**sampler, "add_gt_as_proposals": True}},
            },
            "test_cfg": {
                "rpn": {**proposals, "max_per_img": 64},
                "rcnn": {"score_thr": 0.05, "nms": {"type": "nms", "iou_threshold": 0.5}, "max_per_img": 100},
            },
        }
    )
    assert (config["type"], config["num_classes"]) == ("TwoStageDetector", 7)
    assert config["rpn_head"]["train_postprocess"]["max_per_img"] == 48
    assert config["rpn_head"]["postprocess"]["max_per_img"] == 64
    assert config["rpn_head"]["allowed_border"] == 0
    assert config["roi_head"]["sampler"] == {"type": "RandomSampler", "num": 8, "pos_fraction": 0.5}
    assert "add_gt_as_proposals" not in config["roi_head"]
    assert config["roi_head"]["bbox_roi_extractor"]["num_levels"] == 4
    assert config["roi_head"]["postprocess"]["nms_pre"] is None


def test_names_that_nobody_knows(retinanet):
    retinanet["neck"]["type"] = "FPNN"
    with pytest.raises(TranslationError, match=r"neck.type: 'FPNN' is neither known .*; did you mean 'FPN'"):
        translate(retinanet)


@pytest.mark.parametrize(
    "config", [{}, {"type": None}, {"model": 5}, {"model": {"depth": 5}}, [], None, "ResNet"]
)
def test_what_is_no_configuration(config):
    with pytest.raises(TranslationError, match=r"expected|is a mapping"):
        translate(config)


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ({"type": "FPN", "in_channels": 5, "norm_cfg": [1]}, "norm_cfg"),
        ({"type": "ResNet", "depth": 18, "dcn": 5}, "dcn"),
        ({"type": "MaxIoUAssigner", "ignore_iof_thr": "x"}, ""),
        ({"type": "RetinaHead", "anchor_generator": 7}, ""),
        ({"type": "RetinaNet", "backbone": [], "bbox_head": {}}, "backbone"),
    ],
)
def test_options_of_wrong_types_are_our_errors(config, path):
    with pytest.raises(TranslationError) as raised:
        translate(config)
    assert path in [problem.path for problem in raised.value.problems]


def test_components_alone_get_what_a_detector_would_supply():
    neck = build(translate({"type": "FPN", "in_channels": [8, 16], "out_channels": 4, "num_outs": 3}))
    assert [feature.stride for feature in neck.out_features] == [4, 8, 16]
    head = build(translate({"type": "RetinaHead", "num_classes": 2, "in_channels": 8}))
    assert head.num_classes == 2
    generator = build(
        translate({"type": "AnchorGenerator", "ratios": [1.0], "scales": [8], "strides": [4, (8, 16)]})
    )
    assert generator.strides == ((4, 4), (8, 16))


def test_the_references_defaults_are_written_out():
    config = translate({"type": "ResNet", "depth": 50})
    assert config["norm_eval"] is True
    assert (
        translate({"type": "MaxIoUAssigner", "pos_iou_thr": 0.5, "neg_iou_thr": 0.5})["ignore_iof_thr"]
        is None
    )
    head = translate({"type": "RetinaHead", "num_classes": 2, "in_channels": 8})
    assert head["loss_bbox"] == {"type": "SmoothL1Loss", "beta": 1 / 9, "loss_weight": 1.0}
    assert head["prior_generator"]["octave_base_scale"] == 4


def test_caffe_preprocessing_turns_the_statistics_round():
    config = {"type": "DetDataPreprocessor", "mean": [103.53, 116.28, 123.675], "std": [1.0, 1.0, 1.0]}
    assert translate({**config, "bgr_to_rgb": False}) == {
        "type": "ImagePreprocessor",
        "mean": [123.675, 116.28, 103.53],
        "std": [1.0, 1.0, 1.0],
        "size_divisor": 1,
        "channel_order": "bgr",
    }


def test_the_dialect_of_2x(retinanet):
    """``pretrained``, settings beside the model, normalisation in the pipeline, ``extra_convs_on_inputs``."""
    train, test = retinanet.pop("train_cfg"), retinanet.pop("test_cfg")
    del retinanet["data_preprocessor"], retinanet["backbone"]["init_cfg"]
    retinanet["pretrained"] = "torchvision://resnet18"
    retinanet["neck"] |= {"add_extra_convs": True, "extra_convs_on_inputs": False}
    normalize = {"type": "Normalize", "mean": [1.0, 2.0, 3.0], "std": [4.0, 5.0, 6.0], "to_rgb": False}
    pipeline = [{"type": "LoadImageFromFile"}, normalize, {"type": "Pad", "size_divisor": 16}]
    cfg = {
        "model": retinanet,
        "train_cfg": train,
        "test_cfg": test,
        "data": {"train": {"pipeline": pipeline}},
    }
    config = translate(cfg)
    assert config["neck"]["add_extra_convs"] == "on_output"
    assert config["head"]["assigner"]["pos_iou_thr"] == 0.5
    assert config["preprocessor"] == {
        "type": "ImagePreprocessor",
        "mean": [3.0, 2.0, 1.0],
        "std": [6.0, 5.0, 4.0],
        "size_divisor": 16,
        "channel_order": "bgr",
    }
    loop = {"type": "EpochBasedTrainLoop", "max_epochs": 12}
    with_loop = translation_of({"model": retinanet, "train_cfg": loop})
    assert "assigner" not in with_loop.config["head"]


def test_scopes_are_taken_off():
    assert translate({"type": "mmdet.FPN", "in_channels": [8], "num_outs": 1})["type"] == "FPN"


def test_stages_that_give_nothing_are_left_out():
    translation = translation_of({"type": "ResNet", "depth": 18, "out_indices": (1, 2)})
    assert translation.config["num_stages"] == 3
    assert translation.config["strides"] == [1, 2, 2]
    assert translation.report.unused == ["layer4."]


def test_translators_of_plugins(monkeypatch):
    """An entry point brings a translator; a broken one is named."""
    import detcore_mmdet.catalog as catalog

    class Point:
        value, dist = "theirs:translate", None

        def __init__(self, result):
            self.result = result

        def load(self):
            if isinstance(self.result, Exception):
                raise self.result
            return self.result

    def points(group, name):
        assert group == "detcore_mmdet.translators"
        return {
            "TheirNeck": [Point(lambda o: {"type": "TheirNeck", **o.same("width")})],
            "Bad": [Point(KeyError("x"))],
        }.get(name, [])

    monkeypatch.setattr(catalog.importlib_metadata, "entry_points", points)
    assert translate({"type": "TheirNeck", "width": 3}) == {"type": "TheirNeck", "width": 3}
    with pytest.raises(TranslationError, match="the option 'depth' of TheirNeck"):
        translate({"type": "TheirNeck", "depth": 3})
    with pytest.raises(
        TranslationError, match=r"the translator of 'Bad' in .* cannot be loaded: 'theirs:translate'"
    ):
        translate({"type": "Bad"})
