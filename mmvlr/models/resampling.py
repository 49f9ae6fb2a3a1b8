"""Resize and augment a whole batch of faces, on any device.

The results equal those of :mod:`mmvlr.datasets.transforms` for the same parameters, up to
rounding: OpenCV's bicubic kernel (Keys, *Cubic convolution interpolation for digital image
processing*, 1981, with a = -0.75), pixel centers at half-integers, no antialiasing, and whole gray
levels after every step. The steps are not merged into one: a rotation straight from the native
pixels mirrors native pixels at the border, and so changes a ninth of a small face's pixels by more
than 2 gray levels.

All functions work in float32 on any device without synchronizing it: everything that determines the
shape of a result is on the CPU. Images are (B, 3, H, W) float32 in whole gray levels.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F

_A = -0.75


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor from the CPU to a device asynchronously, by pinned memory for a GPU."""
    if device.type == 'cuda':
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def cubic_taps(source: torch.Tensor, target: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the four source pixels of each pixel of a resized line, and their weights.

    Args:
        source: (B,) lengths of the lines in pixels.
        target: Length after resizing.

    Returns:
        Indices (B, target, 4), int64 in [0, source), the border repeated; weights of the same
        shape, float32, of sum 1.
    """
    center = torch.arange(target, device=source.device) + 0.5
    place = center * (source / target)[:, None] - 0.5
    first = place.floor()
    t = place - first

    def inner(x: torch.Tensor) -> torch.Tensor:
        return ((_A + 2) * x - (_A + 3)) * x * x + 1

    def outer(x: torch.Tensor) -> torch.Tensor:
        return ((_A * x - 5 * _A) * x + 8 * _A) * x - 4 * _A

    weights = torch.stack([outer(t + 1), inner(t), inner(1 - t), outer(2 - t)], dim=-1)
    steps = torch.arange(-1, 3, device=source.device)
    indices = (first.long()[..., None] + steps).clamp(min=0)
    return indices.minimum(source[:, None, None] - 1), weights


def resize_native(
    pixels: torch.Tensor, sizes: torch.Tensor, num_rows: int, size: Sequence[int]
) -> torch.Tensor:
    """Resize faces of different sizes, none of them padded, to one size.

    Lines are resampled first across, then down; each time a result is a weighted sum of four rows
    of a table: of pixels, then of resampled lines.

    Args:
        pixels: (N,) uint8, the faces (h, w, 3) one after the other.
        sizes: (B, 2) int64, height and width of each.
        num_rows: Sum of the heights, an argument so that the device need not be synchronized.
        size: (height, width) of the result.

    Returns:
        Images (B, 3, height, width).
    """
    height, width = size
    heights, widths = sizes.unbind(1)
    faces = torch.arange(len(sizes), device=sizes.device)
    face = torch.repeat_interleave(faces, heights, output_size=num_rows)
    start = widths[face].cumsum(0) - widths[face]
    across, weights = cubic_taps(widths, width)
    table = pixels.view(-1, 3).float()
    lines = _weighted_sum(table, across[face] + start[:, None, None], weights[face])
    down, weights = cubic_taps(heights, height)
    first_row = heights.cumsum(0) - heights
    table = lines.view(num_rows, width * 3)
    images = _weighted_sum(table, down + first_row[:, None, None], weights)
    return to_levels(images.view(-1, height, width, 3).permute(0, 3, 1, 2)).contiguous()


def _weighted_sum(
    table: torch.Tensor, indices: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Sum rows of ``table`` (R, D), chosen by (..., 4), with weights (..., 4): (M, D)."""
    return F.embedding_bag(
        indices.flatten(0, -2), table, mode='sum', per_sample_weights=weights.flatten(0, -2)
    )


def to_levels(images: torch.Tensor) -> torch.Tensor:
    """Round to whole gray levels in [0, 255], as storing them as uint8 does."""
    return images.round().clamp_(0, 255)


def flip(images: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
    """Mirror those images horizontally whose entry in (B,) is not 0."""
    mirrored = to_device(mirrored, images.device)
    return torch.where(mirrored.view(-1, 1, 1, 1) != 0, images.flip(3), images)


def rotate(images: torch.Tensor, degrees: torch.Tensor) -> torch.Tensor:
    """Rotate images about their center, counter-clockwise, the border mirrored.

    Args:
        images: (B, 3, H, W).
        degrees: (B,) angles, on the CPU.
    """
    height, width = images.shape[2:]
    angle = degrees.double().deg2rad()
    turn = torch.stack([angle.cos(), angle.sin()]).float()
    cos, sin = to_device(turn, images.device)[:, :, None, None]
    # Pixels from the center; F.grid_sample wants them in half sides.
    y = torch.arange(height, device=images.device)[:, None] - (height - 1) / 2
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    grid = torch.stack(
        [(cos * x - sin * y) * (2 / (width - 1)), (sin * x + cos * y) * (2 / (height - 1))], dim=-1
    )
    # Its bicubic kernel has a = -0.75 too, and mirrors without repeating the outermost pixel.
    return to_levels(F.grid_sample(images, grid, 'bicubic', 'reflection', align_corners=True))


def rescale(images: torch.Tensor, sides: torch.Tensor) -> torch.Tensor:
    """Resize images to (side, side) and back; those with side 0 are left as they are.

    Args:
        images: (B, 3, H, W).
        sides: (B,) in pixels, on the CPU.
    """
    height, width = images.shape[2:]
    result = images
    for side in sorted({int(side) for side in sides.tolist()} - {0}):
        if result is images:
            result = images.clone()
        chosen = to_device((sides == side).nonzero().view(-1), images.device)
        small = _resize(images[chosen], (side, side))
        result.index_copy_(0, chosen, _resize(small, (height, width)))
    return result


def _resize(images: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Resize images (B, 3, H, W) to ``size``; the same size is left as it is."""
    if tuple(images.shape[2:]) == tuple(size):
        return images
    down, across = (
        resize_matrix(source, target, images.device)
        for source, target in zip(images.shape[2:], size, strict=True)
    )
    return to_levels(down @ (images @ across.T))


@lru_cache(maxsize=64)
def resize_matrix(source: int, target: int, device: torch.device) -> torch.Tensor:
    """Return the matrix (target, source) that resizes a line, float32."""
    indices, weights = cubic_taps(torch.tensor([source]), target)
    matrix = torch.zeros(target, source)
    # Where the border is repeated, several taps fall on one pixel.
    return matrix.scatter_add_(1, indices[0], weights[0]).to(device)


#: Name of a transform -> the same for a batch. Its second argument is what ``draw`` of the
#: transform returned for each face, (B,) on the CPU.
STEPS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = dict(
    FlipFace=flip, RotateFace=rotate, RescaleFace=rescale
)
