"""``mmvlr page``."""

import argparse

from .arguments import existing_file, existing_folder, existing_gallery
from .common import Outcome, UsageError, add_model_options, load_inferencer


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add the command of this module."""
    page = commands.add_parser(
        'page',
        help='a page in the browser to try a model on faces',
        description='Try a model in the browser: two faces, or a face and images of people.\n'
        "Nothing leaves this computer. Needs pip install 'mmvlr[web]'.\n\n"
        '  mmvlr page --model riface.safetensors --gallery gallery/ --decision decision.json',
    )
    page.add_argument(
        '--gallery',
        type=existing_gallery,
        metavar='FOLDER',
        help='people to search among (mmvlr enroll)',
    )
    page.add_argument(
        '--decision', type=existing_file, metavar='FILE', help='thresholds (mmvlr calibrate)'
    )
    page.add_argument(
        '--images',
        type=existing_folder,
        metavar='FOLDER',
        help='with --gallery: folder with the images that were enrolled, to show the people found; '
        'the gallery holds none',
    )
    page.add_argument(
        '--host',
        default='127.0.0.1',
        help='0.0.0.0 lets other computers see the page; it has no password (default: 127.0.0.1)',
    )
    page.add_argument(
        '--port', type=int, default=7860, help='port; 0: any that is free (default: 7860)'
    )
    add_model_options(page)
    page.set_defaults(run=run_page)


def run_page(args: argparse.Namespace) -> Outcome:
    """Show the page until it is interrupted."""
    if args.images and not args.gallery:
        raise UsageError('--images goes with --gallery')
    from mmvlr.identification import Decision, Gallery
    from mmvlr.web import FacePage, check_page, serve

    check_page(args.host, args.port)
    inferencer = load_inferencer(args)
    gallery = decision = None
    if args.gallery:
        gallery = Gallery.load(args.gallery, fingerprint=inferencer.fingerprint)
    if args.decision:
        decision = Decision.load(args.decision, fingerprint=inferencer.fingerprint)
    _, address = serve(FacePage(inferencer, gallery, decision, args.images), args.host, args.port)
    return Outcome(dict(address=address))
