"""torchvision's models for tests, also beside a torch that its compiled operators do not fit: no model calls them."""

import torch

try:
    from torchvision.models import segmentation
except RuntimeError:
    _DECLARED = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        _DECLARED.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from torchvision.models import segmentation
from torchvision import models

__all__ = ["models", "segmentation"]
