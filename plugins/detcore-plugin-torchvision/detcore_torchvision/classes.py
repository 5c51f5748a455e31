"""Classes: torchvision counts the background, as class 0, and COCO's gaps; detcore counts neither.

torchvision's ``num_classes=91`` for COCO are the background and the 90 ids that COCO's files use, of which 10
stand for no class ("N/A"). They are left out where the categories are known, so that an imported detector has
COCO's 80 classes, with their ids, as the data has. A sigmoid gives the rest the same scores as before. A softmax
gives them very slightly higher ones: the probability that the ten had, which no training example ever raised, is
shared out among the others. ``keep_unused=True`` keeps all 90, and so every number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from detcore.errors import ConfigError
from detcore.structures import ClassMap

#: The name that torchvision gives to ids that stand for no class.
UNUSED = "N/A"


@dataclass(frozen=True)
class Classes:
    """Which of torchvision's classes become detcore's.

    Args:
        labels: torchvision's label of each of ours, in order; its 0 is the background.
        class_map: Names, and torchvision's labels as ids: those of the dataset's files for COCO.
    """

    labels: tuple[int, ...]
    class_map: ClassMap

    @property
    def sizes(self) -> str:
        """How many there are, in words."""
        return f"{len(self.labels)} of torchvision's labels 1..{max(self.labels)}"


def classes_of(count: int, categories: Sequence[str] | None = None, *, keep_unused: bool = False) -> Classes:
    """The classes of a model with ``count`` outputs, the background among them.

    Args:
        count: torchvision's ``num_classes``.
        categories: Names by torchvision's label, the background's first, as in ``weights.meta["categories"]``.
        keep_unused: Whether labels named "N/A" stay.

    Raises:
        ConfigError: There is another number of categories, or no class but the background.
    """
    if count < 2:
        raise ConfigError(f"the model has {count} outputs, the background among them: no class to detect")
    if categories is not None and len(categories) != count:
        raise ConfigError(
            f"categories has {len(categories)} names, the model {count} outputs; give one name for each, "
            "the background's first"
        )
    names = [f"class{label}" for label in range(count)] if categories is None else list(categories)
    labels = [i for i in range(1, count) if keep_unused or categories is None or names[i] != UNUSED]
    shown = tuple(f"{UNUSED} {i}" if names[i] == UNUSED else names[i] for i in labels)
    return Classes(tuple(labels), ClassMap(shown, tuple(labels)))
