"""When two sides are said to be equal."""

from __future__ import annotations

import pytest
import torch
from detcore_export import ExportMismatchError, Tolerance
from detcore_export.verification import compare, made_up_images, verify


def outputs(scores=((0.9, 0.8, 0.3, 0.0),), shift=0.0, masks=False):
    score = torch.tensor(scores)
    boxes = torch.arange(4 * score.numel()).reshape(*score.shape, 4) * 7.0 + shift
    found = {
        "boxes": boxes.float(),
        "scores": score,
        "labels": torch.arange(score.shape[1]).expand(score.shape),
        "valid": score > 0,
    }
    if masks:
        found["masks"] = torch.full((*score.shape, 2, 2), 0.5)
    return found


def changed(name, index, value, **options):
    found = outputs(**options)
    found[name] = found[name].clone()
    found[name][index] = value
    return found


def check(want, got, tolerance=None):
    return compare(want, got, (10, 20), tolerance or Tolerance())


def test_equal_and_nearly_equal():
    assert check(outputs(), outputs()).differences == {"boxes": 0.0, "scores": 0.0}
    done = check(outputs(masks=True), outputs(shift=0.004, masks=True))
    assert done.detections == 3
    assert done.differences["boxes"] == pytest.approx(0.004, rel=1e-2)


def test_detections_of_equal_scores_may_change_places():
    want = outputs(((0.9, 0.5, 0.50001, 0.1),))
    got = {name: value[:, [0, 2, 1, 3]] for name, value in want.items()}
    assert check(want, got).differences["boxes"] == 0


def test_rounding_may_decide_about_the_last_one():
    want = outputs()
    got = changed("valid", (0, 2), False)
    assert check(want, got).detections == 3


@pytest.mark.reliability(
    area="export",
    fault="one value of an output is wrong, or not a number",
    outcome="an error that names the output",
)
@pytest.mark.parametrize(
    ("got", "message"),
    [
        (
            changed("boxes", (0, 1, 2), 99.0),
            r"output 'boxes' differs by .* label 1 with score 0.8000 in image 0",
        ),
        (changed("boxes", (0, 0, 0), float("nan")), r"output 'boxes' differs by"),
        (changed("scores", (0, 1), 0.7), r"output 'scores' differs by 0.1:"),
        (changed("labels", (0, 0), 3), r"output 'labels' differs by 3:"),
        (changed("valid", (0, 0), False), r"only the detector has a detection of label 0 with score 0.9"),
        (
            changed("valid", (0,), False),
            r"output 'valid' differs: only the detector .* the other finds nothing",
        ),
        (outputs(((0.9, 0.8, 0.3),)), r"output 'boxes' has shape \[1, 3, 4\].* the detector's \[1, 4, 4\]"),
        (outputs(masks=True), r"the file has the outputs \['boxes', 'labels', 'masks', 'scores', 'valid'\]"),
    ],
)
def test_differences_are_found(got, message):
    with pytest.raises(ExportMismatchError, match=message):
        check(outputs(), got)


def test_masks_are_compared_too():
    got = changed("masks", (0, 1, 0, 0), 0.6, masks=True)
    with pytest.raises(ExportMismatchError, match=r"output 'masks' differs by 0.1 .*; 0.001 is tolerated"):
        check(outputs(masks=True), got)


def test_a_file_that_cannot_be_run_says_on_what():
    def broken(images):
        raise RuntimeError("invalid shape")

    cases = [(made_up_images(2, (10, 20)),)]
    with pytest.raises(ExportMismatchError, match="on a batch of 2 images of 10x20 pixels: invalid shape"):
        verify(lambda images: outputs(), broken, cases, Tolerance())


def test_made_up_images_repeat():
    assert torch.equal(made_up_images(2, (30, 40), 1), made_up_images(2, (30, 40), 1))
    assert not torch.equal(made_up_images(2, (30, 40), 1), made_up_images(2, (30, 40), 2))
