"""Test a checkpoint on the test set of a config.

mmvlr test CHECKPOINT                            the config beside it
mmvlr test CONFIG CHECKPOINT --out result.json
"""

import argparse
import json

from mmvlr.utils.config_outline import check_folders

from ..arguments import output_file, output_folder
from ..common import add_config_and_checkpoint, announce, read_config, require_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add_config_and_checkpoint(parser)
    parser.add_argument(
        '--out', type=output_file, metavar='result.json', help='write all metrics here'
    )
    parser.add_argument('--work-dir', type=output_folder, help='folder of the log')
    parser.add_argument(
        '--intervals',
        action='store_true',
        help='also give 95 %% intervals, resampling people: NAME_low and NAME_high',
    )
    parser.add_argument(
        '--curves',
        type=output_folder,
        metavar='DIR',
        help='write the curves with their bands here, as images and for TensorBoard',
    )
    parser.add_argument(
        '--cache',
        type=output_folder,
        metavar='DIR',
        help='keep the embeddings here, and reuse them where checkpoint, model, preprocessing and '
        'images are the same',
    )
    parser.add_argument(
        '--flip-fusion',
        choices=('none', 'sum'),
        help='embed a face as f(x), or as the unit vector of f(x) + f(flip(x))',
    )
    parser.add_argument(
        '--tta',
        action='store_const',
        const='sum',
        dest='flip_fusion',
        help='the same as --flip-fusion sum',
    )
    parser.add_argument('--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none')


def run(args: argparse.Namespace) -> int:
    """Test; return the exit code."""
    require_config(args)
    check_folders(args.config, args.cfg_options or (), ('test_dataloader',))
    announce('loading PyTorch')
    from mmengine.dist import is_main_process

    from mmvlr.apis import add_warnings, evaluate_checkpoint, mark_unmeasurable
    from mmvlr.utils.io import write_atomic

    config = read_config(args)
    config.launcher = args.launcher
    if args.work_dir:
        config.work_dir = str(args.work_dir)
    if args.flip_fusion:
        config.model.flip_fusion = args.flip_fusion
    # What is not asked for stays as the config has it.
    options = {name: True for name in ('intervals', 'curves') if getattr(args, name)}
    result, metrics = evaluate_checkpoint(config, str(args.checkpoint), args.cache, **options)
    if is_main_process():
        result = mark_unmeasurable(add_warnings(result, metrics), metrics)
        text = json.dumps(result, indent=2)
        if args.out:
            write_atomic(args.out, lambda path: path.write_text(text + '\n', encoding='utf-8'))
        if args.curves:
            from mmvlr.reports.curve_files import write_curves

            for path in write_curves(metrics, args.curves):
                print(path)
        print(text)
    return 0
