"""Files from detectors, and detectors from files."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime
import pytest
import torch
from detcore_export import (
    ExportMismatchError,
    MissingRuntimeError,
    NotExportableError,
    Tolerance,
    export,
    load,
)
from detcore_postprocess import NMS, NMSPostprocess, SoftNMS

from detcore.errors import CheckpointError, ConfigError, DataError

SUFFIXES = {"onnx": ".onnx", "torch-export": ".pt2"}


@pytest.fixture(scope="module", params=["onnx", pytest.param("torch-export", marks=pytest.mark.slow)])
def exported(request, make_detector, tmp_path_factory):
    """A detector of any number and size of images, and its file."""
    detector = make_detector()
    path = tmp_path_factory.mktemp("files") / f"cells{SUFFIXES[request.param]}"
    return detector, export(detector, path, format=request.param, true_sizes=True)


def picture(*size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)


def assert_equal(got, want):
    assert want.valid.any()
    assert torch.equal(got.valid, want.valid)
    assert torch.equal(got.labels, want.labels)
    torch.testing.assert_close(got.boxes, want.boxes, rtol=0, atol=1e-2)
    torch.testing.assert_close(got.scores, want.scores, rtol=0, atol=1e-4)


def test_was_checked_on_three_batches_and_two_sizes(exported):
    _, done = exported
    assert [c.batch for c in done.comparisons] == [1, 2, 5, 1, 2, 5]
    assert len({c.size for c in done.comparisons}) == 2
    assert done.detections > 50
    assert done.differences["boxes"] <= 0.01
    assert done.differences["scores"] <= 1e-4


def test_images_of_several_sizes_give_what_the_detector_gives(exported):
    detector, done = exported
    images = [picture(70, 90), picture(160, 128, seed=1), picture(33, 200, seed=2)]
    with torch.no_grad():
        assert_equal(load(done.path)(images), detector(images))


def test_class_names_and_ids_are_inside(exported):
    _, done = exported
    found = load(done.path)
    assert found.class_map.names == ("ant", "bee", "cow")
    assert found.class_map.ids == (3, 7, 9)


@pytest.mark.slow
@pytest.mark.reliability(
    area="export",
    fault="no box is above the threshold, or only one",
    outcome="the file answers as the detector does",
)
def test_images_in_which_nothing_is_found(make_detector, tmp_path):
    detector = make_detector(
        postprocess=NMSPostprocess.spec(nms_pre=50, max_per_img=20, score_thr=0.72, iou_threshold=0.01)
    )
    with torch.no_grad():
        detector.head.cls.weight.zero_()
        detector.head.cls.bias.zero_()
    done = export(detector, tmp_path / "cells.pt2", format="torch-export", batch=2, size=(48, 64))
    assert done.detections == 0
    with torch.no_grad():
        detector.head.cls.weight.fill_(0.5)
    done = export(detector, tmp_path / "cells.pt2", format="torch-export", batch=2, size=(48, 64))
    assert 0 < done.detections < 10


def test_plain_onnxruntime_runs_it(make_detector, tmp_path):
    detector = make_detector()
    done = export(detector, tmp_path / "one.onnx", batch=1, size=(64, 96))
    session = onnxruntime.InferenceSession(done.path, providers=["CPUExecutionProvider"])
    image = picture(64, 96)
    boxes, scores, labels, valid = session.run(None, {"images": image[None].numpy()})
    assert [output.name for output in session.get_outputs()] == ["boxes", "scores", "labels", "valid"]
    assert (boxes.shape, boxes.dtype) == ((1, 20, 4), np.float32)
    assert (labels.dtype, valid.dtype) == (np.int64, np.bool_)
    facts = json.loads(session.get_modelmeta().custom_metadata_map["detcore.json"])
    assert facts["classes"]["names"] == ["ant", "bee", "cow"]
    with torch.no_grad():
        want = detector([image])
    torch.testing.assert_close(torch.from_numpy(scores), want.scores, rtol=0, atol=1e-4)

    found = load(done.path)
    with pytest.raises(DataError, match=r"the file is for 1 images at once, got 2"):
        found([image, image])
    with pytest.raises(DataError, match=r"images\[0\]: the file is for images of \[64, 96\], got \[64, 80\]"):
        found([picture(64, 80)])
    with pytest.raises(
        DataError, match=r"images\[0\]: expected uint8 \[3, H, W\], got torch.float32 \[3, 64, 96\]"
    ):
        found([image.float()])
    with pytest.raises(DataError, match="at least one image"):
        found([])


@pytest.mark.parametrize(
    "nms",
    [
        pytest.param(NMS.spec(iou_threshold=0.3, offset=1, score_threshold=0.4), id="offset"),
        pytest.param(NMS.spec(iou_threshold=1.0), id="drops-none"),
        pytest.param(SoftNMS.spec(min_score=0.3), id="soft"),
    ],
)
@pytest.mark.slow
def test_other_suppressions(make_detector, tmp_path, nms):
    postprocess = NMSPostprocess.spec(nms_pre=30, max_per_img=20, score_thr=0.3, nms=nms)
    done = export(make_detector(postprocess=postprocess), tmp_path / "cells.onnx", batch=2, size=(64, 96))
    assert done.detections > 10


@pytest.mark.slow
def test_the_detector_stays_as_it_is(make_detector, tmp_path):
    detector = make_detector().train()
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    export(detector, tmp_path / "cells.pt2", format="torch-export", batch=1, size=(48, 64), check=False)
    assert detector.training
    assert all(torch.equal(value, before[name]) for name, value in detector.state_dict().items())


# -------------------------------------------------------------------------------------------------------- faults


@pytest.mark.reliability(
    area="export", fault="the file gives other numbers than the detector", outcome="an error, and no file"
)
def test_a_file_that_differs_is_not_left_behind(make_detector, tmp_path, monkeypatch):
    """The weights change between what is written and what it is compared with."""
    from detcore_export import exporting

    write = exporting.write_program

    def damage(program, *args):
        with torch.no_grad():
            for name, parameter in program.state_dict.items():
                if name.endswith("reg.bias"):
                    parameter.add_(0.5)
        write(program, *args)

    def copied(module, *args, **options):
        return capture(__import__("copy").deepcopy(module), *args, **options)

    capture = exporting.capture
    monkeypatch.setattr(exporting, "capture", copied)
    monkeypatch.setattr(exporting, "write_program", damage)
    path = tmp_path / "cells.pt2"
    path.write_text("an older file")
    with pytest.raises(
        ExportMismatchError,
        match=r"output 'boxes' differs by .* in image 0 in a batch of 2 images of 48x64 pixels.*0.01 and 0.0001 are",
    ):
        export(make_detector(), path, format="torch-export", batch=2, size=(48, 64))
    assert [p.name for p in tmp_path.iterdir()] == ["cells.pt2"]
    assert path.read_text() == "an older file"


@pytest.mark.reliability(
    area="export",
    fault="a module cannot be captured as a graph",
    outcome="an error that names the module; no file",
)
def test_a_module_that_cannot_be_captured_is_named(make_detector, tmp_path, breaking):
    detector = make_detector()
    detector.backbone.extra = breaking
    with pytest.raises(
        NotExportableError,
        match=r"^backbone\.extra \(Breaking\) cannot be captured by torch\.export: .*return x \* 2 if x\.sum\(\)",
    ):
        export(detector, tmp_path / "cells.onnx", batch=1, size=(48, 64))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.reliability(
    area="export",
    fault="an operator does not exist in ONNX",
    outcome="an error that names it and its module; no file",
)
def test_an_operator_that_onnx_has_not_is_named(make_detector, tmp_path, untranslated):
    detector = make_detector()
    detector.backbone.extra = untranslated
    with pytest.raises(
        NotExportableError,
        match=r"^backbone\.extra \(Untranslated\) cannot be written as ONNX: its operator prims\.bessel_i1e\.default",
    ):
        export(detector, tmp_path / "cells.onnx", batch=1, size=(48, 64))
    assert not list(tmp_path.iterdir())


def test_a_preprocessor_without_stacked_is_named(make_detector, tmp_path):
    detector = make_detector()
    detector.preprocessor = torch.nn.Identity()
    with pytest.raises(
        NotExportableError, match=r"SingleStageDetector has the preprocessor Identity with a method"
    ):
        export(detector, tmp_path / "cells.onnx")


@pytest.mark.reliability(
    area="export",
    fault="onnxruntime is not installed",
    outcome="an error that says what to install, before any work",
)
def test_without_onnxruntime(make_detector, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(MissingRuntimeError, match=r"pip install onnxruntime, or export without the check"):
        export(make_detector(), tmp_path / "cells.onnx")
    (tmp_path / "cells.onnx").write_bytes(b"")
    with pytest.raises(MissingRuntimeError, match="pip install onnxruntime"):
        load(tmp_path / "cells.onnx")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "tflite"}, "format should be one of onnx, torch-export, got 'tflite'"),
        ({"format": "torch-export"}, r"a file of format torch-export should end in \.pt2, got 'a\.onnx'"),
        ({"batch": 0}, "batch should be 'dynamic' or a number of images, got 0"),
        ({"size": (0, 5)}, r"size should be 'dynamic' or \(height, width\) in pixels, got \(0, 5\)"),
        ({"opset": 11}, "opset should be at least 18, got 11"),
    ],
)
def test_arguments(make_detector, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        export(make_detector(), tmp_path / "a.onnx", **options)


@pytest.mark.reliability(
    area="export",
    fault="a file is missing, damaged or of another program",
    outcome="an error that names the file",
)
def test_files_that_are_no_exported_detector(tmp_path, record_property):
    faults = {
        "none.onnx": (None, "no such file"),
        "a.txt": (b"", r"an exported detector ends in \.onnx or \.pt2"),
        "a.onnx": (b"nonsense", r"damaged, or not a \.onnx file"),
        "a.pt2": (b"nonsense", r"damaged, or not a \.pt2 file"),
    }
    for name, (content, message) in faults.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=rf"{name}: {message}"):
            load(tmp_path / name)
    program = torch.export.export(torch.nn.Identity(), (torch.ones(1),))
    torch.export.save(program, tmp_path / "other.pt2")
    with pytest.raises(CheckpointError, match=r"other\.pt2: it does not say what its classes are"):
        load(tmp_path / "other.pt2")
    record_property("tried", len(faults) + 1)


@pytest.mark.slow
def test_tolerance_is_used(make_detector, tmp_path):
    with pytest.raises(ExportMismatchError, match=r"0 and 0 are tolerated|0 is tolerated"):
        export(
            make_detector(),
            tmp_path / "a.onnx",
            batch=1,
            size=(64, 96),
            tolerance=Tolerance(boxes=0, scores=0),
        )
