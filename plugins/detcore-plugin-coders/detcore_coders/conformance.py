"""Examples of this plugin's components for the conformance kit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from detcore.hooks import hookimpl

if TYPE_CHECKING:
    from detcore.testing import Subject


@hookimpl
def detcore_conformance_examples() -> Iterable[Subject]:
    """Coders that need values, and what is known not to hold."""
    from detcore.testing import Subject
    from detcore_coders import BucketingBBoxCoder, YOLOBBoxCoder

    unbounded = "sizes are exponentials of the codes without a limit, as in YOLOv3"
    return [
        Subject(BucketingBBoxCoder.spec(num_buckets=14, scale_factor=3.0)),
        Subject(YOLOBBoxCoder.spec(), expected_failures={"coder_survives_large_codes": unbounded}),
    ]
