"""FaceRecognizer: a backbone and a recognition module."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from torch import nn

from mmvlr.registry import MODELS
from mmvlr.structures import FaceDataSample


def effective_rank(embeddings: torch.Tensor) -> torch.Tensor:
    """Return the effective rank of a batch's unit embeddings: how many directions they span.

    1 / sum(p_i^2) with p_i the share of the i-th eigenvalue in the Gram matrix's trace, that is
    exp of the Renyi entropy of order 2. It is 1 when all embeddings coincide (collapse) and B
    when they are orthogonal. Only the Gram matrix's Frobenius norm is needed, no decomposition.

    Args:
        embeddings: (B, D), any length.

    Returns:
        Scalar in [1, min(B, D)].
    """
    unit = F.normalize(embeddings.detach().float(), dim=1)
    total = (unit @ unit.T).square().sum()
    # Embeddings of length zero have no direction: this counts as complete collapse.
    return torch.where(total > 0, len(unit) ** 2 / total, torch.ones_like(total))


#: Number of faces that go through a network together: exactly that on a CPU, a multiple on a GPU.
_PORTIONS = dict(cpu=8, cuda=32)


def predict_in_full_batches(
    predict: Callable[[torch.Tensor], dict[str, torch.Tensor]], inputs: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Call ``predict`` on portions of a fixed size; pad the last one and cut the results.

    The numerical libraries use different kernels for few and for many rows, which sum in different
    order: the last bits of a short last batch would depend on how the faces are distributed over
    batches, and so over ranks. With full portions they do not, and any number of ranks gives
    bitwise the same embeddings.

    On a CPU a portion is 8 faces: larger maps do not fit into the caches, and their memory is
    allocated anew each time. A MobileFaceNet takes a third of the time of batches of 64.

    Args:
        predict: Maps (B, 3, H, W) to named tensors with leading dimension B.
        inputs: (B, 3, H, W).
    """
    num, on_cpu = len(inputs), inputs.device.type == 'cpu'
    portion = _PORTIONS['cpu' if on_cpu else 'cuda']
    missing = -num % portion
    if missing:
        inputs = torch.cat([inputs, inputs[-1:].expand(missing, *inputs.shape[1:])])
    parts = [predict(faces) for faces in (inputs.split(portion) if on_cpu else [inputs])]
    return {name: torch.cat([part[name] for part in parts])[:num] for name in parts[0]}


@MODELS.register_module()
class FaceRecognizer(BaseModel):
    """Embed faces; trained with a margin softmax over identities.

    Args:
        backbone: Config of a :class:`FaceBackbone`; an entry ``adapter`` is the config of an
            adapter such as :class:`mmvlr.models.LoRA`.
        head: Config of the recognition module; ``embed_dims`` is filled in from the backbone. None
            for a model that is used for inference only.
        data_preprocessor: Config of :class:`FaceDataPreprocessor`.
        flip_fusion: ``'none'``, or ``'sum'``: the embedding of a face is f(x) + f(flip(x)), made a
            unit vector. AdaFace's variant, unit embeddings weighted with their lengths, is the same
            sum. Published numbers exist for both conventions; state which one you report.
        distillation: Configs of losses such as :class:`mmvlr.models.CosineDistillationLoss`
            between this model and the features that :class:`TeacherHook` sets. A model with them
            can be trained without a head, on faces without labels.
        channels_last: Keep feature maps channels-last: same numbers, several times faster
            training of depthwise convolutions on CPU.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Attributes:
        ui_center: (D,) unit center of the unrecognizable identities, or zeros as long as no
            :class:`UICenterHook` has set it. A checkpoint carries it.
        has_ui_center: Whether it has been set. A plain flag, because reading the buffer would
            synchronize the GPU in every step: set the center by :meth:`set_ui_center` or from a
            checkpoint.
        needs_all_prototypes: Whether training compares faces with all of the head's prototypes.
        training_note: What the training set said of its faces, such as that they are synthetic:
            from the file that the model was loaded from.
    """

    needs_all_prototypes = False
    training_note: str | None = None

    def __init__(
        self,
        backbone: dict,
        head: dict | None = None,
        data_preprocessor: dict | None = None,
        flip_fusion: str = 'none',
        channels_last: bool = True,
        init_cfg: dict | None = None,
        distillation: Sequence[dict] = (),
    ):
        # Built here: mmengine's BaseModel knows mmvlr's preprocessor only inside a Runner.
        if not isinstance(data_preprocessor, nn.Module):
            data_preprocessor = MODELS.build(data_preprocessor or dict(type='FaceDataPreprocessor'))
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        if flip_fusion not in ('none', 'sum'):
            raise ValueError(f"flip_fusion must be 'none' or 'sum', not {flip_fusion!r}")
        adapter = backbone.get('adapter')
        self.backbone = MODELS.build({k: v for k, v in backbone.items() if k != 'adapter'})
        # The adapter's hooks on layers of the backbone stay when a model is copied as a whole.
        self.adapter = adapter and MODELS.build({**adapter, 'backbone': self.backbone})
        # Freeze layers now: a distributed wrapper expects a gradient of every trainable parameter.
        self.backbone.train()
        self.embed_dims = self.backbone.embed_dims
        self.head = None
        if head is not None:
            self.head = MODELS.build({'embed_dims': self.embed_dims, **head})
            sharded = getattr(self.head, 'sharded', ())
            if sharded and self.needs_all_prototypes and self.head.num_ranks > 1:
                raise ValueError(
                    f'{type(self).__name__} compares faces with the prototypes of all classes, of '
                    f'which a rank of {self.head.num_ranks} holds a part; use RecognitionModule'
                )
            # DDP reads this: shards are neither broadcast nor averaged.
            self._ddp_params_and_buffers_to_ignore = [f'head.{name}' for name in sharded]
        self.distillation = nn.ModuleList([MODELS.build(loss) for loss in distillation or ()])
        #: ``sample_idx`` (N,) and the teacher's features of these faces, by name.
        self.teacher: dict[str, torch.Tensor] | None = None
        self.flip_fusion = flip_fusion
        self.channels_last = channels_last
        if channels_last:
            self.backbone.to(memory_format=torch.channels_last)
        self.register_buffer('ui_center', torch.zeros(self.embed_dims))
        self.has_ui_center = False

    # What hooks use -----------------------------------------------------------------------------

    def set_ui_center(self, center: torch.Tensor) -> None:
        """Set the UI center u (D,), scaled to unit length; zeros unset it."""
        self.ui_center.copy_(F.normalize(center.to(self.ui_center), dim=0))
        self._read_flags()

    def _read_flags(self) -> None:
        """Update the flags from the buffers that they describe."""
        self.has_ui_center = bool(self.ui_center.any())

    def _load_from_state_dict(self, *args) -> None:
        """Load, then update the flags; mmengine does not run torch's load hooks, but calls this."""
        super()._load_from_state_dict(*args)
        self._read_flags()

    def extract_feat(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map network input (B, 3, H, W) to feature map (B, C, h, w) and embedding (B, D)."""
        if self.channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        if self.adapter is None:
            return self.backbone(inputs)
        self.adapter.set_gates(self, inputs)
        features = self.backbone(inputs)
        self.adapter.require_use()
        return features

    def merge_adapter(self) -> None:
        """Add the adapter, if there is one, to the weights of the backbone.

        Raises:
            ValueError: It weights faces differently; see :meth:`mmvlr.models.LoRA.merge`.
        """
        if self.adapter is not None:
            self.adapter.merge(self.backbone)
            self.adapter = None

    # The three modes ----------------------------------------------------------------------------

    def forward(
        self,
        inputs: torch.Tensor,
        data_samples: Sequence[FaceDataSample] | None = None,
        mode: str = 'tensor',
    ) -> Any:
        """Run the model.

        Args:
            inputs: (B, 3, H, W), as the data preprocessor makes it.
            data_samples: One record a face; needs ``gt_label`` in mode ``'loss'``.
            mode: ``'loss'``: dict of losses and log values. ``'predict'``: the data samples with
                predictions. ``'tensor'``: (feature map, embedding).
        """
        if mode == 'tensor':
            return self.extract_feat(inputs)
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        raise ValueError(f"mode must be 'loss', 'predict' or 'tensor', not {mode!r}")

    def loss(
        self, inputs: torch.Tensor, data_samples: Sequence[FaceDataSample]
    ) -> dict[str, torch.Tensor]:
        """Return the losses (keys with ``loss``) and log values of a batch."""
        if self.head is None and not self.distillation:
            raise ValueError('the model has no head: give model.head to train it')
        features = self.extract_feat(inputs)
        embeddings = features[1]
        losses = self.distillation_losses(features, data_samples)
        if self.head is not None:
            labels = self.stack_labels(data_samples, embeddings.device)
            losses |= self.head.loss(embeddings, labels)
        losses['effective_rank'] = effective_rank(embeddings)
        return losses

    def distillation_losses(
        self, features: Sequence[torch.Tensor], data_samples: Sequence[FaceDataSample]
    ) -> dict[str, torch.Tensor]:
        """Return the losses against the teacher's features of the same faces.

        Raises:
            ValueError: No teacher has set its features, or it has not seen a face.
        """
        if not self.distillation:
            return {}
        if self.teacher is None:
            raise ValueError('model.distillation needs a TeacherHook in custom_hooks')
        wanted = torch.tensor([sample.sample_idx for sample in data_samples])
        known = self.teacher['sample_idx']
        rows = torch.searchsorted(known, wanted).clamp(max=len(known) - 1)
        if not torch.equal(known[rows], wanted):
            raise ValueError('the teacher has not seen all faces: give TeacherHook the whole set')
        teacher = {k: v[rows] for k, v in self.teacher.items() if k != 'sample_idx'}
        return {f'loss_{loss.name}': loss(features, teacher) for loss in self.distillation}

    @staticmethod
    def stack_labels(data_samples: Sequence[FaceDataSample], device: torch.device) -> torch.Tensor:
        """Return the class labels (B,) of a batch."""
        labels = torch.stack([sample.gt_label for sample in data_samples])
        return labels.to(device, non_blocking=True).view(-1)

    def predictions(self, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the predictions for each face: tensors with a leading dimension B.

        ``backbone_embedding`` and ``embedding`` (B, D), ``embedding_norm`` (B,) and, once a UI
        center is set, ``ers`` (B,). Flip fusion changes ``embedding`` only: qualities are those of
        the unflipped face.
        """
        result = self.plain_predictions(inputs)
        if self.flip_fusion == 'sum':
            mirrored = self.plain_predictions(inputs.flip(3))['embedding']
            result['embedding'] = F.normalize(result['embedding'] + mirrored, dim=1)
        return result

    def plain_predictions(self, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return :meth:`predictions` without flip fusion."""
        return self.feature_predictions(*self.extract_feat(inputs))

    def feature_predictions(
        self, feature_map: torch.Tensor, embeddings: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return the predictions based on the backbone's outputs; subclasses extend this.

        Args:
            feature_map: (B, C, h, w).
            embeddings: (B, D).
        """
        return self.embedding_predictions(embeddings)

    def embedding_predictions(self, embeddings: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the predictions based on the backbone's embedding alone."""
        embeddings = embeddings.float()
        result = dict(
            backbone_embedding=embeddings,
            embedding=embeddings,
            embedding_norm=embeddings.norm(dim=1),
        )
        if self.has_ui_center:
            cosine = F.normalize(embeddings, dim=1) @ self.ui_center
            result['ers'] = (1 - cosine).clamp(max=1)
        return result

    def predict(
        self, inputs: torch.Tensor, data_samples: Sequence[FaceDataSample] | None = None
    ) -> list[FaceDataSample]:
        """Return one data sample per face, with its :meth:`predictions`."""
        result = predict_in_full_batches(self.predictions, inputs)
        del result['backbone_embedding']
        if data_samples is None:
            data_samples = [FaceDataSample() for _ in range(len(inputs))]
        for index, sample in enumerate(data_samples):
            for name, values in result.items():
                setattr(sample, name, values[index])
        return list(data_samples)
