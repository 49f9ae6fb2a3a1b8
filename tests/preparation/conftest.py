"""The folders of the data sets' own tests."""

from tests.datasets.conftest import (
    scface_root,
    survface_root,
    tinyface_root,
    write_face,
    write_name_pairs,
    write_pairs,
    write_scface,
)

__all__ = [
    'scface_root',
    'survface_root',
    'tinyface_root',
    'write_face',
    'write_name_pairs',
    'write_pairs',
    'write_scface',
]
