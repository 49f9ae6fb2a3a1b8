"""Choose RI-Face's margin and embedding on training people.

  python projects/studies/choose_recipe.py OUT [--base riface/mobilefacenet_tinyface] [--epochs 6]

Every margin loss, at the constants of its method, trains the people of two folds of the training
set; the people of the third are searched. Half of these are enrolled with two images each, their
other images are mated probes, all images of the other half are unmated; then the halves change.
``tpir`` is the share of mated probes whose own person is first and above the threshold at FPIR 0.1
of that search, ``rank1`` the share whose own person is first.

The rule, written before anything was trained: the margin of highest ``tpir`` replaces ArcFace's if
the 95 % interval of its difference to ArcFace's, people resampled, lies above zero, and that of
``rank1`` does not lie below zero. With that margin, the sum or the attended embedding replaces the
backbone's if the interval of its difference in ``rank1`` lies above zero.

OUT holds the trainings; a call that is repeated goes on where it stopped. OUT/recipe.csv is the
table.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import mmvlr  # noqa: F401  # isort: skip

import numpy as np
from mmengine.config import Config

from mmvlr.cli.arguments import output_folder, positive
from mmvlr.cli.common import tell_errors
from mmvlr.engine.building import load_config
from mmvlr.engine.scoring import score_faces
from mmvlr.evaluation import FaceTable
from mmvlr.evaluation.functional import open_set_rates, open_set_scores, resample
from mmvlr.utils.io import write_csv

#: Margin losses at the constants of their methods.
MARGINS = dict(
    arcface=dict(type='ArcFaceLoss', scale=64.0, margin=0.45),
    cosface=dict(type='CosFaceLoss', scale=64.0, margin=0.35),
    curricularface=dict(type='CurricularFaceLoss', scale=64.0, margin=0.5),
    adaface=dict(type='AdaFaceLoss', scale=64.0, margin=0.4),
    magface=dict(type='MagFaceLoss'),
    normface=dict(type='NormFaceLoss', scale=64.0),
    softmax=dict(type='SoftmaxLoss'),
)
EMBEDDINGS = ('backbone', 'attention', 'sum')
FOLDS, ENROLLED, FPIR = 3, 2, 0.1


def write_config(args: argparse.Namespace, folder: Path, margin: str, fold: int) -> Path:
    """Write the config of a training on two folds, tested on the third."""
    base = load_config(args.base)
    split = dict(type='PeopleSubset', dataset=dict(base.train_set), fold=fold, num_folds=FOLDS)
    trained = {
        name: dict(dataset=dict(_delete_=True, pipeline=base[name].dataset.pipeline, **split))
        for name in ('train_dataloader', 'prototype_dataloader', 'degraded_dataloader')
    }
    for name in trained:
        if base[name].dataset.get('test_mode'):
            trained[name]['dataset']['test_mode'] = True
    tested = dict(
        split, held_out=True, test_mode=True, pipeline=base.test_dataloader.dataset.pipeline
    )
    lines = dict(
        _base_=[f'mmvlr::{args.base}.py'],
        model=dict(head=dict(loss=dict(_delete_=True, **MARGINS[margin]))),
        **trained,
        val_dataloader=dict(dataset=dict(dataset=dict(_delete_=True, **split))),
        test_dataloader=dict(dataset=dict(_delete_=True, **tested)),
        test_evaluator=dict(_delete_=True, type='ClosedSetMetric', prefix='held_out'),
        train_cfg=dict(max_epochs=args.epochs, val_interval=args.epochs),
    )
    text = '\n'.join(f'{key} = {_plain(value)!r}' for key, value in lines.items())
    path = folder / 'config.py'
    path.write_text(f'{text}\n', encoding='utf-8')
    return path


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def score(args: argparse.Namespace, margin: str, fold: int, embedding: str) -> FaceTable:
    """Train if that was not done, embed the held-out people, and return them."""
    folder = args.out / f'{margin}-fold{fold}'
    table = folder / f'{embedding}.npz'
    if table.is_file():
        return FaceTable.load(table)
    folder.mkdir(parents=True, exist_ok=True)
    config, checkpoint = (
        write_config(args, folder, margin, fold),
        folder / f'epoch_{args.epochs}.pth',
    )
    if not checkpoint.is_file():
        command = [sys.executable, '-m', 'mmvlr', 'train', str(config), '--work-dir', str(folder)]
        with (folder / 'train.log').open('w', encoding='utf-8') as log:
            subprocess.run(
                [*command, '--seed', '0', '--resume'], check=True, stdout=log, stderr=log
            )
    config = Config.fromfile(str(config))
    config.work_dir, config.model.inference_embedding = str(folder / 'test'), embedding
    faces = score_faces(config, str(checkpoint), measures=())
    faces.save(table)
    return faces


def search(faces: FaceTable) -> np.ndarray:
    """Return (person, own person first, and above the threshold) of every mated probe, (N, 3)."""
    faces = faces.only('train')
    people = np.unique(faces.identity)
    order = np.random.default_rng(0).permutation(people)
    found = []
    for half in (order[::2], order[1::2]):
        known = np.isin(faces.identity, half)
        place = np.array(
            [np.sum(faces.identity[:i] == person) for i, person in enumerate(faces.identity)]
        )
        gallery, mated = known & (place < ENROLLED), known & (place >= ENROLLED)
        scores = open_set_scores(
            faces.unit[gallery],
            faces.identity[gallery],
            faces.unit[mated],
            faces.identity[mated],
            faces.unit[~known],
            rank=1,
        )
        threshold = open_set_rates(scores.mated_score, scores.unmated_score, (FPIR,))
        accepted = scores.mated_score >= threshold[f'threshold@fpir{FPIR}']
        first = scores.rank == 1
        found.append(np.stack([faces.identity[mated], first, first & accepted], 1))
    return np.concatenate(found)


def main() -> int:
    """Train, search, compare, and say what the rule chooses."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('out', type=output_folder)
    parser.add_argument('--base', default='riface/mobilefacenet_tinyface')
    parser.add_argument('--epochs', type=positive, default=6)
    parser.add_argument('--margins', type=lambda text: text.split(','), default=[*MARGINS])
    args = parser.parse_args()
    rows: list[dict] = []
    chosen = compare(args, [(margin, 'backbone') for margin in args.margins], 'tpir', rows)
    chosen = compare(args, [(chosen[0], embedding) for embedding in EMBEDDINGS], 'rank1', rows)
    write_csv(args.out / 'recipe.csv', list(dict.fromkeys(k for row in rows for k in row)), rows)
    print(f'chosen: margin {chosen[0]}, embedding {chosen[1]}')
    return 0


def compare(
    args: argparse.Namespace, recipes: list[tuple[str, str]], rule: str, rows: list[dict]
) -> tuple[str, str]:
    """Add a row for each recipe; return the one that the rule chooses, the first if none wins."""
    drawn = {}
    for margin, embedding in recipes:
        tables = [search(score(args, margin, fold, embedding)) for fold in range(FOLDS)]
        # Each person is held out once, so people of different folds are different people.
        people = np.concatenate([1000 * fold + table[:, 0] for fold, table in enumerate(tables)])
        values = np.concatenate(tables)[:, 1:].astype(float)
        drawn[margin, embedding] = resample(
            values, people, lambda kept: dict(zip(('rank1', 'tpir'), kept.mean(0), strict=True))
        )
    base = drawn[recipes[0]]
    best = max(drawn, key=lambda recipe: drawn[recipe].intervals()[rule].estimate)
    for recipe, one in drawn.items():
        row = dict(margin=recipe[0], embedding=recipe[1])
        for name, value in one.intervals().items():
            row |= {name: value.estimate, f'{name}_low': value.low, f'{name}_high': value.high}
            less = one.minus(base)[name]
            row |= {f'{name}_gain': less.difference}
            row |= {f'{name}_gain_low': less.low, f'{name}_gain_high': less.high}
        rows.append(row)
        print(', '.join(f'{k} {v:.3f}' if isinstance(v, float) else f'{v}' for k, v in row.items()))
    gains = drawn[best].minus(base)
    wins = gains[rule].low > 0 and gains['rank1'].high >= 0
    return best if wins else recipes[0]


if __name__ == '__main__':
    sys.exit(tell_errors('choose_recipe.py', main))
