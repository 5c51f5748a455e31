"""The interface of datasets."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, NotRequired, TypedDict

from torch import Tensor

from detcore.component import Component
from detcore.structures import ClassMap, ImageGeometry

if TYPE_CHECKING:
    from torchvision import tv_tensors


class Example(TypedDict):
    """One image with its ground truth, as transforms see it (n objects).

    ``image`` uint8 [3, H, W] RGB; ``boxes`` [n, 4] xyxy in its pixels; ``labels`` [n]; ``ignore`` [n]; ``masks``
    [n, H, W]; ``file`` the image's path; ``image_id`` the dataset's id; ``geometry`` the way back to the file.
    """

    image: tv_tensors.Image
    boxes: tv_tensors.BoundingBoxes
    labels: Tensor
    ignore: Tensor
    masks: NotRequired[tv_tensors.Mask]
    image_id: int
    file: str
    geometry: ImageGeometry


class Dataset(Component):
    """Annotated images of one split; a map-style dataset for ``torch.utils.data``.

    Invariants: an item depends on its index (and, with random transforms, on seed and epoch) only, never on which
    items were read before; images without objects are kept unless dropped on request.
    """

    kind: ClassVar[str] = "datasets"

    #: Names and dataset ids of the classes.
    class_map: ClassMap

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def __getitem__(self, index: int) -> Example:
        """One image with its ground truth.

        Raises:
            DataError: The image is missing or cannot be decoded; names the file.
        """
