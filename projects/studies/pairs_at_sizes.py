"""Measure verification of CFP's faces, frontal and profile, at sizes down to 8 pixels.

``projects/studies/pairs_at_sizes.py FACES --networks NAME=CONFIG:CHECKPOINT ... --out DIR`` takes a
test set in TinyFace's layout whose images 1 to 10 of each person are frontal and 11 to 14 in
profile, links them in CFP's own layout, and draws pairs by CFP's rules: ten folds of
different people, in each 350 pairs of one person and 350 of two, frontal with frontal (FF) and
frontal with profile (FP). Images are averaged down to every size, never enlarged, and back to the
network's. ``DIR/pairs_at_sizes.md`` has accuracy over the folds by mmvlr's and by insightface's
rule, and TAR at FAR 0.01, with 95 % intervals that resample people.
"""

import argparse
import itertools
import os
import sys
from pathlib import Path

import mmvlr  # noqa: F401  # isort: skip

import numpy as np
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from mmvlr.datasets import LFWFamily
from mmvlr.engine.building import build_tester, load_config
from mmvlr.engine.scoring import load_tested_model, score_loader
from mmvlr.evaluation import FaceTable
from mmvlr.evaluation.metrics import VerificationMetric
from mmvlr.utils.io import write_atomic
from mmvlr.utils.shipped import find_config

FOLDS, PAIRS, NUM_FRONTAL = 10, 350, 10


def link_layout(faces: Path, out: Path, seed: int = 0) -> Path:
    """Link images in CFP's layout and draw its lists of pairs; return the folder."""
    images: dict[str, dict[int, Path]] = {}
    for folder in ('Gallery_Match', 'Probe'):
        for path in (faces / 'Testing_Set' / folder).iterdir():
            person, _, number = path.stem.partition('_')
            images.setdefault(person, {})[int(number)] = path
    lists: dict[str, list[tuple[str, str]]] = dict(F=[], P=[])
    for person in sorted(images, key=int):
        for number, path in sorted(images[person].items()):
            pose, place = ('frontal', number) if number <= NUM_FRONTAL else ('profile', number - 10)
            link = out / 'Data/Images' / person / pose / f'{place:02}{path.suffix}'
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.symlink_to(path.resolve())
            lists[pose[0].upper()].append((person, f'../{link.relative_to(out)}'))
    protocol = out / 'Protocol'
    for letter, entries in lists.items():
        text = ''.join(f'{number} {name}\n' for number, (_, name) in enumerate(entries, start=1))
        write_text(protocol / f'Pair_list_{letter}.txt', text)
    rng = np.random.default_rng(seed)
    parts = np.array_split(rng.permutation(sorted(images, key=int)), FOLDS)
    for kind, (fold, people) in itertools.product(('FF', 'FP'), enumerate(parts, start=1)):
        first, second = (
            [(n, p) for n, (p, _) in enumerate(lists[k], 1) if p in people] for k in kind
        )
        pairs = [(a, b) for a in first for b in second if kind == 'FP' or a[0] < b[0]]
        for name, alike in (('same', True), ('diff', False)):
            fitting = [(a[0], b[0]) for a, b in pairs if (a[1] == b[1]) == alike]
            chosen = rng.choice(len(fitting), PAIRS, replace=False)
            text = ''.join('{},{}\n'.format(*fitting[place]) for place in sorted(chosen))
            write_text(protocol / 'Split' / kind / f'{fold:02}' / f'{name}.txt', text)
    names = [name[3:] for entries in lists.values() for _, name in entries]
    # One list of all images, so that each is embedded once for all pairs.
    text = ''.join(f'{a} {b} 1\n' for a, b in zip(names, [*names[1:], names[0]], strict=True))
    write_text(out / 'pairs.txt', text)
    return out


def write_text(path: Path, text: str) -> None:
    """Write a file in a folder that may not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding='utf-8'))


def embed_images(
    config: str, checkpoint: str, root: Path, size: int | None, out: Path
) -> FaceTable:
    """Return the table of all images, those larger than ``size`` averaged down to it."""
    options = {'work_dir': str(out / 'log'), 'log_level': 'ERROR', 'custom_hooks': []}
    cfg = load_config(find_config(config), options)
    load, *rest = cfg.test_dataloader.dataset.pipeline
    shrink = [dict(type='DownsampleFace', size=size, enlarge=False)] if size else []
    cfg.test_dataloader.dataset = dict(
        type='LFWFamily', protocol='pairs', data_root=str(root), pipeline=[load, *shrink, *rest]
    )
    cfg.test_dataloader.num_workers = 0
    cfg.test_dataloader.pop('persistent_workers', None)
    cfg.test_evaluator = dict(type='VerificationMetric')
    with DefaultScope.overwrite_default_scope('mmvlr'):
        model = load_tested_model(build_tester(cfg, checkpoint))
        return score_loader(model, Runner.build_dataloader(cfg.test_dataloader))


def main(argv: list[str] | None = None) -> int:
    """Measure and write the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('faces', type=Path, help='test set in the layout of TinyFace')
    parser.add_argument('--networks', nargs='+', required=True, metavar='NAME=CONFIG:CHECKPOINT')
    parser.add_argument('--sizes', nargs='+', type=int, default=[0, 16, 12, 8], help='0: as it is')
    parser.add_argument('--resamples', type=int, default=1000)
    parser.add_argument('--out', type=Path, required=True)
    args = parser.parse_args(argv)
    root = link_layout(args.faces, args.out / 'cfp')
    lines = [
        '| network | pairs | size | accuracy | by the rule of insightface | TAR at FAR 0.01 |',
        '|---|---|---|---|---|---|',
    ]
    for network, size in itertools.product(args.networks, args.sizes):
        name, _, files = network.partition('=')
        config, _, checkpoint = files.partition(':')
        cache = args.out / f'{name}-{size or "native"}.npz'
        if not cache.is_file():
            embed_images(config, checkpoint, root, size or None, args.out).save(cache)
        faces = FaceTable.load(cache)
        images = LFWFamily(str(root), 'pairs')
        row = {os.path.realpath(i['img_path']): n for n, i in enumerate(images.infos())}
        for kind in ('FF', 'FP'):
            pairs = LFWFamily(str(root), f'cfp_{kind.lower()}')
            here = np.array([row[os.path.realpath(i['img_path'])] for i in pairs.infos()])
            table = FaceTable(
                faces.embedding,
                faces.role,
                faces.identity,
                pairs=here[pairs.metainfo['pairs']],
                same=pairs.metainfo['same'],
            )
            metric = VerificationMetric(
                fars=(0.01,), insightface=True, intervals=True, num_resamples=args.resamples
            )
            found = metric.report(table)
            keys = 'verification_accuracy', 'verification_accuracy_insightface', 'tar@far0.01'
            ends = ('', '_low', '_high')
            rows = [[100 * found[f'verification/{key}{end}'] for end in ends] for key in keys]
            cells = ['{:.1f} [{:.1f}, {:.1f}]'.format(*numbers) for numbers in rows]
            line = f'| {name} | CFP-{kind} | {size or "native"} | {" | ".join(cells)} |'
            lines.append(line)
            print(line, flush=True)
    write_text(args.out / 'pairs_at_sizes.md', '\n'.join(lines) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
