"""No tool touches a file that it did not write: run twice, killed in the middle, gone on with."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field

import numpy as np
import pytest

from mmvlr.utils.io import JOURNAL_FILE
from mmvlr.utils.locks import LOCK_FILE, locked

from ..people import model_file, people_folders

pytestmark = pytest.mark.slow

FOREIGN = (
    *('.env.template', '.notes.personal', '.x.abcdefgh', '.x.abcdefgh.png', '.a.pth.tmp_1234'),
    *('.mmvlr-0123456789abcdef', '.mmvlr-0123456789abcdef.png', '.mmvlr-notes', '~$a.doc'),
    *('.gallery.safetensors.zyxwvuts', '.out.npz.abcdefgh.npz', '.alignment.jsonl.bak'),
    *('gallery_net.safetensors', 'gallery.safetensors', 'faces.pack', 'out.pack.tmp', 'lock'),
    *('journal.jsonl.bak', 'last_checkpoint.bak', 'best.pth', 'epoch_last.pth', 'thesis.tex'),
    *('core', 'manifest.csv.old', 'faces/.notes.personal', 'faces/ui_1.png'),
    *('faces/ui_000099.png', 'vis_data/scalars.json', '.git/config', '.git/HEAD'),
    *('.git/refs/.x.abcdefgh', '.git/objects/ab/cdefghij', '.git/index.lock'),
)

# Imports everything once and forks for each call: (tool, argv, patch, kill) -> (code, text).
SERVER = """
import json, os, re, signal, sys, tempfile
sys.path[:0] = sys.argv[2:]
import matplotlib, torch, mmvlr.apis, mmvlr.cli, mmvlr.preparation.ui_building, mmvlr.web
import mmvlr.apis.export, mmvlr.reports.curve_files, mmvlr.reports.from_run, mmvlr.reports.from_runs
import torchvision, torch._dynamo, torch.utils.tensorboard
import mmengine.config.config, mmengine.runner.runner
torch.set_num_threads(1)
# What takes most of the time of a tiny run, and writes nothing.
mmengine.runner.runner.collect_env = dict
mmengine.config.config.FormatCode = lambda text, **options: (text, True)

def find_verb(name):
    if name == 'mmvlr':
        return []
    with open(os.path.join(sys.argv[1], name)) as file:
        return [re.search("main.{2}'(.+?)'", file.read()).group(1)]

def kill_at(number):
    replace, count = os.replace, [0]
    def patched(source, target):
        count[0] += 1
        if count[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
    os.replace = patched

for line in sys.stdin:
    task = json.loads(line)
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if not child:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            code = 70
            try:
                exec(task['patch'], {})
                kill_at(task['kill'])
                code = mmvlr.cli.main([*find_verb(task['tool']), *task['argv']])
            except SystemExit as error:
                code = error.code
            except BaseException:
                import traceback
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        print(json.dumps([code, said.read().decode(errors='replace')]), flush=True)
"""

FIND_ALL = """
from mmvlr.preparation import ui_building as u
class Find:
    def __init__(self, src, *_): self.src = src
    version = 'none'
    def __call__(self, name):
        return dict(source=name, stamp=u.read_stamp(self.src / name), faces=[[2, 2, 18, 18, 1.0]])
u._FindFaces, u._build_detector = Find, lambda *_: Find
"""
ALIGN_NONE = """
import mmvlr.preparation as p
from mmvlr.datasets.alignment import AlignmentRecipe
from mmvlr.preparation import alignment as a, landmarks
class Aligner:
    def __init__(self, recipe, _): self.size = recipe.size
    def __call__(self, image, name): return a.AlignedFace(a.fallback_face(image, self.size), None)
landmarks.Aligner = Aligner
p.make_recipe = lambda _, size: AlignmentRecipe(size, detector='none')
"""
SMALL_DEMO = """
import mmvlr.reports.from_run as r
from mmvlr.reports.page import write_page
from pathlib import Path
import mmvlr.cli.programs.demo as demo
demo.CONFIG = Path({config!r})
numbers = dict.fromkeys(('rank1', 'pixel_rank1', 'ui_auc_ri', 'error', 'error_best_half'), 1.0)
r.build_report = lambda folder, config: (write_page('page', folder / 'report.html'), numbers)
"""
SMALL_REPORT = """
import mmvlr.reports.from_run as r
r.EvaluatedModel, r.collect_data = lambda *args: None, lambda *args: ('page', {})
r.render_report = lambda data: data
"""
SMALL_SCORE = """
import mmvlr.apis
score = mmvlr.apis.score_faces
mmvlr.apis.score_faces = lambda *args: score(*args, measures=())
"""
SMALL_COMPARISON = """
from mmvlr.utils.io import write_atomic
def write(runs, out, *more):
    for name in ('scores.csv', 'runs.csv', 'report.html'):
        write_atomic(out / name, lambda path: path.write_text('x'))
    return out / 'report.html'
import mmvlr.reports.from_runs as r
r.write_comparison = write
"""


@dataclass
class Case:
    """A tool: how it is called to write into ``{out}``, and the rename at which it is killed."""

    tool: str
    argv: str
    kill: int = 1
    patch: str = ''
    codes: tuple = (0,)
    start: str = ''
    outputs: tuple = field(default=())


CASES = dict(
    align=Case('dataset_converters/align.py', '{base}/faces {out}', 5, ALIGN_NONE),
    build_ui_set=Case(
        'dataset_converters/build_ui_set.py',
        '{base}/faces {out} --layout folder --min-size 1 --max-correlation 2',
        5,
        FIND_ALL,
    ),
    degrade=Case('dataset_converters/degrade.py', '{base}/faces {out} --preset tinyface', 5),
    pack=Case('dataset_converters/pack.py', '{base}/faces {out}/out.pack'),
    prepare=Case('dataset_converters/prepare.py', 'tinyface {out}', codes=(0, 1), start='archive'),
    train=Case('train.py', '{base}/tiny.py --work-dir {out}', 3),
    demo=Case('demo.py', '--work-dir {out}', 3, SMALL_DEMO),
    test=Case(
        'test.py',
        '{base}/tiny.py {base}/run/epoch_1.pth --work-dir {out} --out {out}/result.json',
    ),
    score=Case(
        'analysis/score.py',
        '{base}/tiny.py {base}/run/epoch_1.pth --work-dir {out} --out {out}/out.npz',
        patch=SMALL_SCORE,
    ),
    report=Case('analysis/report.py', '{out}', patch=SMALL_REPORT, start='run'),
    reproduce=Case(
        'reproduce.py',
        '--data tinyface --methods pretrained --ablation none --report-only --out {out}',
        2,
        SMALL_COMPARISON,
        (1,),
    ),
    eval_embeddings=Case(
        'analysis/eval_embeddings.py', '{base}/faces.npz --out {out}/result.json --curves {out}', 2
    ),
    browse=Case('misc/browse_dataset.py', '{base}/tiny.py --num 2 --out {out}/sheet.png'),
    measure=Case('analysis/measure_degradation.py', '{base}/faces --out {out}/out.json'),
    embed=Case('mmvlr', 'embed {base}/faces --out {out}/out.npz --model {base}/model.pth'),
    quality=Case('mmvlr', 'quality {base}/faces --out {out}/out.csv --model {base}/model.pth'),
    export=Case('mmvlr', 'export {base}/model.pth {out}/a.safetensors --license MIT'),
)


@pytest.fixture(scope='module')
def call(root, project, tmp_path_factory):
    """Return a function: case, folder and place to be killed at -> (exit code, what it said)."""
    base = tmp_path_factory.mktemp('base')
    people_folders(base / 'faces', range(2), 3)
    for part in ('Training_Set/1', 'Testing_Set/Probe', 'Testing_Set/Gallery_Match'):
        (base / 'archive' / part).mkdir(parents=True)
    for number, path in enumerate((base / 'faces').rglob('*.png')):
        shutil.copyfile(path, base / 'archive' / 'Training_Set' / '1' / f'1_{number}.jpg')
    text = (project / 'method' / 'tiny.py').read_text()
    text = text.replace('images_per_person=6', 'images_per_person=3')
    text = text.replace('max_epochs=3', 'max_epochs=1')
    (base / 'tiny.py').write_text(text + 'custom_hooks = custom_hooks[1:2]\n')
    model_file(base / 'model.pth')
    rng = np.random.default_rng(0)
    roles = np.repeat(['gallery', 'probe', 'unmated'], 8)
    identity = np.array([*range(8), *range(8), *range(20, 28)])
    np.savez(base / 'faces.npz', embedding=rng.normal(size=(24, 8)), role=roles, identity=identity)

    with open(base / 'server.log', 'w') as log:
        command = [sys.executable, '-c', SERVER, root / 'tools', root, project]
        process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=base,
            env={**os.environ, 'OMP_NUM_THREADS': '1'},
        )

        def run(case, out, kill=0):
            words = case.argv.format(base='\0', out='\1').split()
            argv = [word.replace('\0', str(base)).replace('\1', str(out)) for word in words]
            patch = case.patch.replace('{config!r}', repr(str(base / 'tiny.py')))
            task = dict(tool=case.tool, argv=argv, patch=patch, kill=kill)
            process.stdin.write(json.dumps(task) + '\n')
            process.stdin.flush()
            code, said = json.loads(process.stdout.readline() or f'[null, "see {log.name}"]')
            return code, said

        run.base = base
        assert run(Case('train.py', '{base}/tiny.py --work-dir {base}/run'), None)[0] == 0
        yield run
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


def start(case, call, out):
    if case.start:
        shutil.copytree(call.base / case.start, out)
    else:
        out.mkdir()


def seed(out, names=FOREIGN):
    """Write foreign files, each with bytes of its own; return them with their times."""
    for name in names:
        path = out / name
        assert not path.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f'foreign {name}'.encode())
    return contents(out, names)


def contents(out, names=None):
    if names is None:
        names = [str(path.relative_to(out)) for path in out.rglob('*') if path.is_file()]
    return {name: ((out / name).read_bytes(), (out / name).stat().st_ino) for name in names}


@pytest.mark.parametrize('name', CASES)
def test_killed_and_started_again_beside_foreign_files(call, tmp_path, name):
    case, out = CASES[name], tmp_path / 'out'
    start(case, call, out)
    code, said = call(case, out, case.kill)
    assert code == -signal.SIGKILL, said
    # What the killed run left is there, and known.
    killed = [
        path
        for path in out.rglob('.mmvlr-*')
        if re.fullmatch(r'\.mmvlr-[0-9a-f]{16}\b.*', path.name)
    ]
    assert killed
    foreign = seed(out)
    for _ in range(2):
        code, said = call(case, out)
        assert code in case.codes, said
        assert contents(out, foreign) == foreign
        assert not any(path.exists() for path in killed)
        assert not [
            path
            for path in out.rglob('*')
            if path.name.endswith((JOURNAL_FILE, LOCK_FILE))
            and str(path.relative_to(out)) not in foreign
        ]


@pytest.mark.parametrize('name', CASES)
def test_foreign_files_were_there_first(call, tmp_path, name):
    """The tool works beside them, or refuses the folder and leaves nothing in it."""
    case, out = CASES[name], tmp_path / 'out'
    start(case, call, out)
    foreign = seed(out)
    before = contents(out)
    code, said = call(case, out)
    assert contents(out, foreign) == foreign
    assert 'Traceback' not in said
    if code not in case.codes:
        assert code in (1, 2)
        assert str(out) in said
        assert contents(out) == before


@pytest.mark.parametrize(
    ('name', 'file'),
    [
        ('train', 'epoch_1.pth'),
        ('train', 'best_val_mAP_epoch_1.pth'),
        ('train', 'last_checkpoint'),
        ('train', 'tiny.py'),
        ('demo', 'epoch_1.pth'),
        ('demo', 'report.html'),
        ('reproduce', 'report.html'),
        ('reproduce', 'scores.csv'),
        ('test', 'tiny.py'),
    ],
)
def test_a_foreign_file_under_the_name_of_an_output_stays(call, tmp_path, name, file):
    out = tmp_path / 'out'
    out.mkdir()
    foreign = seed(out, [file])
    code, said = call(CASES[name], out)
    assert contents(out, foreign) == foreign
    if name != 'test':
        assert code == 1
        assert str(out / file) in said
        assert contents(out) == foreign


@pytest.mark.parametrize('name', ['align', 'degrade', 'build_ui_set'])
def test_a_foreign_file_under_the_name_of_a_later_output_stays(call, tmp_path, name):
    source, out = tmp_path / 'faces', tmp_path / 'out'
    shutil.copytree(call.base / 'faces', source)
    case = CASES[name]
    case = Case(case.tool, case.argv.replace('{base}/faces', str(source)), 0, case.patch)
    assert call(case, out)[0] == 0
    file = 'faces/ui_000007.png' if name == 'build_ui_set' else 'new.png'
    foreign = seed(out, [file])
    shutil.copyfile(next(source.rglob('0.png')), source / 'new.png')
    code, said = call(case, out)
    assert code in (1, 2)
    assert str(out / file) in said
    assert contents(out, foreign) == foreign


def test_the_demo_leaves_the_checkpoints_of_a_training(call, tmp_path):
    out = tmp_path / 'out'
    shutil.copytree(call.base / 'run', out)
    before = contents(out)
    code, said = call(CASES['demo'], out)
    assert code == 1
    assert str(out) in said
    assert contents(out) == before


@pytest.mark.parametrize('name', ['align', 'build_ui_set', 'degrade', 'pack', 'train', 'demo'])
def test_two_runs_at_once(call, tmp_path, name):
    """The other one is this process."""
    case, out = CASES[name], tmp_path / 'out'
    start(case, call, out)
    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(out, 'out.pack' if name == 'pack' else ''))
        before = contents(out)
        code, said = call(case, out)
        assert code in (1, 2)
        assert f'process {os.getpid()} ' in said
        assert 'Traceback' not in said
        assert contents(out) == before
    assert call(case, out)[0] in case.codes
