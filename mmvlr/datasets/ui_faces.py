"""Faces of unrecognizable identities (UI)."""

from typing import Any

from mmvlr.registry import DATASETS

from .base import NO_IDENTITY, UNREAD, FaceDataset
from .finding import find_images


@DATASETS.register_module()
class UIFaces(FaceDataset):
    """Unrecognizable faces without labels: role ``ui``, identity -100.

    RI-Face, appendix A, takes such faces from person re-identification sets. Images are read from
    ``data_root`` and the folders in it, in name order.

    Args:
        data_root: The folder, or a pack of it.
        max_images: Largest number of images to use, spread evenly over the set; None for all.
        **kwargs: See :class:`FaceDataset`.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It holds no image.
    """

    METAINFO = dict(dataset_type='UIFaces')
    ROLE = 'ui'
    REMEDY = 'Set UI_ROOT to a folder of unrecognizable faces.'
    LAYOUT = 'a folder of images, or folders of images inside it'

    def __init__(self, data_root: str = '', max_images: int | None = None, **kwargs: Any):
        self.max_images = max_images
        kwargs.setdefault('test_mode', self.ROLE != 'train')
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return one record per image."""
        root = self.find_root()
        tree = find_images(root)
        images = tree.images
        self.left_out['entries that are no images'].extend(e.name for e in tree.others)
        self.left_out[UNREAD].extend(map(str, tree.unread))
        if not images:
            raise ValueError(
                f'{type(self).__name__}: no image under {root}; expected {self.LAYOUT}. '
                f'{self.REMEDY}'
            )
        if self.max_images is not None and len(images) > self.max_images:
            step = len(images) / self.max_images
            kept = [images[int(index * step)] for index in range(self.max_images)]
            self.left_out['images beyond max_images'].extend(
                path.name for path in images if path not in set(kept)
            )
            images = kept
        return [dict(img_path=str(path), identity=NO_IDENTITY, role=self.ROLE) for path in images]


@DATASETS.register_module()
class UnlabeledFaces(UIFaces):
    """Faces of whomever, without labels, to train on with a teacher: role ``train``.

    Arguments and errors are those of :class:`UIFaces`.
    """

    METAINFO = dict(dataset_type='UnlabeledFaces')
    ROLE = 'train'
    REMEDY = 'Set data_root to a folder of faces.'
