"""NormFace."""

from mmvlr.registry import MODELS

from .margin import MarginSoftmaxLoss


@MODELS.register_module()
class NormFaceLoss(MarginSoftmaxLoss):
    """Cross entropy of the scaled cosines, without a margin.

    Wang et al., *NormFace*, ACM MM 2017 (arXiv 1704.06369), the softmax loss on normalized
    features and weights. The paper also learns the scale; here it is fixed, as in the margin losses
    that followed: CosFace and ArcFace with margin 0 are this loss.

    Args:
        scale: The factor s in front of the cosines.
        loss_weight: Factor of the whole loss.

    Example:
        >>> import torch
        >>> loss = NormFaceLoss(scale=1.0)
        >>> round(loss(torch.tensor([[1.0, 0.0]]), torch.tensor([0])).item(), 4)
        0.3133
    """
