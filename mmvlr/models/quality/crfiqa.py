"""CR-FIQA: learn how well a face can be distinguished from the nearest other person.

Boutros, Fang, Klemt, Fu, Damer, *CR-FIQA: Face Image Quality Assessment by Learning Sample Relative
Classifiability*, CVPR 2023 (arXiv 2112.06592).
"""

from collections.abc import Sequence

import torch

from mmvlr.models.losses import cosine_matrix
from mmvlr.models.recognizers import FaceRecognizer, effective_rank
from mmvlr.registry import MODELS, QUALITIES
from mmvlr.structures import FaceDataSample

from .base import FaceBatch, QualityMeasure


@torch.no_grad()
def relative_classifiability(
    embeddings: torch.Tensor, labels: torch.Tensor, prototypes: torch.Tensor, eps: float = 1e-9
) -> torch.Tensor:
    """Return CR = cos(v, w_y) / (max_{j != y} cos(v, w_j) + 1 + eps).

    The paper's form. The authors' published code divides by the nearest negative cosine itself,
    floored at -1e-12, which changes its sign and has no bound where that cosine is near 0.

    Args:
        embeddings: v, (B, D), any length.
        labels: y, (B,) int64.
        prototypes: w, (C, D), any length, C >= 2.
        eps: Keeps the denominator positive.

    Returns:
        (B,) float32, without gradient.

    Example:
        >>> w = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> relative_classifiability(torch.tensor([[4.0, 3.0]]), torch.tensor([0]), w)
        tensor([0.5000])
    """
    # A cosine below -1 by rounding would change the sign of the denominator.
    cosines = cosine_matrix(embeddings, prototypes).clamp(-1, 1)
    column = labels.view(-1, 1)
    own = cosines.gather(1, column).squeeze(1)
    nearest = cosines.scatter(1, column, -torch.inf).amax(1)
    # eps is added last: 1 + 1e-9 is 1 in float32, but 0 + 1e-9 is not 0.
    return own / (nearest + 1 + eps)


@MODELS.register_module()
class CRFIQA(FaceRecognizer):
    """A :class:`FaceRecognizer` that also learns its faces' relative classifiability.

    L = L_cls + 10 * smooth-L1(Linear(v), CR), beta = 0.5, with CR of
    :func:`relative_classifiability`, taken of v without dropout and detached.

    Args:
        backbone: See :class:`FaceRecognizer`.
        head: See :class:`FaceRecognizer`; the paper's is ArcFace, s = 64, m = 0.5.
        regression: Config of the read-out; sizes are filled in. By default linear on v, as in the
            paper; it starts at zero, so that no gradient of a random read-out reaches the backbone.
        loss_regression: Config of the regression's loss.
        eps: See :func:`relative_classifiability`.
        regression_moves_backbone: Whether the gradient of the regression reaches the backbone, as
            in the paper. False trains the read-out only.
        **kwargs: See :class:`FaceRecognizer`.
    """

    needs_all_prototypes = True

    def __init__(
        self,
        backbone: dict,
        head: dict | None = None,
        regression: dict | None = None,
        loss_regression: dict | None = None,
        eps: float = 1e-9,
        regression_moves_backbone: bool = True,
        **kwargs,
    ):
        super().__init__(backbone, head, **kwargs)
        linear = dict(type='PerceptibilityRegression', with_norm=False, dropout=0.0)
        sizes = dict(feat_channels=self.backbone.feat_channels, embed_dims=self.embed_dims)
        self.regression = MODELS.build({**sizes, **(regression or linear)})
        self.loss_regression = MODELS.build(
            loss_regression or dict(type='IndexRegressionLoss', beta=0.5, loss_weight=10.0)
        )
        self.eps = eps
        self.regression_moves_backbone = regression_moves_backbone

    def loss(
        self, inputs: torch.Tensor, data_samples: Sequence[FaceDataSample]
    ) -> dict[str, torch.Tensor]:
        """Return the losses and logs of a batch.

        ``loss_cls`` and ``loss_regression``. The logs are batch means: ``cr`` (the target),
        ``cr_hat`` (the prediction), their standard deviations, and ``effective_rank``.
        """
        if self.head is None:
            raise ValueError('the model has no head: give model.head to train it')
        features = self.extract_feat(inputs)
        embeddings = features[1]
        labels = self.stack_labels(data_samples, embeddings.device)
        losses = self.distillation_losses(features, data_samples)
        losses |= self.head.loss(embeddings, labels)
        cr = relative_classifiability(embeddings, labels, self.head.weight, self.eps)
        if not self.regression_moves_backbone:
            features = [feature.detach() for feature in features]
        cr_hat = self.regression(*features).float()
        losses['loss_regression'] = self.loss_regression(cr_hat, cr)
        with torch.no_grad():
            losses.update(
                cr=cr.mean(),
                cr_std=cr.std(correction=0),
                cr_hat=cr_hat.mean(),
                cr_hat_std=cr_hat.std(correction=0),
                effective_rank=effective_rank(embeddings),
            )
        return losses

    def feature_predictions(
        self, feature_map: torch.Tensor, embeddings: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Add ``crfiqa`` (B,) to the predictions of a :class:`FaceRecognizer`."""
        result = self.embedding_predictions(embeddings)
        result['crfiqa'] = self.regression(feature_map, embeddings).float()
        return result


@QUALITIES.register_module()
class CRFIQAQuality(QualityMeasure):
    """The relative classifiability that a :class:`CRFIQA` predicts."""

    name = 'crfiqa'

    def measure(self, faces: FaceBatch) -> torch.Tensor:
        """Return the prediction (B,).

        Raises:
            ValueError: The model is no :class:`CRFIQA`.
        """
        if not isinstance(faces.model, CRFIQA):
            raise ValueError(f'{self.name!r} needs a CRFIQA, not a {type(faces.model).__name__}')
        return faces.model.regression(faces.feature_map, faces.embedding)
