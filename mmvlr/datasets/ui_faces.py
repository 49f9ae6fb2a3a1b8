"""Faces of unrecognizable identities (UI)."""

from typing import Any

from mmvlr.registry import DATASETS

from .base import NO_IDENTITY, UNREAD, FaceDataset, require_folder
from .finding import find_images
from .storage import data_path

LAYOUT = 'a folder of pictures, or folders of pictures inside it'


@DATASETS.register_module()
class UIFaces(FaceDataset):
    """Unrecognizable faces without labels: role ``ui``, identity -100.

    RI-Face, appendix A, takes them from person re-identification sets. Pictures are read from
    ``data_root`` and the folders in it, in name order.

    Args:
        data_root: The folder, or a pack of it.
        max_pictures: Use at most so many, spread evenly over the set; None for all.
        **kwargs: See :class:`FaceDataset`.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It holds no picture.
    """

    METAINFO = dict(dataset_type='UIFaces')

    def __init__(self, data_root: str = '', max_pictures: int | None = None, **kwargs: Any):
        self.max_pictures = max_pictures
        kwargs.setdefault('test_mode', True)
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return one record a picture."""
        root = require_folder(data_path(self.data_root), 'UIFaces', LAYOUT)
        tree = find_images(root)
        pictures = tree.images
        self.left_out['entries that are no pictures'].extend(e.name for e in tree.others)
        self.left_out[UNREAD].extend(map(str, tree.unread))
        if not pictures:
            raise ValueError(
                f'UIFaces: no picture under {root}; expected {LAYOUT}. Set UI_ROOT to a folder of '
                'unrecognizable faces.'
            )
        if self.max_pictures is not None and len(pictures) > self.max_pictures:
            step = len(pictures) / self.max_pictures
            kept = [pictures[int(index * step)] for index in range(self.max_pictures)]
            self.left_out['pictures beyond max_pictures'].extend(
                path.name for path in pictures if path not in set(kept)
            )
            pictures = kept
        return [dict(img_path=str(path), identity=NO_IDENTITY, role='ui') for path in pictures]
