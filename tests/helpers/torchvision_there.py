"""torchvision's models for tests, also beside a torch that its compiled operators do not fit: no model calls them."""

from cereals_core.models.beside import import_beside

models = import_beside("torchvision.models", "of a test")
segmentation = models.segmentation

__all__ = ["models", "segmentation"]
