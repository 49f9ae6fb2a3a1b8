"""Compare read-outs of the recognizability index on held-out training people.

  python projects/studies/choose_read_out.py OUT [--base riface/sface_tinyface]

OUT is the folder of choose_recipe.py, whose trainings with ArcFace's margin are used, or made. Each
saw the people of two folds of the training set. To these people's faces and to three degraded
copies of each the read-outs are fitted; the images of the third fold's people are searched among
each other, as they are and in two degraded copies. Printed is the area of rank-1 error over the
discarded share, the mean of the folds, and its difference to that of the norm with a 95 % interval
that resamples people.
"""

import argparse
import copy
import sys

import mmvlr  # noqa: F401  # isort: skip

import numpy as np
import torch
import torch.nn.functional as F
from choose_recipe import FOLDS, score
from mmengine.registry import init_default_scope
from mmengine.structures import BaseDataElement

from mmvlr.cli.arguments import output_folder, positive
from mmvlr.cli.common import tell_errors
from mmvlr.datasets.base import set_epoch
from mmvlr.engine.building import load_config
from mmvlr.engine.extraction import build_loader, extract_predictions
from mmvlr.evaluation.functional import rank1_error_versus_discard, resample
from mmvlr.models.heads.read_out import fit_read_out
from mmvlr.models.losses import RecognizabilityIndex
from mmvlr.registry import MODELS
from mmvlr.utils.checkpoint import unwrap_state_dict
from mmvlr.utils.compat import load_checkpoint_file

TARGETS = {
    'log xi': RecognizabilityIndex(log=True),
    'margin d_N - d_P': lambda distances: distances.d_n - distances.d_p,
}
FITTED = ('clean', 'copy0', 'copy1', 'copy2')
SEARCHED = ('held', 'heldcopy0', 'heldcopy1')


def extract(args: argparse.Namespace, fold: int) -> dict[str, np.ndarray]:
    """Return embeddings ``_e``, inputs ``_x`` of all read-outs and labels ``_y`` of each pass."""
    score(args, 'arcface', fold, 'backbone')
    folder = args.out / f'arcface-fold{fold}'
    if (folder / 'features.npz').is_file():
        return dict(np.load(folder / 'features.npz'))
    config = load_config(folder / 'config.py')
    file = load_checkpoint_file(str(folder / f'epoch_{args.epochs}.pth'))
    state = unwrap_state_dict(file)
    config.model.regression.source = 'both'
    config.model.head = None
    model = MODELS.build(config.model).eval()
    kept = {name: value for name, value in state.items() if not name.startswith('regression.')}
    model.load_state_dict(kept, strict=False)
    held_out = copy.deepcopy(config.degraded_dataloader)
    held_out.dataset.held_out = True
    passes = [('clean', config.prototype_dataloader, 0), ('held', config.test_dataloader, 0)]
    passes += [(f'copy{epoch}', config.degraded_dataloader, epoch) for epoch in range(3)]
    passes += [(f'heldcopy{epoch}', held_out, 100 + epoch) for epoch in range(2)]
    found = dict(ui=model.ui_center.numpy())
    for name, loader, epoch in passes:
        loader = build_loader(config, loader, 0)
        set_epoch(loader.dataset, epoch)
        faces = extract_predictions(model, loader, model.regression_predictions, what=name)
        found[f'{name}_e'] = faces['backbone_embedding'].numpy()
        found[f'{name}_x'] = faces['regression_input'].numpy()
        found[f'{name}_y'] = np.array([int(sample.gt_label) for sample in faces['samples']])
    np.savez(folder / 'features.npz', **found)
    return found


def judge(found: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Return for each judge its values of the faces of each pass over held-out people."""
    dims = found['clean_e'].shape[1]
    # As PerceptibilityRegression.inputs puts them together.
    width = found['clean_x'].shape[1]
    inputs = {
        'embedding, norm': np.arange(dims + 2),
        'averaged map, norm': np.arange(dims, (dims + 2 + width) // 2),
    }
    unit = {name: _normalize(found[f'{name}_e']) for name in SEARCHED}
    judges = {
        'norm': {name: found[f'{name}_x'][:, dims] for name in SEARCHED},
        'ERS': {name: 1 - unit[name] @ found['ui'] for name in SEARCHED},
    }
    labels = [BaseDataElement(gt_label=torch.tensor(label)) for label in found['clean_y']]
    for target, index in TARGETS.items():
        for name, columns in inputs.items():
            passes = [
                dict(
                    samples=labels,
                    backbone_embedding=torch.from_numpy(found[f'{one}_e']),
                    regression_input=torch.from_numpy(found[f'{one}_x'][:, columns]),
                )
                for one in FITTED
            ]
            fitted = fit_read_out(passes, index, torch.from_numpy(found['ui']))
            shift, scale, weight, bias = (value.numpy() for value in fitted.values)
            judges[f'{target} from {name}'] = {
                one: (found[f'{one}_x'][:, columns] - shift) / scale @ weight + bias
                for one in SEARCHED
            }
    return judges


def search(found: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Return whether the nearest other image, undegraded, is of the same person, (N,)."""
    cosines = _normalize(found[f'{name}_e']) @ _normalize(found['held_e']).T
    np.fill_diagonal(cosines, -np.inf)
    return found['held_y'][cosines.argmax(1)] == found['held_y']


def _normalize(vectors: np.ndarray) -> np.ndarray:
    return F.normalize(torch.from_numpy(vectors).double(), dim=1).numpy()


def main() -> int:
    """Train what is not trained, extract, fit, search and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('out', type=output_folder)
    parser.add_argument('--base', default='riface/sface_tinyface')
    parser.add_argument('--epochs', type=positive, default=6)
    args = parser.parse_args()
    init_default_scope('mmvlr')
    folds = [extract(args, fold) for fold in range(FOLDS)]
    judges = [judge(found) for found in folds]
    for parts in (SEARCHED[:1], SEARCHED[1:]):
        correct = [np.stack([search(found, one) for one in parts]) for found in folds]
        people = np.concatenate(
            [1000 * fold + np.tile(found['held_y'], len(parts)) for fold, found in enumerate(folds)]
        )
        share = np.mean(np.concatenate([values.ravel() for values in correct]))
        print(f'\n{" and ".join(parts)}: {len(people):,} searches, rank-1 {share:.1%}')
        drawn = {}
        for name in judges[0]:
            rows = [
                np.stack([np.full(right.size, fold), values, right.ravel()], axis=1)
                for fold, right in enumerate(correct)
                for values in [np.concatenate([judges[fold][name][one] for one in parts])]
            ]
            drawn[name] = resample(np.concatenate(rows).astype(float), people, measure_area)
        for name, one in drawn.items():
            less = one.minus(drawn['norm'])['area']
            print(
                f'| {name} | {one.estimate[0]:.3f} | {less.difference:+.3f} '
                f'({less.low:+.3f} to {less.high:+.3f}) |'
            )
    return 0


def measure_area(rows: np.ndarray) -> dict[str, float]:
    """Return the mean area of (fold, quality, correct), (N, 3)."""
    folds = (rows[rows[:, 0] == fold, 1:].T for fold in np.unique(rows[:, 0]))
    return dict(area=np.mean([rank1_error_versus_discard(*fold)['auc'] for fold in folds]))


if __name__ == '__main__':
    sys.exit(tell_errors('choose_read_out.py', main))
