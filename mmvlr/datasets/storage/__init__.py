"""Data sets in one file: packs, insightface's RecordIO and .bin files."""

from .decoding import ImageError
from .lfw_bin import BinReader
from .pack import PackReader, write_pack
from .paths import PackPath, data_path, file_status, locate, open_stored
from .recordio import RecordIOReader

__all__ = [
    'BinReader',
    'ImageError',
    'PackPath',
    'PackReader',
    'RecordIOReader',
    'data_path',
    'file_status',
    'locate',
    'open_stored',
    'write_pack',
]
