"""Readers that fail in every way, to see that the fuzzer sees it."""

import ctypes
import time

from .readers import Reader


def _raise(error):
    def read(path):
        raise error(f'{path}: odd') if error is not ValueError else error('odd')

    return read


def _hang(path):
    while True:
        time.sleep(1)


def _make(rng):
    return b'x'


READERS = {
    'good': Reader('.x', _make, lambda path: path.read_bytes()),
    'refusing': Reader('.x', _make, _raise(FileNotFoundError)),
    'bare': Reader('.x', _make, _raise(KeyError)),
    'unnamed': Reader('.x', _make, _raise(ValueError)),
    'memory': Reader('.x', _make, lambda path: bytearray(2**27), memory=2**26),
    'crash': Reader('.x', _make, lambda path: ctypes.string_at(0)),
    'hang': Reader('.x', _make, _hang),
}
