"""The hook that computes the features of a teacher once."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader, Runner

from mmvlr.registry import HOOKS, MODELS
from mmvlr.utils.checkpoint import check_architecture, unwrap_state_dict
from mmvlr.utils.contract import check_contract, contract_of_checkpoint
from mmvlr.utils.io import sha256_of, write_atomic
from mmvlr.utils.zoo import find_model

from ..extraction import build_loader, extract_predictions, unwrap
from ..sources import digest_images, make_plain


@HOOKS.register_module()
class TeacherHook(Hook):
    """Embed the training faces, undegraded, with a teacher, once, for ``model.distillation``.

    The features are kept in a file whose name holds a digest of the teacher, of the images and of
    their transforms: other trainings with the same ones read it.

    Runs in ``before_train``.

    Args:
        checkpoint: Checkpoint of the teacher, or the name of a public network.
        dataloader: Config of a loader over the training set in its order, without degradation and
            augmentation, or the name of that entry of the config.
        model: Config of the teacher; by default that of the student without head and adapter, which
            is right for the weights that the training starts from.
        cache: Folder of the file; ``teachers`` beside the work dir by default.

    Raises:
        CheckpointMismatchError, ContractMismatchError: The checkpoint is not of the teacher.
        ValueError: The student has no ``distillation``, or the loader has other images than the
            training set.
    """

    priority = 'BELOW_NORMAL'

    def __init__(
        self,
        checkpoint: str,
        dataloader: Mapping | str = 'prototype_dataloader',
        model: Mapping | None = None,
        cache: str | None = None,
    ):
        self.checkpoint = checkpoint
        self.dataloader_cfg = dataloader
        self.model_cfg = model
        self.cache = cache

    def before_train(self, runner: Runner) -> None:
        """Read the teacher's features, or compute them, and hand them to the student."""
        self.checkpoint = str(find_model(self.checkpoint))
        student = unwrap(runner.model)
        if not student.distillation:
            raise ValueError('TeacherHook: the model has no distillation, so nothing is learned')
        with_map = any(loss.needs_map for loss in student.distillation)
        config = dict(runner.cfg.model if self.model_cfg is None else self.model_cfg)
        config = {k: v for k, v in config.items() if k not in ('head', 'distillation')}
        config['backbone'] = {k: v for k, v in config['backbone'].items() if k != 'adapter'}
        loader = build_loader(runner.cfg, self.dataloader_cfg, runner.seed)
        if len(loader.dataset) != len(runner.train_dataloader.dataset):
            raise ValueError(
                f'TeacherHook: its loader has {len(loader.dataset)} images and the training set '
                f'{len(runner.train_dataloader.dataset)}; both must be of the same data set'
            )
        path = self._find_file(runner, config, with_map)
        if path.is_file():
            features = torch.load(path, weights_only=True)
            print_log(f'features of the teacher taken from {path}', logger='current')
        else:
            features = self._compute(config, loader, with_map, next(student.parameters()).device)
            # A faster rank must not see the file before the others have looked for it.
            barrier()
            if is_main_process():
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(path, lambda file: torch.save(features, file))
        student.teacher = features

    def _compute(
        self, config: Mapping[str, Any], loader: Any, with_map: bool, device: torch.device
    ) -> dict[str, torch.Tensor]:
        teacher = MODELS.build(dict(config))
        checkpoint = CheckpointLoader.load_checkpoint(self.checkpoint, map_location='cpu')
        contract = contract_of_checkpoint(checkpoint, self.checkpoint)
        if contract is not None:
            check_contract(teacher.data_preprocessor.contract, contract, self.checkpoint)
        check_architecture(teacher, checkpoint, self.checkpoint)
        teacher.load_state_dict(unwrap_state_dict(checkpoint), strict=False)
        teacher.to(device).eval()

        def predict(inputs: torch.Tensor) -> dict[str, torch.Tensor]:
            feature_map, embedding = teacher.extract_feat(inputs)
            found = dict(embedding=embedding.float())
            return found | (dict(feature_map=feature_map.half()) if with_map else {})

        found = extract_predictions(teacher, loader, predict)
        kept = ('sample_idx', 'embedding', *['feature_map'] * with_map)
        print_log(f'{len(found["samples"])} faces embedded by the teacher', logger='current')
        return {name: found[name] for name in kept}

    def _find_file(self, runner: Runner, config: Mapping[str, Any], with_map: bool) -> Path:
        loader = self.dataloader_cfg
        loader = runner.cfg[loader] if isinstance(loader, str) else loader
        known = dict(
            checkpoint=sha256_of(self.checkpoint),
            model=make_plain(config),
            images=digest_images(dict(teacher=loader), ['teacher']),
            dataset=make_plain(loader['dataset']),
            with_map=with_map,
        )
        digest = hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()
        folder = Path(self.cache) if self.cache else Path(runner.work_dir).parent / 'teachers'
        return folder / f'{digest[:16]}.pth'
