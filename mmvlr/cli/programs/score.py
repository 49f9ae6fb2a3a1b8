"""Score the faces of a test set.

  mmvlr score [CONFIG] CHECKPOINT --out faces.npz

Writes an .npz file with the embedding of every face of the test set and of the UI set, its role and
identity, and what every quality measure says of it: RI, ERS, norm and CR-FIQA as far as the model
gives them, the config's common_measures (SER-FIQ, native size, sharpness) and quality_measures.
mmvlr.evaluation.FaceTable.load reads it.
"""

import argparse

from mmvlr.utils.config_outline import check_folders

from ..arguments import output_file, output_folder
from ..common import add_config_and_checkpoint, read_config, require_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add_config_and_checkpoint(parser)
    parser.add_argument('--out', type=output_file, required=True, metavar='faces.npz')
    parser.add_argument('--work-dir', type=output_folder, help='folder of the log')


def run(args: argparse.Namespace) -> int:
    """Score; return the exit code."""
    require_config(args)
    check_folders(args.config, args.cfg_options or (), ('test_dataloader',))
    from mmvlr.apis import score_faces

    config = read_config(args)
    if args.work_dir:
        config.work_dir = str(args.work_dir)
    faces = score_faces(config, str(args.checkpoint))
    faces.save(args.out)
    print(f'{args.out}: {len(faces):,} faces, qualities {", ".join(faces.qualities)}')
    return 0
