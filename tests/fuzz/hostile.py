"""Twelve small files that ask for gigabytes or hours, and what reading them costs.

``python tests/fuzz/hostile.py write FOLDER`` makes them; ``... read FILE ...`` prints for each what
became of it, its seconds and its peak of memory, with whatever mmvlr is on ``PYTHONPATH``.
"""

import argparse
import io
import json
import pickle
import resource
import struct
import time
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

_MB = 2**20


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', checksum)


def blank_png(width: int, height: int, bits: int) -> bytes:
    """Return a gray PNG of zeros."""
    packer = zlib.compressobj(9)
    row = bytes(1 + (width * bits + 7) // 8)
    packed = b''.join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = struct.pack('>IIBBBBB', width, height, bits, 0, 0, 0, 0)
    parts = _chunk(b'IHDR', head), _chunk(b'IDAT', packed), _chunk(b'IEND', b'')
    return b'\x89PNG\r\n\x1a\n' + b''.join(parts)


def icon(png: bytes) -> bytes:
    """Return an icon whose directory says 16 x 16 of the PNG in it."""
    return (
        struct.pack('<HHH', 0, 1, 1)
        + struct.pack('<BBBBHHII', 16, 16, 0, 0, 1, 8, len(png), 22)
        + png
    )


def blank_webp(side: int) -> bytes:
    """Return a lossless WebP of one color, which takes no bits a pixel."""
    from PIL import Image

    file = io.BytesIO()
    Image.new('RGB', (16, 16), (9, 9, 9)).save(file, 'WEBP', lossless=True)
    content = bytearray(file.getvalue())
    place = content.index(b'VP8L') + 9
    (bits,) = struct.unpack_from('<I', content, place)
    bits = bits >> 28 << 28 | (side - 1) << 14 | side - 1
    struct.pack_into('<I', content, place, bits)
    return bytes(content)


def zip_of_zeros(name: str, start: bytes, blocks: int, others: dict[str, bytes]) -> bytes:
    """Return a zip archive with ``start`` and ``blocks`` times 16 MB of zeros in an entry."""
    zeros = bytes(16 * _MB)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    packed = first + block * blocks + b'\x03\x00'
    checksum = zlib.crc32(start)
    for _ in range(blocks):
        checksum = zlib.crc32(zeros, checksum)
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as archive:
        for other, content in others.items():
            archive.writestr(other, content)
        # Stored first, then said to be deflated: zipfile would pack all of it by itself.
        place = file.tell()
        archive.writestr(name, packed)
        info = archive.getinfo(name)
        info.compress_type, info.CRC = zipfile.ZIP_DEFLATED, checksum
        info.file_size = len(start) + blocks * len(zeros)
        end = file.tell()
        file.seek(place)
        file.write(info.FileHeader(zip64=False))
        file.seek(end)
    return file.getvalue()


def _npy_head(shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, dict(descr='<f4', fortran_order=False, shape=shape))
    return file.getvalue()


CONTRACT = dict(
    size=[112, 112],
    interpolation='bicubic',
    color_order='RGB',
    mean=[127.5] * 3,
    std=[127.5] * 3,
    alignment='none',
)


def checkpoint(content: Any) -> bytes:
    """Return plain values as torch's zip file."""
    data = content if isinstance(content, bytes) else pickle.dumps(content, 2)
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as archive:
        archive.writestr('archive/data.pkl', data)
        archive.writestr('archive/version', '3\n')
    return file.getvalue()


def repeated_key() -> bytes:
    """Return a pickle of a dict whose key is a tuple of 60 pairs that hold each other twice."""
    pairs = b''.join(b'h%c\x86q%c' % (n, n + 1) for n in range(1, 61))
    return b'\x80\x02}q\x00(X\x01\x00\x00\x00a\x85q\x01' + pairs + b'K\x01u.'


def with_architecture(architecture: Any, **meta: Any) -> bytes:
    """Return a checkpoint of a converter."""
    meta = dict(preprocessing=CONTRACT, architecture=architecture) | meta
    return checkpoint(dict(state_dict={}, meta=meta))


def published(size: int) -> bytes:
    """Return published weights that hold together and state faces of ``size`` pixels."""
    from safetensors.torch import save

    try:
        from mmvlr.apis.exported import digest_weights
    except ImportError:
        from mmvlr.apis.export import _digest as digest_weights
    from mmvlr.apis.network import fingerprint_model
    from mmvlr.models import FaceRecognizer

    backbone = dict(type='MobileFaceNet', variant='slim')
    model = FaceRecognizer(backbone)
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    identity = fingerprint_model(model)
    identity['preprocessing'] = dict(CONTRACT, size=[size, size])
    config = dict(type='FaceRecognizer', backbone=backbone)
    metadata = dict(format=1, mmvlr_version='1', name='n', license='MIT', identity=identity)
    metadata |= dict(config=config)
    metadata['sha256'] = digest_weights(state, metadata)
    return save(state, {'mmvlr': json.dumps(metadata)})


def _references() -> Any:
    found: Any = 'x' * 5_000_000
    for _ in range(9):
        found = [found] * 10
    return found


#: Just below the 4 GB from which a zip archive counts in another way.
BLOCKS = 255


def one_weight(count: int) -> bytes:
    """Return the pickle of a state dict with a weight of ``count`` numbers in storage 0."""
    number = struct.pack('<i', count)
    return (
        b'\x80\x02}X\n\0\0\0state_dict}X\1\0\0\0wctorch._utils\n_rebuild_tensor_v2\n('
        b'(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\x000X\3\0\0\0cpuJ' + number + b'tQ'
        b'K\0J' + number + b'\x85K\1\x85\x89ccollections\nOrderedDict\n)RtRss.'
    )


FILES = {
    'one_bit.png': lambda: blank_png(13_370, 13_370, 1),
    'sixteen_bit.png': lambda: blank_png(13_370, 13_370, 16),
    'strip.png': lambda: blank_png(100_000, 4, 8),
    'icon.ico': lambda: icon(blank_png(13_370, 13_370, 1)),
    'one_color.webp': lambda: blank_webp(13_370),
    'zeros.npz': lambda: zip_of_zeros(
        'embedding.npy', _npy_head((BLOCKS * 4 * _MB // 512, 512)), BLOCKS, {}
    ),
    'zeros.pth': lambda: zip_of_zeros(
        'archive/data/0',
        b'',
        BLOCKS,
        {'archive/data.pkl': one_weight(BLOCKS * 4 * _MB), 'archive/version': b'3\n'},
    ),
    'references.pth': lambda: with_architecture(dict(type='MobileFaceNet', x=_references())),
    'key.pth': lambda: checkpoint(repeated_key()),
    'config.pth': lambda: with_architecture(None, cfg=f'model = [{"[]," * 1_700_000}]'),
    'channels.pth': lambda: with_architecture(dict(type='MobileFaceNet', embed_dims=2_000_000)),
    'size.safetensors': lambda: published(10**12),
}


def write(folder: Path) -> list[Path]:
    """Write the files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in FILES.items():
        (folder / name).write_bytes(make())
    return [folder / name for name in FILES]


def _read(path: Path, inferencer: type) -> None:
    if path.suffix == '.npz':
        from mmvlr.evaluation import FaceTable

        FaceTable.load(path)
    elif path.suffix in ('.pth', '.safetensors'):
        inferencer(str(path), 'cpu').embed(np.zeros((9, 9, 3), np.uint8))
    elif path.name == 'strip.png':
        from mmvlr.datasets.transforms import read_image
        from mmvlr.preparation.alignment import fallback_face

        # What align makes of an image without a face.
        fallback_face(read_image(str(path), upright=True))
    else:
        from mmvlr.datasets.transforms import read_image

        read_image(str(path), upright=True)


def _status(name: str) -> int:
    return int(Path('/proc/self/status').read_text().split(f'{name}:')[1].split()[0]) * 1024


def read(path: Path, room: int | None = None) -> dict[str, Any]:
    """Read a file in this process; return its error or None, seconds, and bytes at the peak.

    Args:
        path: The file.
        room: Bytes that may be asked for beyond what the process has.
    """
    from mmvlr.apis import FaceInferencer
    from mmvlr.registry import MODELS

    MODELS.import_from_location()
    warnings.simplefilter('ignore')
    Path('/proc/self/clear_refs').write_text('5')
    if room:
        limit = _status('VmSize') + room
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    before, start, error = _status('VmRSS'), time.perf_counter(), None
    try:
        _read(path, FaceInferencer)
    except Exception as raised:
        error = f'{type(raised).__name__}: {raised}'
    memory = max(_status('VmHWM') - before, 0)
    return dict(file=path.name, error=error, seconds=time.perf_counter() - start, memory=memory)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('verb', choices=('write', 'read'))
    parser.add_argument('paths', nargs='+', type=Path)
    parser.add_argument('--room', type=int)
    args = parser.parse_args()
    if args.verb == 'write':
        write(args.paths[0])
    else:
        for path in args.paths:
            print(json.dumps(read(path, args.room)), flush=True)
