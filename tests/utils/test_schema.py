"""Hostile JSON ends every reader with an error that names the file."""

import json

import pytest

from mmvlr.cli.programs.summarize import read_group
from mmvlr.datasets.alignment import RECIPE_FILE, find_alignment
from mmvlr.datasets.transforms.presets import read_preset
from mmvlr.identification import Decision
from mmvlr.models.quality.calibration import IsotonicCalibration
from mmvlr.preparation.degrading import RECORD, record_settings
from mmvlr.utils.outputs import OutputFolder
from mmvlr.utils.schema import load_json
from mmvlr.utils.work import Journal


def read_record(path):
    with OutputFolder(path.parent, 'degrade') as output:
        output.adopt([RECORD])
        record_settings(output, dict(seed=0))


READERS = {
    'preset.json': read_preset,
    RECIPE_FILE: lambda path: find_alignment(path.parent),
    'calibration.json': IsotonicCalibration.load,
    'decision.json': Decision.load,
    'result.json': lambda path: read_group(f'ours={path}'),
    RECORD: read_record,
    'journal.jsonl': lambda path: Journal(path, {}, 'file'),
}


@pytest.mark.parametrize('name', READERS)
@pytest.mark.parametrize(
    'value', ['[' * 100_000, '[' * 99 + ']' * 99, '1e999', '1' + '0' * 400, 'NaN', '"', '\udcff']
)
def test_hostile_json_names_the_file(tmp_path, name, value):
    text = f'{{"parameters": {{"noise": {{"read": {value}}}}}, "recipe": {value}}}\n'
    (tmp_path / name).write_bytes(text.encode(errors='surrogateescape'))
    with pytest.raises(ValueError, match=name):
        READERS[name](tmp_path / name)


@pytest.mark.parametrize(
    'value', [[], {'a': [1, -2.5, None, True, 'x']}, 10**21, 1.7e308, [[[[1]]]], 'Zo\xeb']
)
def test_other_json_is_what_it_was(value):
    text = json.dumps(value)
    assert load_json(text.encode()) == load_json(b'\xef\xbb\xbf' + text.encode()) == value
