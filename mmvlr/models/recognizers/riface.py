"""RI-Face: recognition with a recognizability index.

Chai, Ng, Low, Park, Teoh, *Recognizability Embedding Enhancement for Very Low-Resolution Face
Recognition and Quality Estimation*, CVPR 2023 (arXiv 2304.10066).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from mmvlr.registry import MODELS
from mmvlr.structures import FaceDataSample

from ..losses import attention_target, proximities
from .face_recognizer import FaceRecognizer, effective_rank


@MODELS.register_module()
class RIFace(FaceRecognizer):
    """A :class:`FaceRecognizer` with perceptibility attention (PAM) and regression (PRM).

    L = L_cls + alpha * L_L1 + beta * L_ID + gamma * L_MSE; alpha, beta and gamma are the
    ``loss_weight`` of the three losses, (5, 2, 1) in the paper.

    Args:
        attention: Config of PAM; the backbone is filled in. None leaves PAM and L_MSE out.
        regression: Config of PRM; sizes are filled in.
        recognizability: Config of the formula of xi: a module that maps proximities to the value
            that PRM regresses and, by ``restore``, such values back to xi; without ``restore``
            they are xi already.
        loss_regression: Config of L_L1.
        loss_diversion: Config of L_ID. None leaves it out.
        loss_attention: Config of L_MSE.
        regression_moves_backbone: Whether the gradient of L_L1 reaches the backbone, not only PRM.
        diversion_moves_backbone: Whether the gradient of L_ID reaches the backbone, not only PRM.
        attended_weight: Factor of a second recognition loss, of v_attn against the same prototypes.
            Not in the paper; 0 leaves it out.
        inference_embedding: ``'backbone'`` (v_b), ``'attention'`` (v_attn) or ``'sum'`` (of their
            unit vectors).
        **kwargs: See :class:`FaceRecognizer`.

    Attributes:
        ui_mean, ui_std: mu_UI and sigma_UI, scalars: mean and standard deviation of the regressed
            value over the UI set. L_ID is active once :meth:`set_ui_statistics` has set them; a
            checkpoint carries them.
        has_ui_statistics: Whether they have been set, a plain flag as ``has_ui_center``.
    """

    needs_all_prototypes = True

    def __init__(
        self,
        backbone: dict,
        head: dict | None = None,
        attention: dict | None = None,
        regression: dict | None = None,
        recognizability: dict | None = None,
        loss_regression: dict | None = None,
        loss_diversion: dict | None = None,
        loss_attention: dict | None = None,
        regression_moves_backbone: bool = True,
        diversion_moves_backbone: bool = True,
        attended_weight: float = 0.0,
        inference_embedding: str = 'backbone',
        **kwargs,
    ):
        super().__init__(backbone, head, **kwargs)
        if inference_embedding not in ('backbone', 'attention', 'sum'):
            raise ValueError(
                "inference_embedding must be 'backbone', 'attention' or 'sum', "
                f'not {inference_embedding!r}'
            )
        if inference_embedding != 'backbone' and attention is None:
            raise ValueError(f'inference_embedding={inference_embedding!r} needs attention')
        sizes = dict(feat_channels=self.backbone.feat_channels, embed_dims=self.embed_dims)
        self.attention = None
        if attention is not None:
            self.attention = MODELS.build({'backbone': self.backbone, **attention})
            self.loss_attention = MODELS.build(loss_attention or dict(type='AttentionLoss'))
        self.regression = MODELS.build(
            {**sizes, **(regression or dict(type='PerceptibilityRegression'))}
        )
        self.recognizability = MODELS.build(recognizability or dict(type='RecognizabilityIndex'))
        self.loss_regression = MODELS.build(loss_regression or dict(type='IndexRegressionLoss'))
        self.loss_diversion = None
        if loss_diversion is not None:
            self.loss_diversion = MODELS.build(loss_diversion)
        self.regression_moves_backbone = regression_moves_backbone
        self.diversion_moves_backbone = diversion_moves_backbone
        self.attended_weight = attended_weight
        self.inference_embedding = inference_embedding
        self.register_buffer('ui_mean', torch.tensor(float('nan')))
        self.register_buffer('ui_std', torch.tensor(float('nan')))
        self.has_ui_statistics = False

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        """Load; weights of a backbone alone also initialize the tail of PAM."""
        if hasattr(self.attention, 'start_tail'):
            self.attention.start_tail(state_dict, f'{prefix}attention.', f'{prefix}backbone.')
        super()._load_from_state_dict(state_dict, prefix, *args)

    def set_ui_statistics(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        """Set mu_UI and sigma_UI, which switches L_ID on."""
        self.ui_mean.copy_(mean)
        self.ui_std.copy_(std)
        self._read_flags()

    def _read_flags(self) -> None:
        """Update the flags from the buffers that they describe."""
        super()._read_flags()
        self.has_ui_statistics = bool(self.ui_mean.isfinite())

    def loss(
        self, inputs: torch.Tensor, data_samples: Sequence[FaceDataSample]
    ) -> dict[str, torch.Tensor]:
        """Return the losses and logs of a batch.

        ``loss_cls``, ``loss_regression``, ``loss_diversion``, ``loss_attention``. The logs
        are batch means: ``xi``, ``xi_hat`` (and their standard deviations), ``d_p``, ``d_n``,
        ``d_ui``, ``mu_ui``, ``sigma_ui`` (of the value that is regressed, such as log(xi)) and
        ``effective_rank``.
        """
        if self.head is None:
            raise ValueError('the model has no head: give model.head to train it')
        feature_map, embeddings = self.extract_feat(inputs)
        labels = self.stack_labels(data_samples, embeddings.device)
        losses = self.distillation_losses((feature_map, embeddings), data_samples)
        losses |= self.head.loss(embeddings, labels)

        distances = proximities(embeddings, labels, self.head.weight, self.ui_center)
        xi = self.recognizability(distances)
        frozen = (feature_map.detach(), embeddings.detach())
        # Two calls would draw two dropout masks; one suffices where both losses treat it alike.
        moving = self.regression_moves_backbone
        xi_hat = self.regression(*((feature_map, embeddings) if moving else frozen)).float()
        losses['loss_regression'] = self.loss_regression(xi_hat, xi)
        if self.loss_diversion is not None and self.has_ui_statistics:
            diverted = xi_hat
            if self.diversion_moves_backbone != moving:
                diverted = self.regression(*((feature_map, embeddings) if not moving else frozen))
            losses['loss_diversion'] = self.loss_diversion(diverted, self.ui_mean, self.ui_std)
            losses.update(mu_ui=self.ui_mean, sigma_ui=self.ui_std)
        if self.attention is not None:
            attended = self.attention(feature_map)
            losses['loss_attention'] = self.loss_attention(
                attended, attention_target(embeddings, self.ui_center)
            )
            if self.attended_weight:
                again = self.head.loss(attended, labels)
                losses['loss_cls_attention'] = self.attended_weight * again['loss_cls']
        with torch.no_grad():
            xi, xi_hat = self.restore(xi), self.restore(xi_hat)
            losses.update(
                xi=xi.mean(),
                xi_std=xi.std(correction=0),
                xi_hat=xi_hat.mean(),
                xi_hat_std=xi_hat.std(correction=0),
                d_p=distances.d_p.mean(),
                d_n=distances.d_n.mean(),
                d_ui=distances.d_ui.mean(),
                effective_rank=effective_rank(embeddings),
            )
        return losses

    def feature_predictions(
        self, feature_map: torch.Tensor, embeddings: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Add ``recognizability`` (RI, (B,)) to the predictions of the base class."""
        result = self.embedding_predictions(embeddings)
        result['recognizability'] = self.predict_index(feature_map, embeddings)
        if self.inference_embedding != 'backbone':
            attended = F.normalize(self.attention(feature_map).float(), dim=1)
            if self.inference_embedding == 'sum':
                attended = attended + F.normalize(result['embedding'], dim=1)
            result['embedding'] = attended
        return result

    def predict_index(self, feature_map: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """Return xi_hat (B,) on the scale of xi, whatever PRM regresses."""
        return self.restore(self.regression(feature_map, embeddings).float())

    def restore(self, regressed: torch.Tensor) -> torch.Tensor:
        """Return xi of values on the scale that PRM regresses, (B,)."""
        restore = getattr(self.recognizability, 'restore', None)
        return regressed if restore is None else restore(regressed)

    def regressed_predictions(self, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return ``backbone_embedding`` (B, D) and ``regressed`` (B,), PRM's output."""
        feature_map, embeddings = self.extract_feat(inputs)
        regressed = self.regression(feature_map, embeddings)
        return dict(backbone_embedding=embeddings.float(), regressed=regressed.float())

    def regression_predictions(self, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return ``backbone_embedding`` (B, D) and ``regression_input`` (B, F), PRM's input."""
        feature_map, embeddings = self.extract_feat(inputs)
        read = self.regression.inputs(feature_map, embeddings)
        return dict(backbone_embedding=embeddings.float(), regression_input=read.float())
