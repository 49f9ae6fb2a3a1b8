"""The parser of the commands: complaints in one line, defaults in the help."""

import argparse
import difflib
from typing import Any

#: Options of other projects of the family, and how mmvlr says it.
FOREIGN = {
    '--show-dir': 'mmvlr report WORK_DIR draws the faces, failures and attention of a run',
    '--show': 'mmvlr report WORK_DIR draws the faces, failures and attention of a run',
    '--out-item': 'mmvlr score CONFIG CHECKPOINT --out faces.npz writes what was predicted',
    '--dump': 'mmvlr score CONFIG CHECKPOINT --out faces.npz writes what was predicted',
    '--no-validate': '--cfg-options val_cfg=None val_dataloader=None val_evaluator=None',
    '--resume-from': '--resume FILE',
    '--load-from': '--cfg-options load_from=FILE',
    '--options': '--cfg-options KEY=VALUE',
    '--gpu-id': 'CUDA_VISIBLE_DEVICES=N chooses the GPU',
    '--gpus': 'bash tools/dist_train.sh CONFIG GPUS',
    '--deterministic': '--cfg-options randomness.deterministic=True',
}


class Parser(argparse.ArgumentParser):
    """A parser of one verb: its complaints are one line, its help gives the defaults."""

    def __init__(self, **options: Any):
        super().__init__(**{'formatter_class': _Help, **options})

    def error(self, message: str) -> None:
        """Say what is wrong; exit code 2."""
        for word in message.split() if 'unrecognized' in message else ():
            if (name := word.partition('=')[0]) in FOREIGN:
                message = f'there is no {name} here; in mmvlr: {FOREIGN[name]}'
                break
            own = self._option_string_actions if name.startswith('--') else ()
            if near := difflib.get_close_matches(name, own, 1, 0.7):
                message = f'there is no {name}; did you mean {near[0]}?'
                break
        self.exit(2, f'{self.prog}: {message} ({self.prog} --help lists what can be given)\n')


class _Help(argparse.RawDescriptionHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        told, default = action.help or '', action.default
        named = isinstance(default, (int, float, str)) and not isinstance(default, bool)
        if not action.option_strings or not named or 'default' in told or default == '==SUPPRESS==':
            return action.help
        return f'{told} (default: %(default)s)'.lstrip()
