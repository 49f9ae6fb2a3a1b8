"""Build a set of unrecognizable faces from a person re-identification set.

``python tools/dataset_converters/build_ui_set.py SRC OUT --layout lpw`` writes the crops to
``OUT/faces`` (``UI_ROOT=OUT/faces``), ``OUT/manifest.csv`` and ``OUT/contact_sheet.png``, and says
what was left out and why. A killed run goes on where it stopped; with other limits on size,
confidence or correlation no face is sought again. Look at the contact sheet before you train.

With ``--config`` and ``--checkpoint`` only the largest cluster of the embeddings is kept. Exit code
1 if no face is left, 3 if some images or folders cannot be read; they are named.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from mmengine.registry import DefaultScope
from PIL import Image
from torch.utils.data import DataLoader

from mmvlr.apis import load_config
from mmvlr.datasets import NO_IDENTITY, FaceDataset, face_collate
from mmvlr.engine import extract_predictions
from mmvlr.preparation.people_layouts import LAYOUTS
from mmvlr.preparation.ui_building import (
    FACES_FOLDER,
    MANIFEST_FILE,
    SHEET_FILE,
    UIFilter,
    UISearch,
    UISet,
    build_ui_set,
)
from mmvlr.registry import MODELS
from mmvlr.reports import FaceCard, contact_sheet
from mmvlr.utils.checkpoint import check_architecture, state_dict_of
from mmvlr.utils.compat import load_checkpoint_file
from mmvlr.utils.contract import check_contract, contract_of_checkpoint
from mmvlr.utils.io import write_atomic
from mmvlr.utils.outputs import OutputFolder

SHEET_FACES = 240


class Crops(FaceDataset):
    """Faces in memory, for the pipeline of a config."""

    def __init__(self, crops: list[np.ndarray], pipeline: list):
        self.crops = crops
        super().__init__(data_root='crops', pipeline=pipeline, test_mode=True)

    def load_data_list(self) -> list[dict]:
        """Return one record a face."""
        return [dict(img=crop, identity=NO_IDENTITY, role='ui') for crop in self.crops]


def embedder(config_file: str, checkpoint: str) -> Callable[[list[np.ndarray]], np.ndarray]:
    """Return a function from crops to embeddings of a checkpoint's model.

    Raises:
        CheckpointMismatchError, ContractMismatchError: The checkpoint does not fit the config.
    """
    config = load_config(config_file)
    state = load_checkpoint_file(checkpoint)
    with DefaultScope.overwrite_default_scope('mmvlr'):
        model = MODELS.build({**config.model, 'head': None})
    check_architecture(model, state, checkpoint)
    contract = contract_of_checkpoint(state)
    if contract is not None:
        check_contract(model.data_preprocessor.contract, contract, checkpoint)
    # The head of a trained checkpoint is not needed here.
    model.load_state_dict(state_dict_of(state), strict=False)

    def embed(crops: list[np.ndarray]) -> np.ndarray:
        with DefaultScope.overwrite_default_scope('mmvlr'):
            dataset = Crops(crops, config.test_dataloader.dataset.pipeline)
        loader = DataLoader(dataset, batch_size=64, collate_fn=face_collate)
        return extract_predictions(model, loader)['embedding'].numpy()

    return embed


def write_sheet(out: Path, result: UISet) -> None:
    """Write a contact sheet of faces spread evenly over the set."""
    with OutputFolder(out, 'build_ui_set', wait=60) as output:
        output.claim([SHEET_FILE])
        if not result.faces:
            output.remove([SHEET_FILE])
            return
        _write_sheet(out, result)


def _write_sheet(out: Path, result: UISet) -> None:
    count = min(SHEET_FACES, len(result.faces))
    cards = []
    for index in np.linspace(0, len(result.faces) - 1, count).round().astype(int):
        with Image.open(out / FACES_FOLDER / f'ui_{index + 1:06d}.png') as face:
            pixels = np.asarray(face.convert('RGB'))
        caption = (f'{index + 1}', f'{pixels.shape[1]} x {pixels.shape[0]}')
        cards.append(FaceCard(pixels, caption))
    sheet = Image.fromarray(contact_sheet(cards, columns=16, size=64))
    write_atomic(out / SHEET_FILE, sheet.save)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's values."""
    search, keep = UISearch('folder'), UIFilter()
    parser = argparse.ArgumentParser(
        prog='mmvlr build-ui-set',
        description='Build a set of unrecognizable faces from a person re-identification set.',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument('src', metavar='SRC', help='folder of the re-identification set')
    parser.add_argument('out', metavar='OUT', help='new folder')
    parser.add_argument(
        '--layout',
        choices=sorted(LAYOUTS),
        required=True,
        help='; '.join(f'{name}: {layout}' for name, (_, layout) in LAYOUTS.items()),
    )
    parser.add_argument('--jobs', type=int, default=1, help='number of processes')
    group = parser.add_argument_group('where faces are sought (a change starts from the beginning)')
    group.add_argument(
        '--upper', type=float, default=search.upper, help="share of the person's image, from top"
    )
    group.add_argument(
        '--side', type=int, default=search.side, help='the part is scaled to a square of this side'
    )
    group.add_argument(
        '--min-face', type=float, default=search.min_face, help='smallest face, of the square'
    )
    parser.add_argument(
        '--every', type=int, default=keep.every, help='search every n-th image of a track'
    )
    group = parser.add_argument_group('which faces are kept')
    group.add_argument(
        '--min-size', type=float, default=keep.min_size, help='shorter side in pixels, at least'
    )
    group.add_argument(
        '--max-size', type=float, default=keep.max_size, help='shorter side in pixels, at most'
    )
    group.add_argument(
        '--min-confidence', type=float, default=keep.min_confidence, help="MTCNN's score, at least"
    )
    group.add_argument(
        '--margin', type=float, default=keep.margin, help='around the face, as a share of it'
    )
    group.add_argument(
        '--max-correlation',
        type=float,
        default=keep.max_correlation,
        help='faces of a track that correlate more are near duplicates',
    )
    group.add_argument('--config', help='config of the model whose embeddings are clustered')
    group.add_argument('--checkpoint', help='its checkpoint')
    group.add_argument(
        '--cluster-distance',
        type=float,
        default=keep.cluster_distance,
        help='clusters are merged up to this mean cosine distance',
    )
    args = parser.parse_args(argv)
    if (args.config is None) != (args.checkpoint is None):
        parser.error('--config and --checkpoint go together')
    return args


def main(argv: list[str] | None = None) -> int:
    """Build the set; return the exit code."""
    args = parse_args(argv)
    start = time.perf_counter()
    try:
        embed = embedder(args.config, args.checkpoint) if args.checkpoint else None
        search = UISearch(args.layout, args.upper, args.side, min_face=args.min_face)
        keep = UIFilter(
            args.every,
            args.min_size,
            args.max_size,
            args.min_confidence,
            args.margin,
            args.max_correlation,
            args.cluster_distance,
        )
        result = build_ui_set(args.src, args.out, search, keep, embed, args.jobs)
        out = Path(args.out)
        write_sheet(out, result)
    except (OSError, ImportError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    seconds = time.perf_counter() - start
    new = result.images - result.resumed
    print(f'{result.images:,} images, {result.resumed:,} of them searched before')
    print(f'{new:,} images in {seconds:.1f} s, {new / seconds:.1f} a second')
    print(f'{result.found:,} faces found, {len(result.faces):,} kept in {out / FACES_FOLDER}')
    for reason, names in result.left_out.items():
        if not names:
            continue
        shown = ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')
        print(f'  left out: {len(names):,} {reason} ({shown})')
    if result.clusters:
        shown = ', '.join(f'{size:,}' for size in result.clusters[:5])
        print(f'{len(result.clusters):,} clusters, the largest of {shown} faces')
    code = 0
    if result.faces:
        print(f'sources in {out / MANIFEST_FILE}, a look at the faces in {out / SHEET_FILE}')
    else:
        print('no face is left: widen the limits', file=sys.stderr)
        code = 1
    if result.unreadable:
        print(f'{len(result.unreadable):,} images cannot be read:', file=sys.stderr)
        print(*(f'  {line}' for line in result.unreadable), sep='\n', file=sys.stderr)
        code = code or 3
    return code
