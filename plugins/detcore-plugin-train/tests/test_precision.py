"""Arithmetic of training and of prediction."""

import pytest
import torch
from detcore_train import evaluation
from detcore_train.commands.common import check_precision
from detcore_train.experiment import training_precision
from detcore_train.prediction import predict_files, write_image

from detcore.detectors import OptimizedDetector
from detcore.errors import ConfigError
from detcore.precision import has_bfloat16
from detcore.serialize import build


def test_auto_trains_in_bfloat16_where_the_device_has_it(monkeypatch):
    assert training_precision("16-mixed", "cuda") == "16-mixed"
    for has_it in ("cpu", "cuda"):
        monkeypatch.setattr(
            "detcore_train.experiment.has_bfloat16", lambda device, it=has_it: device.type == it
        )
        resolved = {device: training_precision("auto", device) for device in ("cpu", "cuda", "mps")}
        assert resolved == {"cpu": "32", "cuda": "32", "mps": "32"} | {has_it: "bf16-mixed"}


def test_auto_trains_in_bfloat16_on_this_processor_where_it_has_it():
    expected = "bf16-mixed" if has_bfloat16(torch.device("cpu")) else "32"
    assert training_precision("auto", "cpu") == expected


def test_the_command_line_names_the_choices():
    assert check_precision("bf16") == "bf16"
    with pytest.raises(ConfigError, match="--precision should be one of auto, 32, bf16, got '64'"):
        check_precision("64")


@pytest.mark.parametrize("precision", ["auto", "32", "bf16"])
def test_evaluation_leaves_the_detector_as_it_was(config, precision):
    experiment = build(config, kind="experiments")
    detector, data = experiment.model, experiment.data
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    predictor = evaluation.for_prediction(detector, precision)
    assert (predictor is detector) == (precision == "32")
    assert isinstance(predictor, OptimizedDetector) == (precision != "32")
    assert evaluation.for_prediction(predictor, precision) is predictor
    result = evaluation.evaluate(detector, data.val, precision=precision)
    assert result.images == len(data.val)
    assert all(torch.equal(value, before[name]) for name, value in detector.state_dict().items())
    assert detector.training


def test_prediction_of_files(config, tmp_path):
    experiment = build(config, kind="experiments")
    picture = torch.randint(256, (3, 24, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    file = tmp_path / "a.png"
    write_image(picture, file)
    scores = {}
    for precision in ("auto", "bf16", "32"):
        (prediction,) = predict_files(experiment.model, [file], precision=precision)
        scores[precision] = prediction.found.scores
    assert scores["32"].dtype == scores["bf16"].dtype == torch.float32
    torch.testing.assert_close(scores["bf16"][:1], scores["32"][:1], rtol=0.05, atol=0.02)
