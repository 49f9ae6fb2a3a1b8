"""The hook that keeps preprocessing and architecture of checkpoint and config together."""

import logging

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner, find_latest_checkpoint

from mmvlr.registry import HOOKS
from mmvlr.utils.checkpoint import check_architecture
from mmvlr.utils.contract import CONTRACT_KEY, check_contract, contract_of_checkpoint
from mmvlr.version import __version__

from ..extraction import unwrap


@HOOKS.register_module()
class CheckpointGuardHook(Hook):
    """Write the preprocessing contract into every checkpoint; refuse one that does not fit.

    Runs in ``before_save_checkpoint`` and in ``after_load_checkpoint``, that is before the weights
    are copied into the model.

    Raises:
        ContractMismatchError: The checkpoint was made with another preprocessing.
        CheckpointMismatchError: It belongs to another architecture.
    """

    priority = 'VERY_HIGH'

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the contract and the version."""
        checkpoint['meta'][CONTRACT_KEY] = unwrap(runner.model).data_preprocessor.contract
        checkpoint['meta']['mmvlr_version'] = __version__

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare with the model of the config."""
        source = runner._load_from
        if source is None and runner._resume:
            # ``resume`` without a name: mmengine looks the file up and tells nobody.
            source = find_latest_checkpoint(runner.work_dir)
        source = str(source or 'the checkpoint')
        model = unwrap(runner.model)
        found = contract_of_checkpoint(checkpoint)
        if found is None:
            print_log(
                f'{source} carries no preprocessing contract; make sure that it was trained with '
                f'{model.data_preprocessor.contract}',
                logger='current',
                level=logging.WARNING,
            )
        else:
            expected = model.data_preprocessor.contract
            check_contract(expected, found, source)
            if found.get('alignment') != expected['alignment']:
                print_log(
                    f'{source} does not say how its faces were aligned; those here are '
                    f'{expected["alignment"]}',
                    logger='current',
                    level=logging.WARNING,
                )
        check_architecture(model, checkpoint, source)
