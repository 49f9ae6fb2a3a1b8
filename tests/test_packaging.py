"""The wheel is whole, the launch scripts call what they should, nothing foreign is in the tree."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAX_BYTES = 400_000
# Images, weights, data and archives: all of them binary, and most of them somebody's.
BINARY = re.compile(
    r'\.(avi|bin|bmp|ckpt|gif|gz|h5|jpe?g|mat|mp4|npy|npz|onnx|pb|pdf|pickle|pkl|png|pt|pth|rec|'
    r'safetensors|svg|tar|tfevents|tiff?|webp|whl|zip)(\.|$)',
    re.I,
)


@cache
def tree():
    """Files of the repository, those that are about to be added too."""
    command = ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f'not a git checkout: {done.stderr.strip()}')
    return [ROOT / name for name in done.stdout.split('\0') if name and (ROOT / name).is_file()]


def run(*command, **kwargs):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **kwargs)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """A wheel built from the sdist of the files that git knows, unpacked: its folder."""
    folder = tmp_path_factory.mktemp('packaging')
    source, sdist, unpacked = folder / 'source', folder / 'sdist', folder / 'unpacked'
    for path in tree():
        target = source / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    build = f'from setuptools import build_meta; print(build_meta.build_sdist({str(sdist)!r}))'
    sdist.mkdir()
    run(sys.executable, '-c', build, cwd=source)
    (archive,) = sdist.iterdir()
    pip = [sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '--no-index']
    run(*pip, '--wheel-dir', folder, archive, cwd=folder)
    (file,) = folder.glob('*.whl')
    zipfile.ZipFile(file).extractall(unpacked)
    return unpacked


def outside(wheel):
    """Keyword arguments of a process that sees the unpacked wheel and not the source tree."""
    return dict(cwd=wheel.parent, env={**os.environ, 'PYTHONPATH': str(wheel)})


@pytest.mark.slow
def test_wheel_is_whole(wheel):
    found = {path.relative_to(wheel).as_posix() for path in wheel.rglob('*') if path.is_file()}
    source = {path.relative_to(ROOT).as_posix() for path in tree()}
    package = {name for name in source if re.match(r'mmvlr/.*\.(py|typed|css|j2)$', name)}
    assert {'mmvlr/py.typed', 'mmvlr/reports/templates/report.html.j2'} <= package
    assert package <= found
    shipped = {name for name in source if re.match(r'(configs|tools)/.*\.(py|sh|md|yml)$', name)}
    assert {f'mmvlr/.mim/{name}' for name in shipped} <= found
    assert any(re.fullmatch(r'mmvlr-.*\.dist-info/licenses/LICENSE', name) for name in found)
    others = {name for name in found if not re.match(r'mmvlr/|mmvlr-[^/]*\.dist-info/', name)}
    assert not others
    assert not [name for name in found if '__pycache__' in name]


@pytest.mark.slow
def test_wheel_imports_and_loads_its_configs(wheel):
    code = (
        'import sys, pathlib, mmvlr\n'
        'from mmvlr.apis import load_config\n'
        'package = pathlib.Path(mmvlr.__file__).parent\n'
        'print(package)\n'
        'for path in sorted((package / ".mim" / "configs").glob("[!_]*/*.py")):\n'
        '    config = load_config(path)\n'
        '    assert config.model.type and config.train_dataloader, path\n'
        '    print(path.name)\n'
    )
    package, *names = run(sys.executable, '-c', code, **outside(wheel)).splitlines()
    assert Path(package) == wheel / 'mmvlr'
    assert len(names) == len(list((ROOT / 'configs').glob('[!_]*/*.py'))) > 0


@pytest.mark.slow
def test_wheel_renders_pages(wheel):
    code = (
        'from mmvlr.reports import ComparisonData, ReportData, render_comparison, render_report\n'
        'print(len(render_report(ReportData("a")) + render_comparison(ComparisonData("b"))))\n'
    )
    assert int(run(sys.executable, '-c', code, **outside(wheel))) > 20_000


@pytest.mark.slow
@pytest.mark.parametrize('tool', ['train.py', 'test.py'])
def test_wheel_has_working_tools(wheel, tool):
    script = wheel / 'mmvlr' / '.mim' / 'tools' / tool
    assert '--launcher' in run(sys.executable, script, '--help', **outside(wheel))


@pytest.mark.slow
def test_wheel_knows_its_commands_and_configs_by_name(wheel):
    mmvlr = [sys.executable, '-m', 'mmvlr']
    assert 'fit-degradation' in run(*mmvlr, **outside(wheel))
    assert '--launcher' in run(*mmvlr, 'train', '--help', **outside(wheel))
    code = (
        'from mmvlr.engine.building import load_config\n'
        'for name in ("riface/r50_tinyface", "configs/riface/r50_tinyface.py"):\n'
        '    print(load_config(name).filename)\n'
    )
    found = run(sys.executable, '-c', code, **outside(wheel)).split()
    assert {Path(name).resolve() for name in found} == {
        (wheel / 'mmvlr/.mim/configs/riface/r50_tinyface.py').resolve()
    }


@pytest.mark.slow
def test_metadata_agrees(wheel):
    (metadata,) = wheel.glob('*.dist-info/METADATA')
    text = metadata.read_text(encoding='utf-8')
    version = re.search(r'^Version: (.+)$', text, re.M)[1]
    assert re.search(rf'^version: {re.escape(version)}$', (ROOT / 'CITATION.cff').read_text(), re.M)
    tested = (ROOT / 'requirements' / 'tested.txt').read_text(encoding='utf-8')
    pinned = set(re.findall(r'^([\w-]+)==\S+$', tested, re.M))
    required = re.findall(r'^Requires-Dist: ([\w-]+)(?!.*extra ==)', text, re.M)
    assert {name.lower() for name in required} <= pinned


@pytest.mark.parametrize(
    ('script', 'arguments', 'expected'),
    [
        (
            'dist_train.sh',
            ['a b.py', '2', '--seed', '1'],
            '<-m> <torch.distributed.run> <--nnodes> <3> <--node-rank> <1> <--master-addr> '
            '<node0> <--master-port> <29501> <--nproc-per-node> <2> <tools/train.py> <a b.py> '
            '<--launcher> <pytorch> <--seed> <1>',
        ),
        (
            'dist_test.sh',
            ['a b.py', 'c.pth', '4'],
            '<-m> <torch.distributed.run> <--nnodes> <3> <--node-rank> <1> <--master-addr> '
            '<node0> <--master-port> <29501> <--nproc-per-node> <4> <tools/test.py> <a b.py> '
            '<c.pth> <--launcher> <pytorch>',
        ),
        (
            'slurm_train.sh',
            ['part', 'job', 'a b.py', 'work', '--seed', '1'],
            '<--partition> <part> <--job-name> <job> <--gres> <gpu:4> <--ntasks> <4> '
            '<--ntasks-per-node> <4> <--cpus-per-task> <5> <--kill-on-bad-exit=1> <--qos> <low> '
            '<show> <-u> <tools/train.py> <a b.py> <--work-dir> <work> <--launcher> <slurm> '
            '<--seed> <1>',
        ),
        (
            'slurm_test.sh',
            ['part', 'job', 'a b.py', 'c.pth'],
            '<--partition> <part> <--job-name> <job> <--gres> <gpu:4> <--ntasks> <4> '
            '<--ntasks-per-node> <4> <--cpus-per-task> <5> <--kill-on-bad-exit=1> <--qos> <low> '
            '<show> <-u> <tools/test.py> <a b.py> <c.pth> <--launcher> <slurm>',
        ),
    ],
)
def test_launch_scripts(script, arguments, expected, tmp_path):
    # Stand-ins for Python and srun that print what they are called with.
    for name in ('show', 'srun'):
        (tmp_path / name).write_text('#!/bin/sh\nprintf "<%s> " "$@"\n')
        (tmp_path / name).chmod(0o755)
    settings = dict(
        PATH=f'{tmp_path}{os.pathsep}{os.environ["PATH"]}',
        PYTHON='show',
        NNODES='3',
        NODE_RANK='1',
        MASTER_ADDR='node0',
        PORT='29501',
        GPUS='4',
        SRUN_ARGS='--qos low',
    )
    path = ROOT / 'tools' / script
    assert os.access(path, os.X_OK)
    env = {**os.environ, **settings}
    assert run(f'tools/{script}', *arguments, cwd=ROOT, env=env).strip() == expected
    wrong = subprocess.run([path], capture_output=True, text=True, env=env, check=False)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith(f'usage: tools/{script}')
    assert not wrong.stdout


def test_ci_script_is_executable():
    assert os.access(ROOT / '.ci' / 'run', os.X_OK)
    run('bash', '-n', ROOT / '.ci' / 'run')


def test_tree_holds_only_small_text():
    large = [path for path in tree() if path.stat().st_size > MAX_BYTES]
    assert not large
    binary = [path for path in tree() if BINARY.search(path.name)]
    assert not binary
    for path in tree():
        assert b'\0' not in path.read_bytes(), f'{path} is binary'


# Written so that this file does not match itself.
MACHINE_FOLDERS = ('home', 'root', 'work', 'farm', 'mnt', 'Users', 'data', 'opt', 'tmp')
MACHINE_PATH = re.compile(rf'(?<![\w.*~}})/>\]-])/(?:{"|".join(MACHINE_FOLDERS)})/')
REGISTRY = re.compile(r'(?:pypi|pythonhosted|npmjs|debian|ubuntu)[.](?:org|com)\b|index[-]url')


def test_patterns_find_what_they_should():
    for folder in MACHINE_FOLDERS:
        assert MACHINE_PATH.search(f'root = "/{folder}/faces"')
        assert not MACHINE_PATH.search(f'root = "{folder}/faces" or $ROOT/{folder}/faces')
    assert REGISTRY.search('https://' + 'files.pythonhosted' + '.org/packages')


@pytest.mark.parametrize('pattern', [MACHINE_PATH, REGISTRY], ids=['machine', 'registry'])
def test_tree_names_no_machine_and_no_registry(pattern):
    found = [
        f'{path.relative_to(ROOT)}:{number}: {line.strip()}'
        for path in tree()
        for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), start=1)
        if pattern.search(line) and path.name != '.gitignore'
    ]
    assert not found
