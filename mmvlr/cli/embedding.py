"""``mmvlr embed``, ``quality`` and ``verify``."""

import argparse
from collections.abc import Iterable, Sequence
from statistics import median

from .arguments import face_source, output_file
from .common import (
    DONE,
    NO_MATCH,
    Outcome,
    UsageError,
    add_model_options,
    count,
    left_out,
    load_inferencer,
    paragraphs,
    table,
)

FACES = 'images, folders (with all below them) and globs'
LEGEND = dict(
    ri='recognizability index, predicted by RI-Face: higher is better',
    ers='1 - cosine to the center of unrecognizable faces, at most 1: higher is better',
    norm="length of the backbone's embedding: mostly higher for better faces",
    crfiqa='predicted ratio of the similarities to the own and to the nearest other person',
    serfiq='how little the embedding changes under dropout',
    prefiqs='how little the embedding changes when the network is pruned',
    ccs='predicted cosine to the center of the own class',
    ccas='ccs minus the predicted cosine to the nearest other center',
    grafiqs='gradients of the error of batch normalization statistics',
    froq='mean length of the outputs of chosen layers',
    size='shorter side of the image in pixels',
)


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add the commands of this module."""
    embed = commands.add_parser(
        'embed',
        help='embeddings of faces, into a file',
        description='Write the embedding and the qualities of each face into a file.\n\n'
        '  mmvlr embed crops/ --out faces.npz --model riface.safetensors\n\n'
        'The .npz file holds the arrays embedding (N, D), name (N,), ri, ers, norm and size (N,);\n'
        'numpy.load reads it. A .csv file has one column for each dimension.',
    )
    embed.add_argument('faces', nargs='+', type=face_source, help=FACES)
    embed.add_argument('--out', required=True, type=output_file, help='file to write: .npz or .csv')
    add_model_options(embed)
    embed.set_defaults(run=run_embed)

    quality = commands.add_parser(
        'quality',
        help='how recognizable each face is',
        description='Say how recognizable each face is, the worst first.\n\n'
        '  mmvlr quality crops/ --model riface.safetensors\n\n'
        'With --config, the quality_measures of that config are measured too.\n\n'
        + explain(LEGEND),
    )
    quality.add_argument('faces', nargs='+', type=face_source, help=FACES)
    quality.add_argument('--out', type=output_file, help='also write the table to this .csv file')
    quality.add_argument(
        '--sort', default='quality', choices=('quality', 'name'), help='order (default: quality)'
    )
    add_model_options(quality)
    quality.set_defaults(run=run_quality)

    verify = commands.add_parser(
        'verify',
        help='how alike two faces are',
        description='Compare two faces.\n\n'
        '  mmvlr verify a.jpg b.jpg --model riface.safetensors\n\n'
        'The similarity is the cosine of the embeddings, in [-1, 1]. A threshold that means\n'
        'something comes from faces like yours (mmvlr calibrate), not from a table.',
    )
    verify.add_argument('first', type=face_source, help='an image')
    verify.add_argument('second', type=face_source, help='another image')
    verify.add_argument(
        '--threshold', type=float, help='exit with 4 if the similarity is not above it'
    )
    add_model_options(verify)
    verify.set_defaults(run=run_verify)


def run_embed(args: argparse.Namespace) -> Outcome:
    """Embed images into a file."""
    if args.out.suffix not in ('.npz', '.csv'):
        raise UsageError(f'--out must end in .npz or .csv, not {args.out.name}')
    results = load_inferencer(args).embed(args.faces)
    if args.out.suffix == '.npz':
        results.save(args.out)
    else:
        results.to_csv(args.out, embedding=True)
    left, told, code = left_out(results)
    document = dict(out=str(args.out), faces=len(results), dims=results.embedding.shape[1])
    document |= dict(fingerprint=dict(results.fingerprint)) | left
    text = f'{len(results)} embeddings of {results.embedding.shape[1]} dimensions in {args.out}'
    return Outcome(document, paragraphs(text, told), code)


def run_quality(args: argparse.Namespace) -> Outcome:
    """Show the qualities of images."""
    inferencer = load_inferencer(args)
    if args.config:
        from mmvlr.engine.building import load_config

        inferencer.add_measures(load_config(args.config))
    results = inferencer.quality(args.faces)
    if args.out:
        results.to_csv(args.out)
    rows = results.rows()
    first = next(iter(results.qualities))
    if args.sort == 'quality':
        rows.sort(key=lambda row: row[first])
    left, told, code = left_out(results)
    note = ''
    if first != 'ri':
        note = f'This model predicts no recognizability index; the order is that of {first}.'
    document = dict(faces=rows) | left
    document['summary'] = summary = {
        name: dict(zip(('lowest', 'median', 'highest'), quantiles(values), strict=True))
        for name, values in results.qualities.items()
    }
    about = summary[first]
    total = (
        f'{count(len(rows), "image")}; {first} from {about["lowest"]:.3f} to '
        f'{about["highest"]:.3f}, median {about["median"]:.3f}. No value says by itself whether a '
        'face is good\nenough: compare within a set, or let mmvlr calibrate set a limit.'
    )
    shown = [row | dict(size=round(row['size'])) if 'size' in row else row for row in rows]
    text = paragraphs(
        table(['name', *results.qualities], shown), explain(results.qualities), total, note, told
    )
    return Outcome(document, text, code)


def explain(names: Iterable[str]) -> str:
    """Return what measures of quality mean, a line each."""
    return '\n'.join(f'{name:7} {LEGEND[name]}' for name in names if name in LEGEND)


def quantiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the lowest, the median and the highest of some values."""
    ordered = sorted(map(float, values))
    return ordered[0], median(ordered), ordered[-1]


def run_verify(args: argparse.Namespace) -> Outcome:
    """Compare two images."""
    inferencer = load_inferencer(args)
    from mmvlr.identification import Identifier

    result = Identifier(inferencer).verify(args.first, args.second)
    first, second = result.faces.names
    document = dict(similarity=result.similarity, first=first, second=second)
    qualities = result.faces.qualities
    document['qualities'] = {name: values.tolist() for name, values in qualities.items()}
    text = f'similarity {result.similarity:.4f}'
    left, told, code = left_out(result.faces)
    document |= left
    if args.threshold is not None:
        alike = result.similarity > args.threshold
        document |= dict(threshold=args.threshold, match=alike)
        text += f', {"above" if alike else "not above"} the threshold {args.threshold:g}'
        code = DONE if alike else NO_MATCH
    rows = [
        row | dict(size=round(row['size'])) if 'size' in row else row for row in result.faces.rows()
    ]
    return Outcome(document, paragraphs(text, table(['name', *qualities], rows), told), code)
