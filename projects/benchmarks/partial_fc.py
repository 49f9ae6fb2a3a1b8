"""Memory and time of sharded and sampled prototypes, on ranks of this machine.

``python projects/benchmarks/partial_fc.py`` trains only the head, on random embeddings: for each
number of ranks a step at rate 1 and at rate 0.1 with SGD and momentum. It prints what a rank holds
of prototypes, gradients and momentum, by how much its memory really grew, and seconds a step. On a
CPU the ranks share the cores, so time a step does not fall with their number; a GPU is
used with ``--ranks 1`` alone, where there is one. The last line is one JSON object.
"""

import mmvlr  # noqa: F401  # isort: skip
import argparse
import json
import os
import subprocess
import sys
import time

import torch
import torch.distributed as dist
from evaluation import PeakMemory

from mmvlr.models import PartialRecognitionModule


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Train the head on this rank; return its bytes and seconds, the largest of all ranks."""
    ranks = int(os.environ.get('WORLD_SIZE', 1))
    device = args.device
    if ranks > 1:
        dist.init_process_group('gloo')
    batch = args.batch // ranks
    torch.manual_seed(int(os.environ.get('RANK', 0)))
    # What the libraries load in a first step is nobody's cost.
    warm = PartialRecognitionModule(8 * ranks, args.dim, dropout=0.0).to(device)
    warm.is_gathered = True
    warm.loss(torch.randn(8, args.dim, device=device), torch.arange(8, device=device))[
        'loss_cls'
    ].backward()
    torch.optim.SGD(warm.parameters()).step()
    with PeakMemory(device) as memory:
        head = PartialRecognitionModule(args.classes, args.dim, rate=args.rate, dropout=0.0)
        head = head.to(device).train()
        # Nobody saves anything here.
        head.is_gathered = True
        optimizer = torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
        seconds = []
        for _ in range(args.steps + 1):
            embeddings = torch.randn(batch, args.dim, device=device, requires_grad=True)
            labels = torch.randint(args.classes, (batch,), device=device)
            start = time.perf_counter()
            optimizer.zero_grad()
            head.loss(embeddings, labels)['loss_cls'].backward()
            optimizer.step()
            if device == 'cuda':
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
    state = [head.weight, head.weight.grad, *optimizer.state[head.weight].values()]
    held = sum(part.nbytes for part in state if isinstance(part, torch.Tensor))
    # The first step allocates what the others use again.
    found = torch.tensor([held / 2**20, memory.rise, sum(seconds[1:]) / args.steps])
    if ranks > 1:
        dist.all_reduce(found, dist.ReduceOp.MAX)
        dist.destroy_process_group()
    names = ('held_mib', 'grown_mib', 'seconds')
    return dict(ranks=ranks, rate=args.rate, **dict(zip(names, found.tolist(), strict=True)))


def main(argv: list[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--classes', type=int, default=300_000, help='people, C')
    parser.add_argument('--dim', type=int, default=512, help='embedding size, D')
    parser.add_argument('--batch', type=int, default=128, help='faces of all ranks in a step')
    parser.add_argument('--ranks', nargs='+', type=int, default=(1, 2, 4))
    parser.add_argument('--rates', nargs='+', type=float, default=(1.0, 0.1))
    parser.add_argument('--steps', type=int, default=3, help='steps to time, behind one to warm up')
    parser.add_argument('--rate', type=float, help=argparse.SUPPRESS)
    parser.add_argument('--device', choices=('cpu', 'cuda'), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.rate is not None:
        row = measure(args)
        if int(os.environ.get('RANK', 0)) == 0:
            print(json.dumps(row))
        return 0
    rows = []
    # One device for all rows, or they could not be compared.
    device = 'cuda' if max(args.ranks) == 1 and torch.cuda.is_available() else 'cpu'
    print(f'{"ranks":>5} {"rate":>5} {"held MiB":>9} {"grown MiB":>10} {"s/step":>7}')
    for ranks in args.ranks:
        for rate in args.rates:
            command = [sys.executable]
            if ranks > 1:
                command += ['-m', 'torch.distributed.run', '--standalone']
                command += [f'--nproc_per_node={ranks}']
            command += [__file__, f'--rate={rate}', f'--classes={args.classes}']
            command += [f'--device={device}']
            command += [f'--dim={args.dim}', f'--batch={args.batch}', f'--steps={args.steps}']
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            row = json.loads(output.splitlines()[-1])
            rows.append(row)
            print(
                f'{ranks:5} {rate:5g} {row["held_mib"]:9,.0f} {row["grown_mib"]:10,.0f} '
                f'{row["seconds"]:7.2f}',
                flush=True,
            )
    setting = dict(device=device, classes=args.classes, dim=args.dim, batch=args.batch)
    print(json.dumps(dict(**setting, rows=rows)))
    return 0


if __name__ == '__main__':
    sys.exit(main())
