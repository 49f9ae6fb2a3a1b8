"""``mmvlr doctor``."""

import argparse
from dataclasses import asdict

from .common import DONE, FAILED, MODEL_VARIABLE, Outcome


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add the command of this module."""
    doctor = commands.add_parser(
        'doctor',
        help='what this installation has, and what is wrong with it',
        description='Examine versions, GPU, data folders, weights and the known traps of the\n'
        'packages that mmvlr stands on; each finding comes with its remedy.',
    )
    doctor.add_argument('--model', metavar='FILE', help='also examine this model')
    doctor.set_defaults(run=run_doctor)


def run_doctor(args: argparse.Namespace) -> Outcome:
    """Examine the installation; name what is looked at, as imports take seconds."""
    import os
    import sys

    from .doctor import examine, judge_readiness, render, render_readiness

    def tell(topic: str) -> None:
        print(topic, end=' ', file=sys.stderr, flush=True)

    tell('examining')
    findings = examine(args.model or os.environ.get(MODEL_VARIABLE), tell)
    print(file=sys.stderr)
    failed = any(finding.status == 'error' for finding in findings)
    document = dict(findings=[asdict(finding) for finding in findings])
    ready, others = judge_readiness(findings)
    missing = {purpose: [asdict(f) for f in found] for purpose, found in others.items()}
    document |= dict(ready_for=ready, not_ready_for=missing)
    text = f'{render(findings)}\n\n{render_readiness(findings)}'
    return Outcome(document, text, FAILED if failed else DONE)
