"""The hook that checks that a checkpoint fits: preprocessing, architecture, people."""

import logging

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner, find_latest_checkpoint

from mmvlr.datasets.base import find_class_names
from mmvlr.registry import HOOKS
from mmvlr.utils.checkpoint import check_architecture
from mmvlr.utils.contract import CONTRACT_KEY, check_contract, contract_of_checkpoint
from mmvlr.utils.people import PEOPLE_KEY, People, PeopleMismatchError
from mmvlr.version import __version__

from ..extraction import unwrap


@HOOKS.register_module()
class CheckpointGuardHook(Hook):
    """Write preprocessing contract and people into every checkpoint; refuse one that does not fit.

    The weights of the head, which belong to people, are loaded only if the training set has the
    same people. With other people ``load_from`` loads the rest, and resuming is refused.

    Runs in ``before_save_checkpoint`` and in ``after_load_checkpoint``, before the weights are
    copied into the model.

    Raises:
        ContractMismatchError: The checkpoint was made with another preprocessing.
        CheckpointMismatchError: It belongs to another architecture.
        PeopleMismatchError: It is to be resumed and was trained on other people.
    """

    priority = 'VERY_HIGH'

    def __init__(self):
        self.people: People | None = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the contract, the version and the people."""
        checkpoint['meta'][CONTRACT_KEY] = unwrap(runner.model).data_preprocessor.contract
        checkpoint['meta']['mmvlr_version'] = __version__
        people = self._find_people(runner)
        if people is not None:
            checkpoint['meta'][PEOPLE_KEY] = people.facts()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare with the model of the config and the people of the training set."""
        source = runner._load_from
        if source is None and runner._resume:
            # ``resume`` without a name: mmengine searches for the file, but does not report it.
            source = find_latest_checkpoint(runner.work_dir)
        source = str(source or 'the checkpoint')
        model = unwrap(runner.model)
        found = contract_of_checkpoint(checkpoint)
        if found is None:
            _warn(
                f'{source} carries no preprocessing contract; make sure that it was trained with '
                f'{model.data_preprocessor.contract}'
            )
        else:
            expected = model.data_preprocessor.contract
            check_contract(expected, found, source)
            if found.get('alignment') != expected['alignment']:
                _warn(
                    f'{source} does not say how its faces were aligned; those here are '
                    f'{expected["alignment"]}'
                )
        if getattr(runner, 'train_dataloader', None) is not None:
            self._check_people(runner, checkpoint, source)
        check_architecture(model, checkpoint, source)

    def _check_people(self, runner: Runner, checkpoint: dict, source: str) -> None:
        """Refuse to resume with other people; otherwise drop the weights that belong to them."""
        state = checkpoint.get('state_dict', checkpoint)
        keys = [key for key in state if key.removeprefix('module.').startswith('head.')]
        weight = next((state[key] for key in keys if key.endswith('head.weight')), None)
        there = People.read(checkpoint, source)
        here = self._find_people(runner)
        if there is None and weight is not None:
            there = People(len(weight))
        if here is None and hasattr(unwrap(runner.model).head, 'num_classes'):
            here = People(unwrap(runner.model).head.num_classes)
        if there is None or here is None or not keys:
            return
        if here.is_same(there):
            if here.digest is None or there.digest is None:
                print_log(
                    f'{source} does not say who its {there.count:,} people are, or the training '
                    'set does not; they are taken to be the same, in the same order',
                    logger='current',
                )
        elif runner._resume:
            raise PeopleMismatchError(
                f'{source} cannot be resumed with other people: {there.tell_difference(here)}. '
                'Name the training set it was trained on; or start a new training from its '
                f'network: load_from={source} and another work dir, without --resume'
            )
        else:
            for key in keys:
                del state[key]
            print_log(
                f'{source} was trained on other people ({there.tell_difference(here)}): its '
                'network is taken, its head is left out and starts anew',
                logger='current',
            )

    def _find_people(self, runner: Runner) -> People | None:
        """Return the people of the training set; None if it does not name them."""
        if self.people is None:
            names = find_class_names(getattr(runner.train_dataloader, 'dataset', None))
            self.people = None if names is None else People.from_names(names)
        return self.people


def _warn(text: str) -> None:
    print_log(text, logger='current', level=logging.WARNING)
