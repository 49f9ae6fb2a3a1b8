"""The table of several result files."""

import json
import subprocess
import sys


def summarize(root, *args):
    command = [sys.executable, str(root / 'tools/analysis/summarize.py'), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_mean_and_range(root, tmp_path):
    for seed, rank1 in enumerate((0.25, 0.5, 0.75)):
        result = {'tinyface/rank1': rank1, 'tinyface/discard_auc_ri': rank1 / 2}
        (tmp_path / f'{seed}.json').write_text(json.dumps(result), encoding='utf-8')
    files = ','.join(str(tmp_path / f'{seed}.json') for seed in range(3))
    found = summarize(root, f'a={files}', f'b={tmp_path / "0.json"}')
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines() == [
        '| metric | a (3) | b (1) |',
        '|---|---:|---:|',
        '| tinyface/rank1 (%) | 50.00 (25.00 to 75.00) | 25.00 |',
        '| tinyface/discard_auc_ri | 0.250 (0.125 to 0.375) | 0.125 |',
    ]


def test_missing_file_is_named(root, tmp_path):
    found = summarize(root, f'a={tmp_path / "absent.json"}')
    assert found.returncode == 1
    assert 'absent.json' in found.stderr
    assert not found.stdout


def test_intervals_stand_with_their_number(tool, tmp_path, capsys):
    files = []
    for seed, value in enumerate((0.5, 0.7)):
        result = {'tinyface/rank1': value, 'tinyface/rank1_low': value - 0.2}
        result['tinyface/rank1_high'] = value + 0.1
        files.append(tmp_path / f'{seed}.json')
        files[-1].write_text(json.dumps(result))
    assert tool('analysis/summarize.py').main([f'ours={files[0]},{files[1]}']) == 0
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 3
    assert rows[2] == '| tinyface/rank1 (%) | 60.00 (50.00 to 70.00) [40.00, 70.00] |'
