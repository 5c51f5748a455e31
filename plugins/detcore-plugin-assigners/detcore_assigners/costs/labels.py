"""The class of each ground truth among the channels of each prediction."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from detcore.structures import Targets


def of_labels(values: Float[Tensor, "B N C"], targets: Targets) -> Float[Tensor, "B N M"]:
    """The value of each ground truth's class for each prediction."""
    return values.gather(2, targets.labels[:, None].expand(-1, values.shape[1], -1))
