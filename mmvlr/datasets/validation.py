"""The validation set, and data sets of a subset of another set's people."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmvlr.registry import DATASETS

from .base import FaceDataset
from .transforms import DownsampleFace, FlipFace


class DerivedDataset(FaceDataset):
    """Base of data sets derived from the records of another one.

    Args:
        dataset: Config of the source data set, or the data set itself; its pipeline is not used.
        pipeline: Transforms of this data set.
        **kwargs: See :class:`FaceDataset`.
    """

    inspects = False

    def __init__(self, dataset: Any, pipeline: Sequence[Any] = (), **kwargs: Any):
        self.source = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        super().__init__(data_root=self.source.data_root, pipeline=pipeline, **kwargs)


@DATASETS.register_module()
class PeopleSubset(DerivedDataset):
    """Images of a subset of the people: one side of a split by identity.

    People are shuffled with ``split_seed`` and divided into ``num_folds`` folds. Class labels are
    renumbered from 0.

    Args:
        dataset: A training set.
        fold: The fold, in [0, num_folds).
        num_folds: Number of folds.
        held_out: True for the people of the fold, False for all other people.
        split_seed: Seed of the shuffle.
        **kwargs: See :class:`DerivedDataset`.
    """

    METAINFO = dict(dataset_type='PeopleSubset')

    def __init__(
        self,
        dataset: Any,
        fold: int = 0,
        num_folds: int = 3,
        held_out: bool = False,
        split_seed: int = 0,
        **kwargs: Any,
    ):
        if not 0 <= fold < num_folds:
            raise ValueError(f'fold must lie in [0, {num_folds}), not {fold}')
        self.fold, self.num_folds, self.held_out = fold, num_folds, held_out
        self.split_seed = split_seed
        super().__init__(dataset, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return the records of the chosen people."""
        records = [{k: v for k, v in r.items() if k != 'sample_idx'} for r in self.source.infos()]
        labels = sorted({record['gt_label'] for record in records})
        order = np.random.default_rng(self.split_seed).permutation(labels)
        fold_of = {int(label): i % self.num_folds for i, label in enumerate(order)}
        chosen = [label for label in labels if (fold_of[label] == self.fold) == self.held_out]
        new_label = {label: index for index, label in enumerate(chosen)}
        return [
            {**record, 'gt_label': new_label[record['gt_label']]}
            for record in records
            if record['gt_label'] in new_label
        ]


@DATASETS.register_module()
class ValidationSubset(DerivedDataset):
    """The paper's validation set: images of the training people, flipped, each with a 16x16 copy.

    None of the benchmarks has an official validation set. The images of a random subset of the
    training set are all flipped horizontally (role ``gallery``), and each is paired with a copy
    downsampled to ``size`` pixels (role ``probe``). Rank-1 and mAP of the copies against the
    flipped images select a checkpoint or setting without using the test set. Wrap a
    :class:`PeopleSubset` with ``held_out=True`` to validate on people who are not trained on.

    Args:
        dataset: A training set.
        fraction: Share of its images to draw.
        size: Side of the low-resolution copies in pixels.
        subset_seed: Seed of the draw.
        pipeline: Transforms, starting with ``LoadFace``; flip and downsampling are inserted right
            after it.
        **kwargs: See :class:`DerivedDataset`.
    """

    METAINFO = dict(dataset_type='ValidationSubset')

    def __init__(
        self,
        dataset: Any,
        fraction: float = 0.2,
        size: int = 16,
        subset_seed: int = 0,
        pipeline: Sequence[Any] = (),
        **kwargs: Any,
    ):
        if not 0 < fraction <= 1:
            raise ValueError(f'fraction must lie in (0, 1], not {fraction}')
        if not pipeline:
            raise ValueError('ValidationSubset needs a pipeline that begins with LoadFace')
        self.fraction, self.subset_seed = fraction, subset_seed
        self._flip, self._shrink = FlipFace(prob=1.0), DownsampleFace(size)
        kwargs.setdefault('test_mode', True)
        super().__init__(dataset, pipeline=pipeline, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return two records for each drawn image."""
        records = list(self.source.infos())
        count = max(1, round(self.fraction * len(records)))
        drawn = np.random.default_rng(self.subset_seed).permutation(len(records))[:count]
        result = []
        for index in sorted(drawn.tolist()):
            record = {
                k: v for k, v in records[index].items() if k not in ('gt_label', 'sample_idx')
            }
            result += [{**record, 'role': role} for role in ('gallery', 'probe')]
        return result

    def prepare_data(self, idx: int) -> Any:
        """Load, flip and, for a probe, shrink the face, then run the rest of the pipeline."""
        info = self.get_data_info(idx)
        info['rng'] = self.rng(idx)
        load, *rest = self.pipeline.transforms
        info = self._flip(load(info))
        if info['role'] == 'probe':
            info = self._shrink(info)
        for transform in rest:
            info = transform(info)
        return info
