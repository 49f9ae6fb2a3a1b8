"""Quality measures based on the embedding: recognizability, distance to UI, length."""

import torch

from mmvlr.models.recognizers import RIFace
from mmvlr.registry import QUALITIES

from .base import FaceBatch, QualityMeasure


@QUALITIES.register_module()
class RecognizabilityQuality(QualityMeasure):
    """The recognizability index that an :class:`RIFace` predicts, on the scale of xi.

    Chai et al., *Recognizability Embedding Enhancement for Very Low-Resolution Face Recognition
    and Quality Estimation*, CVPR 2023 (arXiv 2304.10066).
    """

    name = 'ri'

    def measure(self, faces: FaceBatch) -> torch.Tensor:
        """Return the index (B,).

        Raises:
            ValueError: The model is no :class:`RIFace`.
        """
        if not isinstance(faces.model, RIFace):
            raise ValueError(f'{self.name!r} needs an RIFace, not a {type(faces.model).__name__}')
        return faces.model.predict_index(faces.feature_map, faces.embedding)


@QUALITIES.register_module()
class ERSQuality(QualityMeasure):
    """Embedding recognizability score: min(1 - cos(v, u), 1), in [0, 1].

    u is the unit mean of the unit embeddings of unrecognizable faces, as :class:`UICenterHook` sets
    it. Deng et al., *Harnessing Unrecognizable Faces for Improving Face Recognition*
    (arXiv 2106.04112), who gate at 0.60.
    """

    name = 'ers'

    def measure(self, faces: FaceBatch) -> torch.Tensor:
        """Return ERS (B,).

        Raises:
            ValueError: The model has no UI center.
        """
        if not faces.model.has_ui_center:
            raise ValueError(
                f'{self.name!r} needs the center of the unrecognizable identities, and the model '
                'has none: train or test it with UICenterHook, or call model.set_ui_center'
            )
        return faces.model.embedding_predictions(faces.embedding)['ers']


@QUALITIES.register_module()
class NormQuality(QualityMeasure):
    """Length of the raw embedding of the backbone.

    MagFace (Meng et al., CVPR 2021, arXiv 2103.06627) trains it to be a quality; AdaFace (Kim et
    al., CVPR 2022, arXiv 2204.00964) takes it as one as it is. Comparable within one model only.
    """

    name = 'norm'

    def measure(self, faces: FaceBatch) -> torch.Tensor:
        """Return the lengths (B,)."""
        return faces.embedding.float().norm(dim=1)
