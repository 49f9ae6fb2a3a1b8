"""Data sets that read insightface's files."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log

from mmvlr.registry import DATASETS

from ..base import NO_IDENTITY, FaceDataset
from .paths import open_stored


@DATASETS.register_module()
class RecordIOFaces(FaceDataset):
    """Training faces of insightface's ``train.rec`` with ``train.idx`` beside it: role ``train``.

    Labels are the first ones of the records. Where they are not 0 to C-1 for C people, they are
    renumbered in their order, with a warning; ``identity`` keeps the number of the file.

    Args:
        data_root: Folder with the two files, or the .rec file itself.
        rec: Name of the .rec file; its index has the same name and ends in ``.idx``.
        **kwargs: See :class:`FaceDataset`.

    Raises:
        FileNotFoundError: One of the files is missing.
        ValueError: A record is damaged, or its label is not the number of a person.
    """

    METAINFO = dict(dataset_type='RecordIOFaces')

    def __init__(self, data_root: str = '', rec: str = 'train.rec', **kwargs: Any):
        self.rec = rec
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return one record per image."""
        file = Path(self.data_root)
        file = file if file.is_file() else file / self.rec
        if file.suffix != '.rec' or not file.is_file():
            raise FileNotFoundError(
                f'RecordIOFaces: no .rec file {file}; expected train.rec and train.idx, as '
                'insightface makes them'
            )
        reader = open_stored(file)
        keys = reader.image_keys()
        found = reader.first_labels(keys)
        # float32 holds whole numbers up to 2^24.
        wrong = np.flatnonzero(~((found >= 0) & (found < 2**24) & (found == np.floor(found))))
        if len(wrong):
            raise ValueError(
                f'RecordIOFaces: record {keys[wrong[0]]} of {file} has the label '
                f'{found[wrong[0]]}; expected the number of a person ({len(wrong):,} records)'
            )
        identities, labels = np.unique(found.astype(np.int64), return_inverse=True)
        if identities[-1] != len(identities) - 1:
            print_log(
                f'RecordIOFaces ({file}): labels {identities[0]} to {identities[-1]} of '
                f'{len(identities):,} people are renumbered to 0 to {len(identities) - 1}',
                logger='current',
                level=logging.WARNING,
            )
        return [
            dict(img_path=str(file / str(key)), identity=identity, gt_label=label, role='train')
            for key, identity, label in zip(
                keys.tolist(), identities[labels].tolist(), labels.tolist(), strict=True
            )
        ]


@DATASETS.register_module()
class LFWBin(FaceDataset):
    """Verification pairs of insightface's .bin files (LFW, AgeDB-30, CFP-FP, ...): role ``pair``.

    The pairs are in ``metainfo``: ``pairs``, (P, 2) sample indices, and ``same``, (P,) bool. The
    files do not identify the people: every identity is -100.

    Args:
        data_root: The .bin file.
        **kwargs: See :class:`FaceDataset`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or would run code.
    """

    METAINFO = dict(dataset_type='LFWBin')

    def __init__(self, data_root: str = '', **kwargs: Any):
        kwargs.setdefault('test_mode', True)
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return one record per image; store the pairs in ``metainfo``."""
        file = Path(self.data_root)
        if file.suffix != '.bin' or not file.is_file():
            raise FileNotFoundError(
                f'LFWBin: no .bin file {file}; expected a verification file of insightface'
            )
        reader = open_stored(file)
        self._metainfo['pairs'] = np.arange(len(reader)).reshape(-1, 2)
        self._metainfo['same'] = reader.same.copy()
        return [
            dict(img_path=str(file / str(number)), identity=NO_IDENTITY, role='pair')
            for number in range(len(reader))
        ]
