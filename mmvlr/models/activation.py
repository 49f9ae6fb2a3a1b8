"""Compute class-activation maps: which parts of a face contribute to its similarity."""

import copy
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from mmvlr.models.recognizers import FaceRecognizer
from mmvlr.utils.vectors import moderate_rows

METHODS = ('gradcam', 'gradcam++', 'eigencam')
# Scales the cosine to a logit, as the margin losses do. The scale affects Grad-CAM++ only: its
# weights come from exp(target), and the gradients of a plain cosine are small compared with the
# library's epsilon.
_SCALE = 64.0


def activation_maps(
    model: FaceRecognizer,
    inputs: torch.Tensor,
    references: torch.Tensor | np.ndarray | None = None,
    method: str = 'gradcam',
    layer: str | None = None,
) -> np.ndarray:
    """Compute maps that show which positions of each face contribute to its similarity.

    The target of a face is the cosine of its embedding v to its reference r, such as the mean of
    its person's gallery embeddings. v is the predicted ``embedding`` without flip fusion; with
    RI-Face's ``inference_embedding='attention'`` that is v_attn.

    Without references the target is the dot product of v with its own direction, held constant,
    which is its length. (The cosine of v to itself is at its maximum, where the gradient vanishes.)
    The map then shows what makes the embedding long, not what distinguishes the person.

    Grad-CAM (Selvaraju et al., ICCV 2017): channels weighted with the spatial mean of the target's
    gradient, summed, negative values set to 0. Grad-CAM++ (Chattopadhay et al., WACV 2018) weights
    with positions of positive gradient alone; the cosine is scaled by 64, as in a margin loss.
    Eigen-CAM (Muhammad and Yeasin, IJCNN 2020), the first principal component of the activations,
    uses neither target nor reference; its arbitrary sign is chosen so that the value farthest from
    0 is positive. All three are computed by ``pytorch_grad_cam``.

    A copy of the model's modules, which shares the weights, runs in eval mode: the model is not
    changed, and may be in use at the same time, in other threads or in training.

    Args:
        model: A recognizer, on any device.
        inputs: (B, 3, H, W), as the data preprocessor makes it. Memory grows with B.
        references: (B, D), of any length but 0. None: see above.
        method: ``'gradcam'``, ``'gradcam++'`` or ``'eigencam'``.
        layer: Name of a module of the model, such as ``'backbone.layer3'``, whose output
            (B, C, h, w) is weighted. None for the backbone's feature map.

    Returns:
        (B, H, W) float32 in [0, 1]. Every map is scaled to its own range; it is 0 everywhere if no
        position contributes to the similarity.

    Raises:
        ImportError: ``pytorch_grad_cam`` is not installed.
        ValueError: Method, layer or references do not fit, the embeddings are not finite, or they
            are unit vectors and there are no references.
    """
    library_class = _library_class(method)
    if inputs.ndim != 4 or not len(inputs):
        raise ValueError(f'inputs must be (B, 3, H, W) with B > 0, got {tuple(inputs.shape)}')
    model = _private(model)
    modules = dict(model.named_modules())
    if layer is not None and layer not in modules:
        raise ValueError(
            f'the model has no layer {layer!r}; give a name of model.named_modules(), or None for '
            'the feature map'
        )
    # Gradients are needed even if the caller is in inference mode or under no_grad.
    with torch.inference_mode(False):
        device = next(model.parameters()).device
        targets = _targets(references, (len(inputs), model.embed_dims), device)
        # Parameters are frozen, so the input must require the gradient.
        inputs = inputs.detach().to(device, copy=True).requires_grad_()
        embedder = _Embedder(model, None if layer is None else modules[layer])
        cam = library_class(embedder, [embedder.layer])
        maps = cam(inputs, targets)
        embeddings = cam.outputs.detach()
    if not embeddings.isfinite().all():
        raise ValueError('the embeddings are not finite: check the inputs and the checkpoint')
    if references is None and method != 'eigencam' and _is_unit(embeddings):
        raise ValueError(
            'the model makes embeddings of length 1 whatever the face: give references'
        )
    return maps


def _library_class(method: str) -> type:
    if method not in METHODS:
        raise ValueError(f'method must be one of {METHODS}, not {method!r}')
    try:
        from pytorch_grad_cam import EigenCAM, GradCAM, GradCAMPlusPlus
    except ImportError as error:
        raise ImportError(
            'activation maps need pytorch_grad_cam, which is not installed: '
            "pip install 'mmvlr[cam]'"
        ) from error

    class OrientedEigenCAM(EigenCAM):
        """Eigen-CAM whose sign does not depend on the linear algebra library."""

        def get_cam_image(self, *args) -> np.ndarray:
            projections = super().get_cam_image(*args)
            lowest, highest = projections.min((1, 2)), projections.max((1, 2))
            return projections * np.where(-lowest > highest, -1, 1)[:, None, None]

    return dict(zip(METHODS, (GradCAM, GradCAMPlusPlus, OrientedEigenCAM), strict=True))[method]


def _private(model: FaceRecognizer) -> FaceRecognizer:
    """Return a copy that has its own modes and hooks and shares the model's weights."""
    known: dict[int, object] = {id(model.head): None}
    known |= {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in model.parameters()}
    known |= {id(buffer): buffer.detach() for buffer in model.buffers()}
    copied = copy.deepcopy(model, known).eval()
    # Frozen stages run without a graph, which ends the way of the gradient to the input.
    copied.backbone.frozen_stages = 0
    return copied


class _Embedder(nn.Module):
    """Map faces to embeddings, with a module whose output is the map, as the library requires.

    The feature map passes through an identity module. This works for any backbone, whatever module
    computes the map; and as the identity returns the same tensor from which the embedding is
    computed, its gradient is complete.
    """

    def __init__(self, model: FaceRecognizer, layer: nn.Module | None):
        super().__init__()
        self.model = model
        self.feature_map = nn.Identity()
        self.layer = self.feature_map if layer is None else layer
        self.layer_was_run = False
        model.backbone.register_forward_hook(self._show_feature_map)
        self.layer.register_forward_hook(self._check_layer)

    def _show_feature_map(self, module: nn.Module, args: tuple, output: tuple) -> None:
        self.feature_map(output[0])

    def _check_layer(self, module: nn.Module, args: tuple, output: object) -> None:
        if not isinstance(output, torch.Tensor) or output.ndim != 4:
            kind = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output)
            raise ValueError(f'the output of the layer must be a map (B, C, h, w), not {kind}')
        self.layer_was_run = True

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        embeddings = self.model.plain_predictions(inputs)['embedding']
        if not self.layer_was_run:
            raise ValueError("the layer takes no part in computing the model's embedding")
        return embeddings


def _targets(
    references: torch.Tensor | np.ndarray | None, shape: tuple[int, int], device: torch.device
) -> list[Callable[[torch.Tensor], torch.Tensor]]:
    """Return, for every face, the function that maps its embedding (D,) to the target."""
    if references is None:
        return [_length] * shape[0]
    references = torch.as_tensor(references)
    if tuple(references.shape) != shape:
        raise ValueError(
            f'references must be {shape}, one for every face, got {tuple(references.shape)}'
        )
    references = moderate_rows(references, 'reference {}'.format).to(device, torch.float32)
    return [partial(_scaled_cosine, reference) for reference in references]


def _scaled_cosine(reference: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
    return _SCALE * F.cosine_similarity(reference, embedding, dim=0)


def _is_unit(embeddings: torch.Tensor) -> bool:
    return bool(((embeddings.norm(dim=1) - 1).abs() < 1e-5).all())


def _length(embedding: torch.Tensor) -> torch.Tensor:
    """The dot product with the embedding's own direction, held constant."""
    return embedding @ F.normalize(embedding.detach(), dim=0)
