"""Compare ways to fine-tune: ``python projects/studies/adapters.py --out DIR``.

For every backbone, method and seed: trains in TinyFace's layout (``TINYFACE_ROOT``), tests there,
on other people in that layout (``CFP_ROOT``), and on the nearest distance of ``SCFACE_ROOT``
against its mugshots, which shows what was forgotten of better faces. Pretrained weights are tested
too. One training at a time; what is finished is skipped when it is started again, and an
interrupted training goes on from its last epoch. At the end, or with ``--table`` at once, the table
is printed and written to ``DIR/adapters.csv``: means over the seeds, with 95 % intervals from
resampling people (ends averaged over the seeds), weights that learn, seconds a step and peak memory
of the training.
"""

import argparse
import ast
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mmvlr  # noqa: F401  # isort: skip

import numpy as np
from mmengine.registry import DefaultScope

from mmvlr.apis import evaluate_checkpoint, load_config
from mmvlr.cli.common import tell_errors
from mmvlr.registry import MODELS
from mmvlr.utils.io import write_atomic, write_csv

LORA = 'optim_wrapper.paramwise_cfg.rates.backbone=None'
GATE = [
    'model.backbone.adapter.gate.type=QualityGate',
    'model.backbone.adapter.gate.quality.type=SharpnessQuality',
]
#: Name -> options of the training; the configs' recipes are those of ArcFace.
METHODS: dict[str, list[str]] = {
    'full': [],
    'last layers': ['model.backbone.frozen_stages={stages}'],
    'LoRA 4': [LORA, 'model.backbone.adapter.rank=4'],
    'LoRA 8': [LORA, 'model.backbone.adapter.rank=8'],
    'LoRA 16': [LORA, 'model.backbone.adapter.rank=16'],
    'distillation': [],
    'LoRA 8, gated': [LORA, 'model.backbone.adapter.rank=8', *GATE],
}
#: Column -> (test set, name of the metric).
COLUMNS = {
    'TinyFace, rank-1': ('tinyface', 'tinyface/rank1'),
    'CFP, rank-1': ('cfp', 'tinyface/rank1'),
    'SCface D3, rank-1': ('scface', 'retain/rank1'),
    'SCface D3, TAR at FAR 0.01': ('scface', 'retain/tar@far0.01'),
    'SCface D3, AUC': ('scface', 'retain/verification_auc'),
}


def options(method: str, backbone: str, args: argparse.Namespace) -> list[str]:
    """Return the options of a training."""
    found = [
        f'train_cfg.max_epochs={args.epochs}',
        f'param_scheduler.milestones=[{max(1, round(args.epochs * 0.8))}]',
        'default_hooks.checkpoint.max_keep_ckpts=1',
        'default_hooks.checkpoint.save_best=None',
        *(f'{name}_dataloader.num_workers=0' for name in ('train', 'prototype', 'ui')),
        'train_dataloader.persistent_workers=False',
        # Chosen by the last epoch: nothing is validated.
        *(f'{name}=None' for name in ('val_cfg', 'val_dataloader', 'val_evaluator')),
    ]
    for option in METHODS[method]:
        found.append(
            option.format(stages=count_stages(backbone)) if '{stages}' in option else option
        )
    if 'LoRA' in method:
        found += [
            'model.backbone.adapter.type=LoRA',
            f'optim_wrapper.paramwise_cfg.rates.adapter={args.adapter_rate}',
        ]
    return found


def count_stages(backbone: str) -> int:
    """Return the number of stages in front of the feature map."""
    config = load_config(f'arcface/{backbone}_tinyface').model.backbone
    with DefaultScope.overwrite_default_scope('mmvlr'):
        return len(MODELS.build(config).stages())


def train(folder: Path, backbone: str, method: str, seed: int, args: argparse.Namespace) -> Path:
    """Train, or go on; return the last checkpoint. Notes what it cost."""
    last = folder / f'epoch_{args.epochs}.pth'
    facts = folder / 'facts.json'
    if last.is_file() and facts.is_file():
        return last
    recipe = 'distill' if method == 'distillation' else 'arcface'
    command = [sys.executable, '-m', 'mmvlr', 'train', f'{recipe}/{backbone}_tinyface']
    command += ['--work-dir', str(folder), '--seed', str(seed), '--resume']
    command += ['--cfg-options', *options(method, backbone, args)]
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with open(folder / 'log.txt', 'a', encoding='utf-8') as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f'{folder}: the training failed, see {folder / "log.txt"}')
    steps = [
        record['time']
        for file in folder.glob('*/vis_data/scalars.json')
        for record in map(json.loads, file.read_text().splitlines())
        if 'time' in record
    ]
    learns = [
        line for line in (folder / 'log.txt').read_text().splitlines() if 'learning rates' in line
    ]
    content = dict(
        seconds=time.monotonic() - began,
        step=float(np.median(steps)),
        memory=usage.ru_maxrss / 1024,
        rates=learns[-1].rpartition('learning rates: ')[2] if learns else '',
    )
    write_atomic(facts, lambda file: file.write_text(json.dumps(content)))
    return last


def test(
    checkpoint: str, backbone: str, method: str, work_dir: Path, args: argparse.Namespace
) -> Any:
    """Return the metrics on all test sets."""
    results: dict[str, Mapping[str, float]] = {}
    for name in ('tinyface', 'cfp', 'scface'):
        config = load_config(f'arcface/{backbone}_tinyface')
        stated = options(method, backbone, args) if method else []
        extra = dict(option.split('=', 1) for option in stated if option.startswith('model.'))
        config.merge_from_dict({key: read_value(value) for key, value in extra.items()})
        config.work_dir = str(work_dir / 'tests')
        config.test_dataloader.num_workers = config.ui_dataloader.num_workers = 0
        if name == 'cfp':
            config.test_dataloader.dataset.data_root = os.environ['CFP_ROOT']
        if name == 'scface':
            subjects = args.subjects
            config.test_dataloader.dataset = dict(
                type='SCface',
                data_root=os.environ['SCFACE_ROOT'],
                split='test',
                train_subjects='9999',
                test_subjects=subjects,
                gallery_subjects=subjects,
                distances=(3,),
                pipeline=config.test_dataloader.dataset.pipeline,
            )
            config.test_evaluator = [
                dict(type='ClosedSetMetric', ranks=(1,), prefix='retain'),
                dict(type='GalleryVerificationMetric', fars=(0.1, 0.01), prefix='retain'),
            ]
        results[name], _ = evaluate_checkpoint(config, checkpoint, intervals=True)
    return results


def read_value(text: str) -> Any:
    """Return the value of an option: a literal, or the text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def run(args: argparse.Namespace) -> int:
    """Train and test what is missing; print the table."""
    if not args.table:
        for backbone in args.backbones:
            todo = [('', 0)] + [(method, seed) for seed in args.seeds for method in args.methods]
            for method, seed in todo:
                name = f'{backbone}-{method}-{seed}'.replace(' ', '').replace(',', '-')
                folder = args.out / (name if method else f'{backbone}-pretrained')
                result = folder / 'result.json'
                if result.is_file():
                    continue
                print(f'{time.strftime("%H:%M:%S")} {folder.name}', flush=True)
                if method:
                    checkpoint = str(train(folder, backbone, method, seed, args))
                else:
                    checkpoint = load_config(f'arcface/{backbone}_tinyface').load_from
                found = test(checkpoint, backbone, method, folder, args)
                content = dict(
                    backbone=backbone, method=method or 'pretrained', seed=seed, tests=found
                )
                content['learns'] = count_weights(backbone, method, args) if method else 0
                result.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(result, lambda file, c=content: file.write_text(json.dumps(c)))
    print_table(args.out)
    return 0


def count_weights(backbone: str, method: str, args: argparse.Namespace) -> int:
    """Return how many weights of the network learn, those of the head left out."""
    config = load_config(f'arcface/{backbone}_tinyface')
    extra = [option.split('=', 1) for option in options(method, backbone, args)]
    config.merge_from_dict({k: read_value(v) for k, v in extra if k.startswith('model.')})
    config.model.head = None
    with DefaultScope.overwrite_default_scope('mmvlr'):
        model = MODELS.build(config.model)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def print_table(out: Path) -> None:
    """Print and write the means over the seeds."""
    runs: dict[tuple[str, str], list[tuple[dict, dict]]] = {}
    for file in sorted(out.glob('*/result.json')):
        found, facts = json.loads(file.read_text()), file.parent / 'facts.json'
        cost = json.loads(facts.read_text()) if facts.is_file() else {}
        runs.setdefault((found['backbone'], found['method']), []).append((found, cost))
    header = ['backbone', 'method', 'seeds', 'weights', 's a step', 'peak MB', *COLUMNS]
    rows = []
    for (backbone, method), members in runs.items():
        row = [backbone, method, len(members), f'{members[0][0]["learns"]:,}']
        for key, form in (('step', '.2f'), ('memory', '.0f')):
            values = [cost[key] for _, cost in members if key in cost]
            row.append(format(np.mean(values), form) if values else '')
        for test_set, metric in COLUMNS.values():
            numbers = [found['tests'][test_set] for found, _ in members]
            ends = [
                np.mean([one[f'{metric}{end}'] for one in numbers]) for end in ('', '_low', '_high')
            ]
            row.append('{:.1f} ({:.1f}, {:.1f})'.format(*(100 * end for end in ends)))
        rows.append(row)
    order = ['pretrained', *METHODS]
    rows.sort(key=lambda row: (row[0], order.index(row[1]) if row[1] in order else len(order)))
    write_csv(out / 'adapters.csv', header, [dict(zip(header, row, strict=True)) for row in rows])
    for row in (header, ['---'] * len(header), *rows):
        print(f'| {" | ".join(map(str, row))} |')


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', type=Path, required=True, metavar='DIR')
    parser.add_argument('--backbones', nargs='+', default=['mobilefacenet'])
    parser.add_argument('--methods', nargs='+', choices=list(METHODS), default=list(METHODS))
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--epochs', type=int, default=6)
    parser.add_argument('--adapter-rate', type=float, default=1e-3)
    parser.add_argument('--subjects', default='1-30', help='subjects of SCFACE_ROOT')
    parser.add_argument('--table', action='store_true', help='only print the table')
    args = parser.parse_args()
    return tell_errors('adapters', lambda: run(args))


if __name__ == '__main__':
    sys.exit(main())
