"""Examples of this plugin's components for the conformance kit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from detcore.hooks import hookimpl

if TYPE_CHECKING:
    from detcore.testing import Subject


@hookimpl
def detcore_conformance_examples() -> Iterable[Subject]:
    """Samplers that take a part of the priors."""
    from detcore.testing import Subject
    from detcore_samplers import (
        CombinedSampler,
        InstanceBalancedPosSampler,
        IoUBalancedNegSampler,
        OHEMSampler,
        RandomSampler,
        ScoreHLRSampler,
    )

    return [
        Subject(RandomSampler.spec(num=64, pos_fraction=0.5)),
        Subject(RandomSampler.spec(num=32, pos_fraction=0.25, neg_pos_ub=3), name="bounded"),
        *(
            Subject(sampler.spec(num=32, pos_fraction=0.25))
            for sampler in (
                CombinedSampler,
                InstanceBalancedPosSampler,
                IoUBalancedNegSampler,
                OHEMSampler,
                ScoreHLRSampler,
            )
        ),
    ]
