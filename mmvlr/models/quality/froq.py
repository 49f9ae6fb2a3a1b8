"""FROQ: measure the length of intermediate representations that tell perturbed faces apart.

Babnik et al., *FROQ: Observing Face Recognition Models for Efficient Quality Assessment*, IJCB
2025.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import nn

from mmvlr.models.recognizers import FaceRecognizer
from mmvlr.registry import QUALITIES

from .base import Extract, FaceBatch, QualityMeasure


def choose_layers(norms: np.ndarray, labels: np.ndarray, candidates: int = 10) -> list[int]:
    """Choose layers whose mean norm is ranked most like pseudo labels.

    The layers of highest Spearman correlation are the candidates. The best of them comes first;
    then always the one is added with which the mean correlates most, as long as it rises.

    Args:
        norms: (L, N), L layers.
        labels: (N,) pseudo labels, higher is better.
        candidates: Number of candidates.

    Returns:
        Numbers of the layers, in the order in which they were chosen.
    """

    def correlate(rows: list[int]) -> float:
        value = spearmanr(norms[rows].mean(0), labels).statistic
        return float(value) if np.isfinite(value) else -1.0

    single = [correlate([row]) for row in range(len(norms))]
    left = sorted(range(len(norms)), key=lambda row: -single[row])[:candidates]
    chosen, best = [left[0]], single[left.pop(0)]
    while left:
        found = [correlate([*chosen, row]) for row in left]
        place = int(np.argmax(found))
        if found[place] <= best:
            break
        best = found[place]
        chosen.append(left.pop(place))
    return chosen


@QUALITIES.register_module()
class FROQQuality(QualityMeasure):
    """FROQ: mean L2 norm of the outputs of some layers of the backbone.

    The layers are chosen on training faces, see :func:`choose_layers`, without their labels. The
    pseudo label of a face is the mean cosine between its embedding and those of its flip, of the
    face with Gaussian noise, and of the face with each cell of a grid set to zero (the mean over
    the cells counts as one). Only layers that run by themselves are seen: of a convolution and a BN
    that are computed as one, what follows them.

    Args:
        layers: Names of the backbone's modules; None to choose them.
        dataloader: Name of the config's loader over training faces, for the choice.
        candidates: See :func:`choose_layers`.
        noise: Standard deviation of the noise, in units of the network's input.
        grid: Cells in each direction.
        seed: Seed of the noise.
        name: See :class:`QualityMeasure`.
    """

    name = 'froq'

    def __init__(
        self,
        layers: Sequence[str] | None = None,
        dataloader: str = 'prototype_dataloader',
        candidates: int = 10,
        noise: float = 0.1,
        grid: int = 2,
        seed: int = 0,
        name: str | None = None,
    ):
        super().__init__(name)
        self.layers = None if layers is None else list(layers)
        self.needs_training_faces = layers is None
        self.dataloader = dataloader
        self.candidates = candidates
        self.noise, self.grid, self.seed = noise, grid, seed

    @torch.no_grad()
    def pseudo_labels(self, model: FaceRecognizer, inputs: torch.Tensor) -> torch.Tensor:
        """Return the robustness of the embeddings of faces (B, 3, H, W), (B,)."""
        unit = F.normalize(model.extract_feat(inputs)[1].double(), dim=1)

        def compare(changed: torch.Tensor) -> torch.Tensor:
            return (F.normalize(model.extract_feat(changed)[1].double(), dim=1) * unit).sum(1)

        generator = torch.Generator().manual_seed(self.seed)
        noise = self.noise * torch.randn(inputs.shape[1:], generator=generator).to(inputs)
        height, width = inputs.shape[2:]
        cells = []
        for row in range(self.grid):
            for column in range(self.grid):
                hidden = inputs.clone()
                top, left = height * row // self.grid, width * column // self.grid
                bottom = height * (row + 1) // self.grid
                right = width * (column + 1) // self.grid
                hidden[:, :, top:bottom, left:right] = 0
                cells.append(compare(hidden))
        components = [compare(inputs.flip(3)), compare(inputs + noise), torch.stack(cells).mean(0)]
        return torch.stack(components).mean(0)

    def prepare(self, model: FaceRecognizer, extract: Extract) -> None:
        """See :class:`QualityMeasure`; chooses the layers."""
        names = [name for name, _ in model.backbone.named_modules() if name]

        def predict(inputs: torch.Tensor) -> dict[str, torch.Tensor]:
            norms = measure_norms(model, inputs, names)
            return {**norms, 'label': self.pseudo_labels(model, inputs)}

        found = extract(self.dataloader, predict)
        seen = [name for name in names if name in found]
        norms = np.stack([found[name].numpy() for name in seen])
        chosen = choose_layers(norms, found['label'].numpy(), self.candidates)
        self.layers, self.is_prepared = [seen[row] for row in chosen], True

    def measure(self, faces: FaceBatch) -> torch.Tensor:
        """Return the mean norms (B,).

        Raises:
            ValueError: The backbone has no layer of a name, or it does not run by itself.
        """
        known = dict(faces.model.backbone.named_modules())
        norms = {}
        if all(name in known for name in self.layers):
            norms = measure_norms(faces.model, faces.inputs, self.layers)
        missing = [name for name in self.layers if name not in norms]
        if missing:
            raise ValueError(
                f'{self.name!r}: {type(faces.model.backbone).__name__} has no layer {missing[0]!r} '
                'whose output can be observed; leave layers out to have them chosen'
            )
        return torch.stack(list(norms.values())).mean(0)


@torch.no_grad()
def measure_norms(
    model: FaceRecognizer, inputs: torch.Tensor, names: Sequence[str]
) -> dict[str, torch.Tensor]:
    """Return the L2 norms of the outputs of layers of the backbone by name, (B,) each.

    Layers that do not run by themselves are left out.
    """
    norms: dict[str, torch.Tensor] = {}
    with _observed(model.backbone, names, norms):
        model.extract_feat(inputs)
    return {name: norms[name] for name in names if name in norms}


@contextmanager
def _observed(
    backbone: nn.Module, names: Sequence[str], norms: dict[str, torch.Tensor]
) -> Iterator[None]:
    def observe(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple, output: object) -> None:
            if isinstance(output, torch.Tensor):
                norms[name] = output.double().flatten(1).norm(dim=1)

        return hook

    modules = dict(backbone.named_modules())
    hooks = [modules[name].register_forward_hook(observe(name)) for name in names]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
