"""Time inference: images a second of a model as it is, folded, and exported to ONNX.

``python projects/benchmarks/inference.py CHECKPOINT`` takes the model of a checkpoint, or with
``--backbone`` one of random weights, and runs it from uint8 faces to embedding and qualities:

- ``unfolded``: ``model.eval()`` under ``no_grad``, BN applied behind each convolution;
- ``eager``: the same as mmvlr runs it, BN folded into the kernels at each call;
- ``folded``: a copy with BN folded once (``mmvlr.models.folding``), in inference mode;
- ``portions``: the folded copy on portions of 8 faces, whose maps stay in the cache;
- ``exported``: the ONNX file, in onnxruntime.

The ways take turns, so that what else the machine does meets all of them. The table gives the
median of the rounds with the lowest and highest, the median of the ratios to ``eager`` round by
round, the lowest cosine with ``eager``, and the rise of memory in a process that does nothing else.
The last line is one JSON object; its ``speedup`` is that of ``exported`` at the batch size at which
it gains least (of ``folded`` where nothing is exported).
"""

import mmvlr  # noqa: F401  # isort: skip
import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from evaluation import PeakMemory
from mmengine.registry import DefaultScope

from mmvlr.apis.export import OnnxNetwork, export_onnx
from mmvlr.apis.network import load_model
from mmvlr.models.backbones import base, inception_resnet, iresnet, mobilefacenet
from mmvlr.models.folding import folded
from mmvlr.models.recognizers import FaceRecognizer
from mmvlr.registry import MODELS

BACKBONES = {
    'mobilefacenet': (dict(type='MobileFaceNet', variant='tfjs'), 112),
    'r50': (dict(type='IResNet', depth=50), 112),
    'r100': (dict(type='IResNet', depth=100), 112),
    'inception': (dict(type='InceptionResnetV1'), 160),
}
WAYS = ('unfolded', 'eager', 'folded', 'portions', 'exported')
PORTION = 8

#: Maps uint8 faces (B, H, W, 3) to embeddings (B, D).
Way = Callable[[np.ndarray], np.ndarray]


def random_model(name: str) -> FaceRecognizer:
    """Return an RIFace of random weights whose BN layers are no identities."""
    backbone, side = BACKBONES[name]
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmvlr'):
        model = MODELS.build(
            dict(
                type='RIFace',
                backbone=backbone,
                data_preprocessor=dict(type='FaceDataPreprocessor', size=(side, side)),
            )
        )
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                module.weight.data.uniform_(0.5, 1)
    model.set_ui_center(torch.randn(model.embed_dims))
    return model.eval()


def make_ways(
    model: FaceRecognizer, file: Path, device: str, threads: int
) -> tuple[dict[str, Way], dict[str, str]]:
    """Return the ways by name, and the reasons for which others are left out."""
    model = model.to(device)
    ready = folded(model)

    def predict(one: FaceRecognizer, faces: np.ndarray) -> np.ndarray:
        batch = torch.from_numpy(faces).permute(0, 3, 1, 2).contiguous()
        found = one.predictions(one.data_preprocessor(dict(inputs=batch))['inputs'])
        return found['embedding'].cpu().numpy()

    def eager(faces: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return predict(model, faces)

    def unfolded(faces: np.ndarray) -> np.ndarray:
        modules = (inception_resnet, iresnet, mobilefacenet)
        try:
            for module in modules:
                module.conv_bn = lambda conv, bn, x: bn(conv(x))
            return eager(faces)
        finally:
            for module in modules:
                module.conv_bn = base.conv_bn

    def folded_once(faces: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return predict(ready, faces)

    def portions(faces: np.ndarray) -> np.ndarray:
        starts = range(0, len(faces), PORTION)
        return np.concatenate([folded_once(faces[start : start + PORTION]) for start in starts])

    ways: dict[str, Way] = dict(unfolded=unfolded, eager=eager, folded=folded_once)
    left_out = {}
    if device == 'cpu':
        ways['portions'] = portions
    else:
        left_out['portions'] = 'for CPUs only'
    try:
        provider = 'CPUExecutionProvider' if device == 'cpu' else 'CUDAExecutionProvider'
        network = OnnxNetwork(file, providers=[provider], threads=threads)
        ways['exported'] = lambda faces: network(faces)['embedding']
    except ValueError as error:
        left_out['exported'] = str(error)
    return ways, left_out


def faces_of(model: FaceRecognizer, number: int) -> np.ndarray:
    """Return random faces (B, H, W, 3)."""
    shape = (number, *model.data_preprocessor.size, 3)
    return np.random.default_rng(number).integers(0, 256, shape, np.uint8)


def rates(ways: dict[str, Way], faces: np.ndarray, rounds: int, seconds: float) -> dict[str, list]:
    """Return images a second of every way for every round, the ways in turns."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    start = time.perf_counter()
    ways['eager'](faces)
    repeats = max(1, round(seconds / (time.perf_counter() - start)))
    for turn in range(rounds):
        # Whoever comes first would always meet the caches of whoever comes last.
        order = list(ways)[turn % len(ways) :] + list(ways)[: turn % len(ways)]
        for name in order:
            start = time.perf_counter()
            for _ in range(repeats):
                ways[name](faces)
            found[name].append(repeats * len(faces) / (time.perf_counter() - start))
    return found


def peak_mib(arguments: list[str], way: str, batch: int, file: Path) -> float:
    """Return the rise of memory of one way in a process of its own."""
    command = [sys.executable, __file__, *arguments, f'--one={way}', f'--batch={batch}']
    command.append(f'--file={file}')
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.splitlines()[-1])


def trace(ways: dict[str, Way], faces: np.ndarray, folder: Path) -> None:
    """Write a trace for chrome://tracing of one call of each way that PyTorch runs."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ways:
        if name != 'exported':
            with torch.profiler.profile() as profile:
                ways[name](faces)
            profile.export_chrome_trace(str(folder / f'{name}-{len(faces)}.json'))


def main(argv: list[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('checkpoint', nargs='?', help='.pth or .safetensors')
    parser.add_argument('--backbone', choices=BACKBONES, help='random weights instead')
    parser.add_argument('--batch-sizes', nargs='+', type=int, default=[1, 8, 64])
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--seconds', type=float, default=1.0, help='of one way in one round')
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--trace', type=Path, metavar='FOLDER', help='write profiles there')
    parser.add_argument('--one', choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument('--batch', type=int, help=argparse.SUPPRESS)
    parser.add_argument('--file', type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if (args.checkpoint is None) == (args.backbone is None):
        parser.error('give a checkpoint or --backbone')
    torch.set_num_threads(args.threads)
    model = random_model(args.backbone) if args.backbone else load_model(args.checkpoint)
    if args.one:
        ways, _ = make_ways(model, args.file, args.device, args.threads)
        with PeakMemory(args.device) as memory:
            for _ in range(3):
                ways[args.one](faces_of(model, args.batch))
        print(memory.rise)
        return 0

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / 'model.onnx'
        made = export_onnx(model, file, license='LicenseRef-unknown')
        print(f'exported, largest differences: {made.differences}')
        ways, left_out = make_ways(model, file, args.device, args.threads)
        for name, reason in left_out.items():
            print(f'{name} is not measured: {reason}')
        print(
            f'{"batch":>5} {"way":9} {"images/s":>10} {"lowest":>8} {"highest":>8} '
            f'{"to eager":>8} {"1 - cosine":>10} {"peak MiB":>8}'
        )
        known = [f'--backbone={args.backbone}'] if args.backbone else [args.checkpoint]
        known += [f'--device={args.device}', f'--threads={args.threads}']
        for batch in args.batch_sizes:
            faces = faces_of(model, batch)
            wanted = ways['eager'](faces).astype(np.float64)
            off = {}
            for name, way in ways.items():
                found = way(faces).astype(np.float64)
                norms = np.linalg.norm(wanted, axis=1) * np.linalg.norm(found, axis=1)
                off[name] = float(1 - ((wanted * found).sum(1) / norms).min())
            measured = rates(ways, faces, args.rounds, args.seconds)
            for name, values in measured.items():
                ratios = [a / b for a, b in zip(values, measured['eager'], strict=True)]
                row = dict(
                    batch=batch,
                    way=name,
                    per_second=round(statistics.median(values), 1),
                    lowest=round(min(values), 1),
                    highest=round(max(values), 1),
                    to_eager=round(statistics.median(ratios), 3),
                    one_minus_cosine=off[name],
                    peak_mib=round(peak_mib(known, name, batch, file), 1),
                )
                rows.append(row)
                print(
                    f'{batch:5} {name:9} {row["per_second"]:10,.1f} {row["lowest"]:8,.1f} '
                    f'{row["highest"]:8,.1f} {row["to_eager"]:8.2f} {off[name]:10.1e} '
                    f'{row["peak_mib"]:8,.1f}',
                    flush=True,
                )
            if args.trace:
                trace(ways, faces, args.trace)
    best = 'exported' if 'exported' in ways else 'folded'
    result = dict(
        model=args.backbone or args.checkpoint,
        device=args.device,
        threads=args.threads,
        way=best,
        speedup=min(row['to_eager'] for row in rows if row['way'] == best),
        cosine=1 - max(row['one_minus_cosine'] for row in rows),
        left_out=left_out,
        rows=rows,
    )
    print(json.dumps(result))
    return 0


if __name__ == '__main__':
    sys.exit(main())
