"""Time the template protocols at IJB-C's official size, on random embeddings.

``projects/benchmarks/templates.py`` makes 469,375 images of 23,124 templates, block by block while
they are asked for, averages them, compares 15,658,489 pairs, and searches 15,658 probe
templates in 3,531 gallery templates; it prints processor time and memory above the start.
"""

import mmvlr  # isort: skip  # noqa: F401
import argparse
import resource
import sys
import time

import numpy as np
from large_gallery import GeneratedRows

from mmvlr.evaluation.template_protocols import (
    identify_templates,
    make_media_templates,
    verify_templates,
)

IMAGES, TEMPLATES, PAIRS, GALLERY, PROBES = 469_375, 23_124, 15_658_489, 3_531, 15_658


def main(argv: list[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--dim', type=int, default=512, help='embedding size')
    dim = parser.parse_args(argv).dim
    rng = np.random.default_rng(0)
    rows = GeneratedRows(IMAGES, dim, np.empty((0, dim), np.float32))
    template = np.sort(rng.integers(0, TEMPLATES, IMAGES))
    template[:TEMPLATES], medium = np.arange(TEMPLATES), rng.integers(0, 10, IMAGES)
    template.sort()
    first = peak()

    def tell(what: str, start: float) -> None:
        seconds = time.process_time() - start
        print(
            f'{what}: {seconds:.1f} s of processor, peak {peak() - first:,.0f} MiB above the start'
        )

    start = time.process_time()
    numbers, templates = make_media_templates(rows, template, medium)
    tell(f'{IMAGES:,} images, made twice, to {len(numbers):,} templates', start)
    pairs = rng.integers(0, TEMPLATES, (PAIRS, 2))
    same = np.arange(PAIRS) % 800 == 0
    start = time.process_time()
    verify_templates(numbers, templates, pairs, same)
    tell(f'1:1, {PAIRS:,} pairs', start)
    gallery = numbers[:GALLERY], np.arange(GALLERY)
    probe = numbers[-PROBES:], rng.integers(0, 2 * GALLERY, PROBES)
    start = time.process_time()
    identify_templates(numbers, templates, gallery, probe)
    tell(f'1:N, {PROBES:,} in {GALLERY:,}', start)
    return 0


def peak() -> float:
    """Return the peak memory of the process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == '__main__':
    sys.exit(main())
