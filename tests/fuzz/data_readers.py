"""Readers of what data sets and preparation read: label files, indexes, records of earlier runs."""

import io
import json
import pickle
import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from .mutations import hostile_value, mutate_bytes, mutate_value


@contextmanager
def folder_of(path: Path, name: str) -> Iterator[Path]:
    """Put a file under the name that it must have into a folder that is named for it."""
    with tempfile.TemporaryDirectory(prefix=path.name, dir=path.parent) as folder:
        Path(folder, name).write_bytes(path.read_bytes())
        yield Path(folder)


# Label files ----------------------------------------------------------------------------------


@cache
def mat_seed() -> bytes:
    """Return a file of format 5, not compressed, with a list of names, of numbers and of pairs."""
    from scipy.io import savemat

    file = io.BytesIO()
    names = np.array([[f'{n}_1.jpg'] for n in range(4)], object)
    pairs = np.array([['1_1.jpg', '1_2.jpg'], ['2_1.jpg', '\u00e9_1.jpg']], object)
    ids = np.arange(4)[:, None]
    savemat(file, dict(x_set=names, x_ids=ids.astype(float), pairs=pairs, other=ids))
    return file.getvalue()


def make_mat(rng: Random) -> bytes:
    """Return a malformed file; a part of them is right up to what is compressed in it."""
    head, body = mat_seed()[:128], mat_seed()[128:]
    if rng.random() < 0.3:
        packed = zlib.compress(mutate_bytes(rng, body))
        return head + struct.pack('<II', 15, len(packed)) + packed
    return head + mutate_bytes(rng, body) if rng.random() < 0.8 else mutate_bytes(rng, mat_seed())


def read_mat(path: Path) -> None:
    """Read the lists as TinyFace and QMUL-SurvFace do."""
    from mmvlr.datasets.pairs_files import has_prefix, prefix_identity, read_name_pairs, read_pairs

    for name in read_pairs(path, 'x_set', 'x_ids'):
        if has_prefix(name):
            prefix_identity(name)
    read_name_pairs(path, 'pairs')


def make_landmarks(rng: Random) -> bytes:
    """Return a malformed list of landmarks."""
    line = ['001_frontal.jpg', *['51', '69', '73', '70', '62', '77', '62', '90']]
    odd = [str(value) for value in mutate_value(rng, line)]
    text = '\n'.join(rng.choice(' \t,;').join(line) for line in (line, ['b', *odd[1:]], odd))
    data = text.encode(errors='replace')
    return mutate_bytes(rng, data) if rng.random() < 0.3 else data


def read_landmarks(path: Path) -> None:
    """Read a list of landmarks and find the points of an image in it."""
    from mmvlr.preparation.landmarks import LandmarkAligner, read_landmarks

    LandmarkAligner(read_landmarks(path), 112).find_entry('001_frontal.jpg')


# Data sets in one file ------------------------------------------------------------------------


@cache
def png() -> bytes:
    """Return a small image."""
    file = io.BytesIO()
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(file, 'PNG')
    return file.getvalue()


@cache
def recordio_seed() -> tuple[bytes, list[list[int]]]:
    """Return a .rec file and the lines of its index: a header, images, records of the people."""
    contents = [struct.pack('<IfQQ2f', 2, 0, 0, 0, 4, 6)]
    contents += [struct.pack('<IfQQ', 0, n, 0, 0) + png() for n in range(3)]
    contents += [struct.pack('<IfQQ2f', 2, 0, 0, 0, 1, 2)] * 2
    rec, lines = b'', []
    for key, content in enumerate(contents):
        lines.append([key, len(rec)])
        rec += struct.pack('<II', 0xCED7230A, len(content)) + content + bytes(-len(content) % 4)
    return rec, lines


def _index(lines: list) -> bytes:
    if not all(isinstance(line, list) for line in lines):
        raise ValueError('no lines')
    return '\n'.join('\t'.join(map(str, line)) for line in lines).encode(errors='replace')


def make_recordio(rng: Random) -> bytes:
    """Return a malformed .rec file; in some the header record tells of odd numbers."""
    rec = recordio_seed()[0]
    if rng.random() < 0.3:
        odd = [rng.choice((0, -1, 1, 2.5, 4, 6, 1e12, 3e38, float('inf'), float('nan')))]
        return rec[:32] + struct.pack('<2f', *odd, rng.choice((6, *odd))) + rec[40:]
    return mutate_bytes(rng, rec)


def make_recordio_index(rng: Random) -> bytes:
    """Return a malformed .idx file: numbers, or bytes."""
    lines = recordio_seed()[1]
    if rng.random() < 0.7:
        return _index(mutate_value(rng, lines))
    return mutate_bytes(rng, _index(lines))


def read_recordio(path: Path) -> None:
    """Read all of the records of two files, of which one is malformed."""
    from mmvlr.datasets.storage import RecordIOReader

    rec, lines = recordio_seed()
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        other = Path(folder, path.name).with_suffix('.idx' if path.suffix == '.rec' else '.rec')
        other.write_bytes(_index(lines) if path.suffix == '.rec' else rec)
        files = (path, other) if path.suffix == '.rec' else (other, path)
        try:
            reader = RecordIOReader(*files)
            keys = reader.image_keys()
            reader.first_labels(keys)
            for key in keys.tolist():
                reader.image(str(key))
        except ValueError as error:
            # What is wrong with one file may be found in the other: either name will do.
            if str(other) in str(error):
                raise ValueError(f'{path}: {error}') from error
            raise


@cache
def pack_seed() -> bytes:
    """Return a pack of images and another file."""
    from mmvlr.datasets.storage import write_pack

    image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    with tempfile.TemporaryDirectory() as folder:
        items = [('1/a.png', image), ('2/b.png', image + 1), ('1/x.txt', b'text'), ('y.m', b'')]
        return write_pack(Path(folder, 'x.pack'), items, ['3']).path.read_bytes()


def make_pack(rng: Random) -> bytes:
    """Return a pack with another index and checksums that hold, or with other bytes."""
    content = pack_seed()
    if rng.random() < 0.2:
        return mutate_bytes(rng, content)
    start = struct.unpack_from('<Q', content, 12)[0]
    index = json.dumps(mutate_value(rng, json.loads(content[start:]))).encode()
    index = mutate_bytes(rng, index) if rng.random() < 0.2 else index
    facts = struct.pack('<8sIQQI', b'MMVLRPAK', 1, start, len(index), zlib.crc32(index))
    return facts + struct.pack('<I', zlib.crc32(facts)) + content[36:start] + index


def read_pack(path: Path) -> None:
    """Read all of a pack, and as a data set."""
    from mmvlr.datasets import FaceFolder
    from mmvlr.datasets.storage import PackReader

    reader = PackReader(path)
    for name in reader:
        reader[name]
    for name in reader.files:
        reader.read_file(name)
    FaceFolder(str(path), lazy_init=True).load_data_list()


def make_bin(rng: Random) -> bytes:
    """Return a malformed verification file of insightface's."""
    content = [png()] * 4, [True, False]
    if rng.random() < 0.5:
        content = mutate_value(rng, content)
        return pickle.dumps(content, rng.randrange(5))
    return mutate_bytes(rng, pickle.dumps(content, rng.randrange(5)))


def read_bin(path: Path) -> None:
    """Read all images of a verification file."""
    from mmvlr.datasets.storage import BinReader

    reader = BinReader(path)
    for number in range(len(reader)):
        reader.image(str(number))


# Records of preparation -----------------------------------------------------------------------


@cache
def recipe_facts() -> dict:
    """Return what ``alignment.json`` holds."""
    from mmvlr.datasets.alignment import AlignmentRecipe

    recipe = AlignmentRecipe(detector='a detector 1.0')
    facts = dict(recipe=asdict(recipe), digest=recipe.digest, name=recipe.name)
    return json.loads(json.dumps(facts | dict(images=2, fallbacks=1, unreadable=0)))


def _dump(rng: Random, value: object) -> bytes:
    data = json.dumps(value).encode()
    return mutate_bytes(rng, data) if rng.random() < 0.2 else data


def make_alignment(rng: Random) -> bytes:
    """Return a malformed ``alignment.json``."""
    return _dump(rng, mutate_value(rng, recipe_facts()))


def read_alignment(path: Path) -> None:
    """Find how a folder was aligned."""
    from mmvlr.datasets.alignment import RECIPE_FILE, find_alignment

    with folder_of(path, RECIPE_FILE) as folder:
        find_alignment(folder).describe()


def make_alignment_table(rng: Random) -> bytes:
    """Return a malformed ``alignment.csv``."""
    from mmvlr.datasets.alignment import COLUMNS

    rows = [COLUMNS, ['a.png', '0', '0.9', *['1.5'] * 10, '12'], ['b', '1', '0', *[''] * 10, '3']]
    if rng.random() < 0.7:
        row = rng.choice(rows)
        row = rows[rows.index(row)] = list(row)
        row[rng.randrange(len(row))] = str(hostile_value(rng))
    text = '\n'.join(','.join(row) for row in rows) + '\n'
    data = text.encode(errors='replace')
    return mutate_bytes(rng, data) if rng.random() < 0.5 else data


def read_alignment_table(path: Path) -> None:
    """Say how two images were aligned."""
    from mmvlr.datasets.alignment import RECIPE_FILE, TABLE_FILE, find_alignment

    with folder_of(path, TABLE_FILE) as folder:
        Path(folder, RECIPE_FILE).write_text(json.dumps(recipe_facts()))
        find_alignment(folder).describe([folder / 'a.png', folder / 'b'])


HEADER = dict(source='x', recipe=dict(size=112))
ENTRY = dict(file='a.png', stamp=[1, 2], confidence=0.5, landmarks=[[1.0, 2.0]] * 5, sha256='0')


def make_journal(rng: Random) -> bytes:
    """Return a malformed journal of an alignment."""
    lines = [HEADER, ENTRY, ENTRY]
    place = rng.choice((0, 1, 1, 1, 2, 2))
    lines[place] = mutate_value(rng, lines[place])
    return b''.join(_dump(rng, line) + b'\n' for line in lines)


def read_journal(path: Path) -> None:
    """Read a journal as a resumed alignment does, and use what is in it."""
    from mmvlr.preparation.align_tree import Entry, make_row
    from mmvlr.utils.work import Journal

    journal = Journal(path, HEADER, 'file', Entry)
    journal.close()
    for entry in journal.found.values():
        make_row(entry)


def make_notes(rng: Random) -> bytes:
    """Return malformed notes of the files that mmvlr wrote."""
    header = dict(mmvlr='files that mmvlr wrote into this folder')
    lines = [header, *(dict(file=name, tool='a') for name in ('x', 'a/b', 'c'))]
    place = rng.choice((0, 1, 1, 2, 2))
    lines[place] = mutate_value(rng, lines[place])
    return b''.join(_dump(rng, line) + b'\n' for line in lines)


def read_notes(path: Path) -> None:
    """Remove what the notes name: nothing beside the folder may go."""
    from mmvlr.utils.outputs import NOTES_FILE, OutputFolder

    with folder_of(path, NOTES_FILE) as folder, OutputFolder(folder, 'a') as output:
        output.remove()
    if not path.exists():
        raise AssertionError(f'{path}: removed')


def make_preset(rng: Random) -> bytes:
    """Return a malformed preset of a degradation."""
    from mmvlr.datasets.transforms.presets import PRESETS

    preset = json.loads(json.dumps(rng.choice(list(PRESETS.values()))))
    return _dump(rng, mutate_value(rng, dict(parameters=preset)))


def read_preset(path: Path) -> None:
    """Degrade an image by a preset."""
    from mmvlr.datasets.transforms import VLRDegradation

    results = dict(img=np.full((64, 64, 3), 99, np.uint8), rng=np.random.default_rng(0))
    VLRDegradation(str(path))(results)
