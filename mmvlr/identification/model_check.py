"""Refuse a model that gives every face the same embedding."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmvlr.structures import FaceTable
from mmvlr.utils.vectors import unit_rows

from .answers import Embedder

#: From this similarity on it is displayed as 1.000.
_ALIKE = 0.9995


class BrokenModelError(ValueError):
    """A model gives every face the same embedding."""


def check_model(
    inferencer: Embedder, faces: FaceTable, given: Any, owners: Sequence[str] = ()
) -> None:
    """Raise ``BrokenModelError`` if the model gives every face the same embedding.

    A few faces may be similar for another reason. Therefore the first one is also embedded
    upside down and inverted, which a working model maps to another embedding.
    """
    unit = unit_rows(faces.embedding)
    if (unit @ unit[0]).min() < _ALIKE:
        return
    if len({*owners}) < 3:
        image = faces.names[0] if os.path.isfile(faces.names[0]) else given
        for crop in inferencer.crops(image)[:1]:
            others = inferencer.network(np.stack([crop[::-1], 255 - crop]))['embedding']
            if (unit_rows(others) @ unit[0]).min() < _ALIKE:
                return
    raise BrokenModelError(
        'the model is broken: it gives every face the same embedding (similarity 1.000 of '
        f'{len(unit)} faces, also upside down), so it cannot tell people apart; use another '
        'checkpoint'
    )
