"""The interfaces: one abstract class per kind of component. Importing this package imports torch."""

from detcore.interfaces.assigner import Assigner
from detcore.interfaces.backbone import Backbone
from detcore.interfaces.bbox_coder import BBoxCoder
from detcore.interfaces.bbox_head import BBoxHead
from detcore.interfaces.block import Block
from detcore.interfaces.dataset import Dataset, Example
from detcore.interfaces.dense_head import DenseHead, ProposalHead
from detcore.interfaces.detector import Detector
from detcore.interfaces.loss import BoxLoss, ClassificationLoss, Loss
from detcore.interfaces.mask_head import MaskHead
from detcore.interfaces.metric import Metric
from detcore.interfaces.neck import Neck
from detcore.interfaces.postprocess import Postprocess
from detcore.interfaces.preprocessor import Preprocessor
from detcore.interfaces.prior_generator import PriorGenerator
from detcore.interfaces.roi_extractor import RoIExtractor
from detcore.interfaces.roi_head import RoIHead
from detcore.interfaces.sampler import Sampler
from detcore.interfaces.shared_head import SharedHead
from detcore.interfaces.transform import Transform

__all__ = [
    "Assigner",
    "BBoxCoder",
    "BBoxHead",
    "Backbone",
    "Block",
    "BoxLoss",
    "ClassificationLoss",
    "Dataset",
    "DenseHead",
    "Detector",
    "Example",
    "Loss",
    "MaskHead",
    "Metric",
    "Neck",
    "Postprocess",
    "Preprocessor",
    "PriorGenerator",
    "ProposalHead",
    "RoIExtractor",
    "RoIHead",
    "Sampler",
    "SharedHead",
    "Transform",
]
