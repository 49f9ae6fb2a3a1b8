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
    """Examine the installation."""
    import os

    from .doctor import examine, render

    findings = examine(args.model or os.environ.get(MODEL_VARIABLE))
    failed = any(finding.status == 'error' for finding in findings)
    document = dict(findings=[asdict(finding) for finding in findings])
    return Outcome(document, render(findings), FAILED if failed else DONE)
