"""Keep the embeddings of a test instead of computing on them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from mmvlr.registry import METRICS
from mmvlr.structures.face_table import FaceTable

from .base import FaceMetric


@METRICS.register_module()
class EmbeddingDump(FaceMetric):
    """Write the embeddings of a test set with their records to an ``.npz`` file.

    It stands beside the other metrics of an evaluator and gives no number itself; the file is what
    ``tools/analysis/eval_embeddings.py`` and ``tools/test.py --cache`` read. Fields: see
    :class:`FaceTable`; ``name`` is the file below ``root``.

    Args:
        out: The file; written atomically.
        root: Folder that names start from; files elsewhere keep their whole path.
        meta: Plain values kept in the file.
        **kwargs: See :class:`FaceMetric`.
    """

    default_prefix = ''
    attributes = MappingProxyType({'img_path': '', 'distance': 0, 'camera': 0})

    def __init__(self, out: str, root: str = '', meta: Mapping[str, Any] | None = None, **kwargs):
        super().__init__(**kwargs)
        self.out = Path(out)
        self.root = root
        self.meta = dict(meta or {})

    def report(self, faces: FaceTable) -> dict[str, float]:
        """Write the file."""
        columns = dict(faces.columns)
        columns['name'] = np.array([relative_name(p, self.root) for p in columns.pop('img_path')])
        for name in ('distance', 'camera'):
            if not columns[name].any():
                del columns[name]
        replace(faces, columns=columns, meta=self.meta).save(self.out)
        return {}


def relative_name(path: str, root: str) -> str:
    """Return a file's name below ``root`` with forward slashes, or the whole path."""
    path = str(path)
    if root and Path(path).is_relative_to(root):
        return Path(path).relative_to(root).as_posix()
    return path
