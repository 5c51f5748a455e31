"""The convolution of ResNets."""

from __future__ import annotations

from torch import nn


class HeConv2d(nn.Conv2d):
    """A convolution that begins as in the paper on rectifiers (He et al., arXiv 1502.01852, section 2.2).

    The weights are normal, with the variance that keeps the size of gradients. They are drawn here rather than by the
    network afterwards: drawing torch's own values first takes as long again, a quarter of a second for a ResNet-50.
    """

    def reset_parameters(self) -> None:
        """Draws the weights; see :class:`torch.nn.Conv2d`."""
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        if self.bias is not None:
            nn.init.zeros_(self.bias)
