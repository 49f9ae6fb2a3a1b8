"""The readers that are fuzzed: how a malformed file of each is made, and how it is read.

A reader is added by one entry of :data:`READERS`. Files are made of a seed alone, in the process
that reads them, so that a failure can be made again.
"""

import hashlib
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from . import data_readers as data
from .mutations import mutate_bytes, mutate_value


class Reader(NamedTuple):
    """A reader.

    Args:
        suffix: Of its files.
        make: From a random generator to the bytes of a malformed file.
        read: From the path to whatever; an error must name the file.
        memory: Most bytes that reading may take.
    """

    suffix: str
    make: Callable[[Random], bytes]
    read: Callable[[Path], Any]
    memory: int = 2**29


# Images ---------------------------------------------------------------------------------------

FORMATS = [
    *(('PNG', mode, {}) for mode in ('RGB', 'RGBA', 'L', 'P', '1', 'I;16')),
    ('JPEG', 'RGB', {}),
    ('JPEG', 'RGB', dict(progressive=True)),
    ('JPEG', 'CMYK', {}),
    ('BMP', 'RGB', {}),
    ('BMP', 'P', {}),
    ('GIF', 'P', {}),
    *(('TIFF', 'RGB', dict(compression=c)) for c in (None, 'tiff_lzw', 'jpeg', 'tiff_deflate')),
    ('TIFF', 'YCbCr', {}),
    ('WEBP', 'RGB', dict(lossless=True)),
    ('WEBP', 'RGBA', {}),
    ('AVIF', 'RGB', {}),
    *((kind, 'RGB', {}) for kind in ('JPEG2000', 'PPM', 'ICO', 'TGA', 'PCX', 'SGI')),
]


@cache
def image_seeds() -> list[bytes]:
    """Return small images in all formats that this Pillow writes."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, 20, 3), np.uint8)
    seeds = []
    for kind, mode, options in FORMATS:
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257 if ';' in mode else pixels)
        content = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6
        options = dict(options, exif=exif) if kind in ('JPEG', 'PNG', 'WEBP') else options
        try:
            (image if ';' in mode else image.convert(mode)).save(content, kind, **options)
        except (KeyError, OSError):
            continue
        seeds.append(content.getvalue())
    return seeds


def make_image(rng: Random) -> bytes:
    """Return a malformed image."""
    return mutate_bytes(rng, rng.choice(image_seeds()))


def read_image(path: Path) -> None:
    """Read an image as the inferencer does."""
    from mmvlr.datasets.transforms import read_image

    read_image(str(path), upright=True)


# Models ---------------------------------------------------------------------------------------

BACKBONE = dict(type='MobileFaceNet', input_size=32, embed_dims=8, stem_channels=4)
BACKBONE |= dict(stages=[[8, 4, 1, 2], [8, 4, 1, 2]], last_channels=8)


@cache
def model() -> Any:
    """Return a tiny recognizer."""
    from mmvlr.models import FaceRecognizer

    preprocessor = dict(type='FaceDataPreprocessor', size=(32, 32))
    found = FaceRecognizer(dict(BACKBONE), data_preprocessor=preprocessor).eval()
    found.source_config = dict(type='FaceRecognizer', backbone=dict(BACKBONE))
    return found


def make_checkpoint(rng: Random) -> bytes:
    """Return a malformed checkpoint: values, pickle, or bytes changed."""
    contract = model().data_preprocessor.contract
    state = {f'backbone.{key}': value for key, value in model().backbone.state_dict().items()}
    cfg = f'model = dict(type="FaceRecognizer", backbone=dict({_arguments(BACKBONE)}))'
    told = dict(architecture=dict(BACKBONE)) if rng.random() < 0.5 else dict(cfg=cfg)
    content = dict(state_dict=state, meta=dict(preprocessing=contract, epoch=3, **told))
    kind = rng.randrange(5)
    if kind < 3:
        part = rng.choice(('meta', 'meta', 'meta', 'all', 'cfg', 'weight', 'references'))
        if part == 'meta':
            content['meta'] = mutate_value(rng, content['meta'])
        elif part == 'all':
            content = mutate_value(rng, content)
        elif part == 'cfg':
            cfg = mutate_bytes(rng, cfg.encode()).decode(errors='replace')
            content['meta'] = dict(cfg=cfg, preprocessing=contract)
        elif part == 'weight':
            key = rng.choice(list(state))
            odd = [value.to(torch.complex64) for value in (state[key],)]
            odd += [state[key].double() * float('nan'), torch.zeros(1).expand(10**9), 'text', None]
            odd += [torch.zeros(2, 3).to_sparse(), torch.empty(3, device='meta'), state[key].bool()]
            content['state_dict'] = {**state, key: rng.choice(odd)}
        else:
            repeated: Any = ['x']
            for _ in range(rng.choice((5, 60))):
                repeated = rng.choice((list, tuple))([repeated] * rng.choice((2, 10)))
            content['meta'][rng.choice(('architecture', 'preprocessing', 'cfg', 'x'))] = repeated
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=rng.random() < 0.8)
    if kind == 3:
        return _rezip(rng, file.getvalue())
    return mutate_bytes(rng, file.getvalue()) if kind == 4 else file.getvalue()


def _arguments(values: dict) -> str:
    return ', '.join(f'{key}={value!r}' for key, value in values.items())


def _rezip(rng: Random, data: bytes) -> bytes:
    """Change the pickle or another entry inside of a zip archive, whose checksums then hold."""
    if not data.startswith(b'PK'):
        return mutate_bytes(rng, data)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, 'w') as new:
        changed = rng.choice([n for n in old.namelist() if n.endswith(('.pkl', '.npy', '/0'))])
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, mutate_bytes(rng, content) if name == changed else content)
    return out.getvalue()


def read_model(path: Path) -> None:
    """Load a model and embed a face with it."""
    from mmvlr.apis import FaceInferencer

    FaceInferencer(str(path), 'cpu').embed(np.zeros((9, 9, 3), np.uint8))


def make_safetensors(rng: Random) -> bytes:
    """Return published weights with other metadata and a digest that holds, or other bytes."""
    from mmvlr.apis.exported import METADATA, digest_weights
    from mmvlr.apis.network import fingerprint_model

    state = {k: v.contiguous() for k, v in model().state_dict().items()}
    metadata: Any = dict(format=1, mmvlr_version='1', name='n', license='MIT')
    metadata |= dict(identity=fingerprint_model(model()), config=dict(model().source_config))
    if rng.random() < 0.7:
        metadata = mutate_value(rng, metadata)
        if isinstance(metadata, dict):
            # Written in the file's own way, so that nothing but the change is wrong with it.
            metadata = json.loads(json.dumps(metadata))
            metadata['sha256'] = digest_weights(state, metadata)
        return save(state, {METADATA: json.dumps(metadata)})
    metadata['sha256'] = digest_weights(state, metadata)
    return mutate_bytes(rng, save(state, {METADATA: json.dumps(metadata)}))


@cache
def onnx_seed() -> tuple[bytes, dict[str, Any]]:
    """Return an ONNX file that takes the mean color, without metadata, and its metadata."""
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node('Cast', ['faces'], ['floats'], to=TensorProto.FLOAT),
        helper.make_node('ReduceMean', ['floats', 'axes'], ['embedding'], keepdims=0),
        helper.make_node('ReduceL2', ['embedding', 'last'], ['norm'], keepdims=0),
    ]
    outputs = [
        helper.make_tensor_value_info('embedding', TensorProto.FLOAT, ['batch', 3]),
        helper.make_tensor_value_info('norm', TensorProto.FLOAT, ['batch']),
    ]
    inputs = [helper.make_tensor_value_info('faces', TensorProto.UINT8, ['batch', 32, 32, 3])]
    constants = [helper.make_tensor('axes', TensorProto.INT64, [2], [1, 2])]
    constants += [helper.make_tensor('last', TensorProto.INT64, [1], [1])]
    graph = helper.make_graph(nodes, 'mean', inputs, outputs, constants)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=9)
    contract = model().data_preprocessor.contract
    identity = dict(weights='0', preprocessing=contract, embedding=dict(dims=3))
    told = dict(format='1', name='n', license='MIT', identity=identity, contract=contract)
    return proto.SerializeToString(), dict(told, outputs=['embedding', 'norm'])


def make_onnx(rng: Random) -> bytes:
    """Return an export with other metadata and a checksum that holds."""
    import onnx

    from mmvlr.apis.exported import SEAL

    content, metadata = onnx_seed()
    metadata = mutate_value(rng, metadata)
    proto = onnx.ModelProto.FromString(content)
    entries = metadata if isinstance(metadata, dict) else dict(format=metadata)
    for key, value in entries.items():
        text = value if isinstance(value, str) else json.dumps(value)
        entry = proto.metadata_props.add()
        entry.key, entry.value = (
            t.encode(errors='replace').decode() for t in (f'mmvlr.{key}', text)
        )
    data = proto.SerializeToString()
    return data + SEAL + hashlib.sha256(data).hexdigest().encode()


# Tables ---------------------------------------------------------------------------------------


def make_table(rng: Random) -> bytes:
    """Return a table of embeddings with a field of another kind, or with other bytes."""
    meta: Any = dict(identity=dict(weights='0'), failures=[['a', 'b']], unaligned=['c'])
    if rng.random() < 0.4:
        meta = mutate_value(rng, meta)
    fields: dict[str, Any] = dict(
        embedding=np.ones((4, 3), np.float32),
        role=np.array(['gallery', 'probe', 'pair', 'pair']),
        identity=np.arange(4),
        name=np.array(['a', 'b', 'c', 'd']),
        norm=np.ones(4),
        pairs=np.array([[2, 3]]),
        same=np.array([True]),
        meta=np.array(json.dumps(meta)),
    )
    if rng.random() < 0.7:
        key = rng.choice(list(fields))
        value = fields.pop(key)
        kind = rng.choice(['S3', 'U9', 'i1', 'u8', 'f2', 'c8', 'b', 'M8[s]', '>f4', 'V4', 'drop'])
        if kind != 'drop':
            try:
                value = value.astype(kind)
            except (ValueError, TypeError):
                value = np.zeros(value.shape, kind)
            shape = rng.choice([value.shape, (), (0,), (4,), (4, 0), (1, 4, 3), (5, 3)])
            fields[key] = np.resize(value, shape) if value.size else np.zeros(shape, kind)
    file = io.BytesIO()
    (np.savez_compressed if rng.random() < 0.3 else np.savez)(file, **fields)
    if rng.random() < 0.5:
        return rng.choice((_rezip, mutate_bytes))(rng, file.getvalue())
    return file.getvalue()


def read_table(path: Path) -> None:
    """Read a table in each way that there is; the first error counts."""
    from mmvlr.evaluation import FaceTable

    table = FaceTable.load(path)
    if len(table):
        pickle.dumps(
            (table.qualities, table.groups, table.only('probe'), table.meta, table.failures)
        )


READERS = {
    'image': Reader('.jpg', make_image, read_image, memory=2**30 + 2**27),
    'checkpoint': Reader('.pth', make_checkpoint, read_model),
    'safetensors': Reader('.safetensors', make_safetensors, read_model),
    'onnx': Reader('.onnx', make_onnx, read_model),
    'table': Reader('.npz', make_table, read_table),
    'mat': Reader('.mat', data.make_mat, data.read_mat),
    'landmarks': Reader('.txt', data.make_landmarks, data.read_landmarks),
    'recordio': Reader('.rec', data.make_recordio, data.read_recordio),
    'recordio_index': Reader('.idx', data.make_recordio_index, data.read_recordio),
    'pack': Reader('.pack', data.make_pack, data.read_pack),
    'bin': Reader('.bin', data.make_bin, data.read_bin),
    'alignment': Reader('.json', data.make_alignment, data.read_alignment),
    'alignment_table': Reader('.csv', data.make_alignment_table, data.read_alignment_table),
    'journal': Reader('.jsonl', data.make_journal, data.read_journal),
    'notes': Reader('.jsonl', data.make_notes, data.read_notes),
    'preset': Reader('.json', data.make_preset, data.read_preset),
}
