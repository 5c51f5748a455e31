"""Names of MMDetection's components, so that an unknown name can be told from one that is not there yet."""

from __future__ import annotations

_NAMES = {
    "detector": (
        "ATSS AutoAssign CascadeRCNN CenterNet ConditionalDETR CornerNet DABDETR DDOD DETR DINO "
        "DeformableDETR FCOS FOVEA FSAF FastRCNN FasterRCNN GFL GridRCNN HybridTaskCascade "
        "KnowledgeDistillationSingleStageDetector LAD Mask2Former MaskFormer MaskRCNN MaskScoringRCNN "
        "NASFCOS PAA PanopticFPN PointRend QueryInst RPN RTMDet RepPointsDetector RetinaNet SCNet SOLO "
        "SOLOv2 SingleStageDetector SparseRCNN TOOD TridentFasterRCNN TwoStageDetector VFNet YOLACT "
        "YOLOF YOLOV3 YOLOX "
    ),
    "backbone": (
        "CSPDarknet CSPNeXt Darknet DetectoRS_ResNeXt DetectoRS_ResNet EfficientNet HRNet HourglassNet "
        "MobileNetV2 PyramidVisionTransformer PyramidVisionTransformerV2 RegNet Res2Net ResNeSt ResNeXt "
        "ResNet ResNetV1d SSDVGG SwinTransformer TridentResNet "
    ),
    "neck": (
        "BFP CSPNeXtPAFPN CTResNetNeck ChannelMapper DilatedEncoder DyHead FPG FPN FPN_CARAFE "
        "FPN_DropBlock HRFPN NASFCOS_FPN NASFPN PAFPN RFP SSDNeck SSH YOLOV3Neck YOLOXPAFPN "
    ),
    "dense head": (
        "ATSSHead AnchorFreeHead AnchorHead AutoAssignHead CascadeRPNHead CenterNetHead "
        "CenterNetUpdateHead CentripetalHead ConditionalDETRHead CornerHead DABDETRHead DDODHead "
        "DETRHead DINOHead DeformableDETRHead EmbeddingRPNHead FCOSHead FSAFHead FoveaHead "
        "FreeAnchorRetinaHead GARPNHead GARetinaHead GFLHead LDHead NASFCOSHead PAAHead PISARetinaHead "
        "PISASSDHead RPNHead RTMDetHead RTMDetSepBNHead RepPointsHead RetinaHead RetinaSepBNHead "
        "SABLRetinaHead SOLOHead SOLOV2Head SSDHead StageCascadeRPNHead TOODHead VFNetHead YOLACTHead "
        "YOLACTProtonet YOLOFHead YOLOV3Head YOLOXHead "
    ),
    "RoI head": (
        "CascadeRoIHead DoubleHeadRoIHead DynamicRoIHead GridRoIHead HybridTaskCascadeRoIHead "
        "MaskScoringRoIHead PISARoIHead PointRendRoIHead SCNetRoIHead SparseRoIHead StandardRoIHead "
        "TridentRoIHead "
    ),
    "part of a RoI head": (
        "BBoxHead CoarseMaskHead ConvFCBBoxHead DIIHead DoubleConvFCBBoxHead DynamicConv DynamicMaskHead "
        "FCNMaskHead FeatureRelayHead FusedSemanticHead GenericRoIExtractor GlobalContextHead GridHead "
        "HTCMaskHead MaskIoUHead MaskPointHead ResLayer SABLHead SCNetBBoxHead "
        "SCNetMaskHead SCNetSemanticHead Shared2FCBBoxHead Shared4Conv1FCBBoxHead SimpleRoIAlign "
        "SingleRoIExtractor "
    ),
    "assigner": (
        "ATSSAssigner ApproxMaxIoUAssigner CenterRegionAssigner DynamicSoftLabelAssigner GridAssigner "
        "HungarianAssigner MaxIoUAssigner MultiInstanceAssigner PointAssigner RegionAssigner "
        "SimOTAAssigner TaskAlignedAssigner TopkHungarianAssigner UniformAssigner "
    ),
    "match cost": (
        "BBoxL1Cost BinaryFocalLossCost ClassificationCost CrossEntropyLossCost DiceCost FocalLossCost "
        "IoUCost "
    ),
    "sampler": (
        "CombinedSampler InstanceBalancedPosSampler IoUBalancedNegSampler MaskPseudoSampler OHEMSampler "
        "PseudoSampler RandomSampler ScoreHLRSampler "
    ),
    "box coder": (
        "BucketingBBoxCoder DeltaXYWHBBoxCoder DeltaXYWHBBoxCoderForGLIP DistancePointBBoxCoder "
        "LegacyDeltaXYWHBBoxCoder PseudoBBoxCoder TBLRBBoxCoder YOLOBBoxCoder "
    ),
    "prior generator": (
        "AnchorGenerator LegacyAnchorGenerator LegacySSDAnchorGenerator MlvlPointGenerator "
        "SSDAnchorGenerator YOLOAnchorGenerator "
    ),
    "loss": (
        "AssociativeEmbeddingLoss BalancedL1Loss BoundedIoULoss CIoULoss CrossEntropyLoss DIoULoss "
        "DiceLoss DistributionFocalLoss EIoULoss FocalLoss GHMC GHMR GIoULoss GaussianFocalLoss IoULoss "
        "KnowledgeDistillationKLDivLoss L1Loss MSELoss QualityFocalLoss SIoULoss SeesawLoss SmoothL1Loss "
        "VarifocalLoss "
    ),
    "preprocessor": ("BatchFixedSizePad BatchSyncRandomResize DetDataPreprocessor "),
    "layer": (
        "ASPP CARAFEPack CSPLayer ContextBlock ConvAWS2d ConvWS2d DeformConv2dPack DropBlock DyReLU "
        "Focus GeneralizedAttention InvertedResidual ModulatedDeformConv2dPack NonLocal2d SAConv2d "
        "SELayer SPPBottleneck "
    ),
}

#: Type of the reference -> what it is.
REFERENCE_TYPES: dict[str, str] = {name: kind for kind, names in _NAMES.items() for name in names.split()}

#: Values of ``type`` that name a setting (a normalisation, an activation, ...), not a component.
SETTINGS = frozenset(
    [
        "RoIAlign",
        "RoIPool",
        "BN",
        "BN1d",
        "BN2d",
        "BboxOverlaps2D",
        "Caffe2Xavier",
        "Constant",
        "Conv",
        "Conv2d",
        "ConvAWS",
        "ConvModule",
        "ConvWS",
        "DCN",
        "DCNv2",
        "GELU",
        "GN",
        "HSigmoid",
        "HSwish",
        "IN",
        "Kaiming",
        "LN",
        "LeakyReLU",
        "MMSyncBN",
        "Normal",
        "PReLU",
        "Pretrained",
        "ReLU",
        "ReLU6",
        "SAC",
        "SiLU",
        "Sigmoid",
        "Swish",
        "SyncBN",
        "Tanh",
        "TruncNormal",
        "Uniform",
        "Xavier",
        "bilinear",
        "carafe",
        "conv",
        "deconv",
        "dilation",
        "interpolation_conv",
        "last_conv",
        "nearest",
        "nms",
        "offset",
        "pixel_shuffle",
        "soft_nms",
    ]
)
