"""Making a picture smaller by putting it onto a larger canvas."""

from __future__ import annotations

from detcore.interfaces import Example, Transform
from detcore_augment.draws import Color, Probability, check_range, happens, integer, rgb, uniform
from detcore_augment.pictures import window


class Expand(Transform):
    """Puts the picture at a random place of a larger canvas, so that, resized, objects become smaller.

    From SSD (Liu et al., arXiv 1512.02325).

    Args:
        mean: Colour of the canvas, one value or red, green, blue, on the scale 0..255. SSD takes the mean of the
            data, which becomes 0 in the model.
        ratio_range: Lowest and highest factor by which the canvas is wider and higher; its area grows by the square.
        prob: Probability that it is put on a canvas.
    """

    def __init__(
        self,
        *,
        mean: Color = (124, 116, 104),
        ratio_range: tuple[float, float] = (1.0, 4.0),
        prob: Probability = 0.5,
    ) -> None:
        check_range("ratio_range", ratio_range, 1)
        self.mean, self.ratio_range, self.prob = rgb(mean), ratio_range, prob

    def __call__(self, example: Example) -> Example:
        """See :class:`~detcore.interfaces.Transform`."""
        height, width = example["image"].shape[-2:]
        factor = uniform(*self.ratio_range) if happens(self.prob) else 1.0
        size = (int(height * factor), int(width * factor))
        left, top = integer(0, size[1] - width), integer(0, size[0] - height)
        return window(example, -left, -top, size, self.mean)
