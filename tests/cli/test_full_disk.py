"""A disk without room ends every command that writes with one line that names the file."""

import json
import os
import subprocess
import sys
import tempfile

import pytest

# No file may grow beyond so many bytes, as on a disk without room; pipes may.
RUN = """
import contextlib, io, json, resource, signal, sys, traceback
import torch, mmvlr.apis.export, mmvlr.preparation, mmvlr.reports
from mmvlr.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
for argv in json.loads(sys.argv[2]):
    with contextlib.redirect_stderr(io.StringIO()) as told:
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                code = main(argv)
            except BaseException:
                code = traceback.format_exc()
    print(json.dumps([code, told.getvalue()]), flush=True)
"""
VERBS = {
    'enroll': '{out}/gallery {people} --model {model} --device cpu',
    'embed': '{people} --out {out}/a.npz --model {model} --device cpu',
    'export': '{model} {out}/a.safetensors --license MIT',
    'pack': '{people} {out}/a.pack',
    'align': '{people} {out}/aligned --landmarks {list}',
    'degrade': '{people} {out}/lr --preset tinyface',
    'train': 'demo/riface_synthetic --work-dir {out}/work --max-iters 1',
}


@pytest.mark.slow
@pytest.mark.parametrize('size', [0, 1000, 20_000])
def test_one_line_names_the_file(root, model, faces, tmp_path, size):
    points = '5 5 10 5 8 8 8 10'
    images = sorted((faces / 'people').rglob('*.png'))
    (tmp_path / 'list').write_text(''.join(f'{path.name} {points}\n' for path in images[:2]))
    out = tmp_path / 'out'
    out.mkdir()
    places = dict(out=out, people=images[0].parent, model=model, list=tmp_path / 'list')
    places['people'] = tmp_path / 'people'
    (tmp_path / 'people').symlink_to(images[0].parent.parent)
    lines = [[verb, *text.format(**places).split()] for verb, text in VERBS.items()]
    # One folder of images, as names in the list of landmarks are without folders.
    lines[4][1] = str(tmp_path / 'one')
    if size == 20_000:
        # Room for a copy of the config, and for no checkpoint.
        lines = lines[-1:]
    (tmp_path / 'one').symlink_to(images[0].parent)
    done = subprocess.run(
        [sys.executable, '-c', RUN, str(size), json.dumps(lines)],
        env={**os.environ, 'PYTHONPATH': str(root), 'OMP_NUM_THREADS': '1'},
        **dict(cwd=tmp_path, capture_output=True, text=True, check=True),
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    for (verb, *_), (code, told) in zip(lines, found, strict=True):
        assert code == 1, (verb, code, told)
        (last,) = (line for line in told.splitlines() if line.startswith('mmvlr '))
        assert last.startswith(f'mmvlr {verb}: ')
        # To be read, a config is copied into the folder of temporary files.
        assert str(out) in last or (verb == 'train' and tempfile.gettempdir() in last), told
        assert 'Traceback' not in told
