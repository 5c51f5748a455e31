"""Made-up data for tests: ground truth, priors, features and what lies between, with the edge cases by name.

Everything is reproducible: the same name, arguments and seed give the same numbers on every machine, whatever
else was made before. Sizes are (h, w); boxes are xyxy in pixels.
"""

from detcore.testing.data.priors import PRIOR_CASES, STRIDES, make_batch, make_priors, make_pyramid
from detcore.testing.data.random import SIZE, Size
from detcore.testing.data.results import (
    ASSIGNMENT_CASES,
    PROPOSAL_CASES,
    make_assignment,
    make_predictions,
    make_proposals,
)
from detcore.testing.data.selection import image_of, reordered
from detcore.testing.data.targets import LEAST_SIZE, TARGET_CASES, Padding, make_targets, pad_targets

__all__ = [
    "ASSIGNMENT_CASES",
    "LEAST_SIZE",
    "PRIOR_CASES",
    "PROPOSAL_CASES",
    "SIZE",
    "STRIDES",
    "TARGET_CASES",
    "Padding",
    "Size",
    "image_of",
    "make_assignment",
    "make_batch",
    "make_predictions",
    "make_priors",
    "make_proposals",
    "make_pyramid",
    "make_targets",
    "pad_targets",
    "reordered",
]
