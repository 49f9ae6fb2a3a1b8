"""Any image model of the timm package as a backbone."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmvlr.registry import MODELS

from .base import FaceBackbone

#: Arguments of ``timm.create_model`` that this class sets itself, or that would read other files:
#: the config in a checkpoint must not make anybody download something.
_OWN = ('pretrained', 'checkpoint_path', 'cache_dir', 'num_classes', 'features_only', 'scriptable')


@MODELS.register_module()
class TimmBackbone(FaceBackbone):
    """A model of timm: its map or its tokens, then a linear layer and a BN to the embedding.

    Tokens of patches become a map of their grid; class and register tokens take part in the model
    and are left out of the map. The weights start at random or come from a checkpoint
    (``load_from``); nothing is downloaded.

    Args:
        model_name: A name of ``timm.list_models()``, such as ``'vit_tiny_patch16_224'``.
        embed_dims: Size D of the embedding.
        input_size: Side of the square input in pixels.
        pooling: ``'mean'`` of the map in front of the linear layer, or ``'flatten'``, which keeps
            the positions and has as many times the weights as the map has positions.
        drop_path: Largest probability of leaving a block out in training.
        dropout: Dropout probability in front of the linear layer.
        model_args: Further arguments of the model, such as ``dict(patch_size=8)``. ``img_size``
            is set where the model takes it.
        frozen_bn, frozen_stages, with_cp: See :class:`FaceBackbone`; the stages are timm's groups
            of layers, the stem first.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Raises:
        ImportError: timm is not installed.
        ValueError: timm has no model of that name, or the model does not take its arguments.
    """

    tail_layers = ('pool', 'dropout', 'linear', 'features')

    def __init__(
        self,
        model_name: str,
        embed_dims: int = 512,
        input_size: int = 112,
        pooling: str = 'mean',
        drop_path: float = 0.0,
        dropout: float = 0.0,
        model_args: Mapping[str, Any] | None = None,
        frozen_bn: bool = False,
        frozen_stages: int = 0,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ):
        super().__init__(frozen_bn, frozen_stages, with_cp, init_cfg)
        if pooling not in ('mean', 'flatten'):
            raise ValueError(f"pooling must be 'mean' or 'flatten', not {pooling!r}")
        self.embed_dims = embed_dims
        self.model = _create(model_name, input_size, drop_path, dict(model_args or {}))
        if with_cp:
            if not frozen_bn and any(isinstance(m, _BatchNorm) for m in self.model.modules()):
                raise ValueError(
                    f'with_cp: {model_name} counts every batch twice in the statistics of its BN; '
                    'set frozen_bn=True, or with_cp=False'
                )
            self.model.set_grad_checkpointing(True)
        self.model.eval()
        with torch.enable_grad():
            found = self.extract_map(torch.zeros(1, 3, input_size, input_size))
        self._drop_unused(found)
        self.feat_channels = found.shape[1]
        positions = 1 if pooling == 'mean' else found[0, 0].numel()
        self.pool = nn.AdaptiveAvgPool2d(1) if pooling == 'mean' else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(self.feat_channels * positions, embed_dims)
        self.features = nn.BatchNorm1d(embed_dims)
        self.train()

    def _drop_unused(self, feature_map: torch.Tensor) -> None:
        """Remove layers that the map does not depend on, such as the norm of a classifier."""
        weights = list(self.model.parameters())
        gradients = torch.autograd.grad(feature_map.sum(), weights, allow_unused=True)
        used = {p for p, g in zip(weights, gradients, strict=True) if g is not None}
        for name, child in list(self.model.named_children()):
            own = set(child.parameters())
            if own and not own & used:
                setattr(self.model, name, nn.Identity())

    def stages(self) -> list[list[nn.Module]]:
        """Return the modules of timm's groups of layers, the stem first."""
        from timm.models import group_parameters

        matcher = self.model.group_matcher(coarse=True)
        inside: dict[str, set[int]] = {}
        for name, group in group_parameters(self.model, matcher, reverse=True).items():
            while name:
                name = name.rpartition('.')[0]
                inside.setdefault(name, set()).add(group)
        stages: dict[int, list[nn.Module]] = {}
        for name, groups in inside.items():
            # The largest modules that belong to one group.
            if name and len(groups) == 1 and len(inside[name.rpartition('.')[0]]) > 1:
                stages.setdefault(min(groups), []).append(self.model.get_submodule(name))
        return [stages[group] for group in sorted(stages)]

    def freeze(self) -> None:
        """See :class:`FaceBackbone`; positions and class token are frozen with the stem."""
        super().freeze()
        if self.frozen_stages:
            for parameter in self.model.parameters(recurse=False):
                parameter.requires_grad_(False)

    def extract_map(self, inputs: torch.Tensor) -> torch.Tensor:
        """See :class:`FaceBackbone`."""
        found = self.model.forward_features(inputs)
        if found.ndim == 4:
            last = getattr(self.model, 'output_fmt', 'NCHW') == 'NHWC'
            return found.permute(0, 3, 1, 2) if last else found
        tokens = found[:, getattr(self.model, 'num_prefix_tokens', 0) :]
        height, width = self.model.patch_embed.dynamic_feat_size(inputs.shape[-2:])
        return tokens.transpose(1, 2).unflatten(2, (height, width))

    def embed(self, feature_map: torch.Tensor) -> torch.Tensor:
        """See :class:`FaceBackbone`."""
        return self.features(self.linear(self.dropout(self.pool(feature_map).flatten(1))))


def _create(name: str, size: int, drop_path: float, arguments: dict[str, Any]) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise ImportError("TimmBackbone needs timm: pip install 'mmvlr[timm]'") from error
    if not isinstance(name, str) or not timm.is_model(name):
        near = timm.list_models(f'{name}*')[:3] if isinstance(name, str) else []
        hint = f', such as {", ".join(near)}' if near else ''
        raise ValueError(
            f'timm {timm.__version__} has no model {name!r:.80}; timm.list_models() lists all{hint}'
        )
    own = sorted(arguments.keys() & set(_OWN))
    if own:
        raise ValueError(f'model_args must not set {", ".join(own)}: give weights as load_from')
    known = dict(num_classes=0, drop_path_rate=drop_path, **arguments)
    try:
        try:
            return timm.create_model(name, pretrained=False, **{'img_size': size, **known})
        except TypeError:
            return timm.create_model(name, pretrained=False, **known)
    except (TypeError, AssertionError) as error:
        raise ValueError(f'{name} does not take model_args={arguments}: {error}') from error
