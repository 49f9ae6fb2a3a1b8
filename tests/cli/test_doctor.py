"""The doctor, shown every broken installation that it claims to know."""

import json
import socket
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from mmvlr.cli import main
from mmvlr.cli.doctor import (
    Finding,
    data,
    examine,
    judge_readiness,
    machine,
    packages,
    render,
    render_readiness,
)
from mmvlr.cli.doctor.data import (
    check_data,
    check_data_root,
    check_model,
    check_start_weights,
    check_trusted,
)
from mmvlr.cli.doctor.findings import PURPOSES
from mmvlr.cli.doctor.machine import (
    GIB,
    Gpu,
    check_gpu,
    check_shared_memory,
    check_threads,
    check_work_dir,
)
from mmvlr.cli.doctor.packages import (
    check_conflicts,
    check_imports,
    check_numpy_bridge,
    check_packages,
    check_python,
    check_torchvision,
)
from mmvlr.datasets import SCface, SurvFace, TinyFace, UIFaces
from mmvlr.models import FaceRecognizer
from mmvlr.utils.checkpoint import save_pretrained


def installed(**versions):
    """A lookup of versions; underscores stand for hyphens."""
    table = {name.replace('_', '-'): version for name, version in versions.items()}
    return table.get


def statuses(findings):
    return [finding.status for finding in findings]


def failing(error):
    def run(*args, **kwargs):
        raise error

    return run


# Packages ---------------------------------------------------------------------------------------

STATED = [
    'torch>=2.2',
    'mmcv-lite>=2.2',
    'pillow',
    'facenet-pytorch<2.6,>=2.5.3; extra == "align"',
    'grad-cam>=1.5; extra == "web"',
    'gradio>=6; extra == "web"',
    'gradio>=6; extra == "all"',
]


def test_packages():
    good = dict(torch='2.14.1+cpu', mmcv_lite='2.2.0', pillow='13')
    findings = check_packages(STATED, installed(**good, facenet_pytorch='2.5.3', gradio='6.1'))
    assert statuses(findings) == ['ok', 'ok', 'absent']
    assert findings[0].message == 'torch 2.14.1+cpu, mmcv-lite 2.2.0, pillow 13'
    assert findings[1] == Finding('extras', 'ok', 'align: facenet-pytorch')
    # An extra that is not there is no fault, but the command for it is told.
    assert findings[2].message == 'web: not there (grad-cam)'
    assert findings[2].remedy == "pip install 'mmvlr[web]'"


def test_packages_that_are_missing_or_old():
    findings = check_packages(STATED, installed(torch='2.1.2', mmcv_lite='2.2.0'))
    errors = [finding for finding in findings if finding.status == 'error']
    assert [finding.message for finding in errors] == [
        'torch is 2.1.2, torch>=2.2 is needed',
        'pillow is not installed',
    ]
    assert [finding.remedy for finding in errors] == [
        "pip install 'torch>=2.2'",
        "pip install 'pillow'",
    ]


def test_facenet_pytorch_that_would_downgrade_torch():
    findings = check_packages(
        STATED, installed(torch='2.14', mmcv_lite='2.2', facenet_pytorch='2.6.0')
    )
    (warning,) = [finding for finding in findings if finding.status == 'warning']
    assert 'align: facenet-pytorch is 2.6.0' in warning.message
    assert warning.remedy == "pip install 'mmvlr[align]'"


def test_what_setup_states_can_be_read(root):
    """All of it, of the metadata that pip wrote."""
    import importlib.metadata

    stated = importlib.metadata.requires('mmvlr')
    findings = check_packages(stated, lambda name: '999')
    assert 'torch 999' in findings[0].message and 'safetensors 999' in findings[0].message
    extras = [f.message.partition(':')[0] for f in findings if f.topic == 'extras']
    assert {'demo', 'align', 'cam'} <= set(extras) and 'all' not in extras


def test_mmvlr_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(packages, 'installed_version', installed())
    (finding,) = packages.examine_packages()
    assert finding.status == 'warning' and 'pip install -e .' in finding.remedy


@pytest.mark.parametrize(
    ('versions', 'topic', 'status'),
    [
        (dict(mmcv='2.2.0', mmcv_lite='2.2.0'), 'mmcv', 'error'),
        (dict(mmcv='2.2.0'), 'mmcv', 'warning'),
        (dict(opencv_python='5.0', opencv_python_headless='4.11'), 'opencv', 'error'),
        (dict(opencv_python='5.0', opencv_python_headless='5.0'), 'opencv', 'warning'),
        (dict(opencv_python='5.0', opencv_contrib_python='5.0'), 'opencv', 'warning'),
        (dict(openmim='0.3.9'), 'mim', 'warning'),
    ],
)
def test_packages_that_are_in_each_others_way(versions, topic, status):
    (finding,) = check_conflicts(installed(**versions))
    assert (finding.topic, finding.status) == (topic, status)
    for name in versions:
        assert name.replace('_', '-') in finding.message
    assert finding.remedy


def test_packages_that_go_together():
    assert check_conflicts(installed(mmcv_lite='2.2.0', opencv_python='5.0')) == []


@pytest.mark.parametrize(
    ('told', 'remedy'),
    [
        ('libGL.so.1: cannot open shared object file', 'libgl1'),
        ('libgthread-2.0.so.0: cannot open', 'libglib2.0-0'),
        ('operator torchvision::nms does not exist', 'together, from one index'),
        ('A module that was compiled using NumPy 1.x cannot be run', 'another NumPy'),
        ('numpy.dtype size changed', 'another NumPy'),
        ('undefined symbol', 'force-reinstall'),
    ],
)
def test_imports_that_fail(told, remedy):
    def load(name):
        if name == 'broken':
            raise ImportError(told)

    (finding,) = check_imports(['fine', 'broken', 'fine'], load)
    assert finding.status == 'error'
    assert finding.message == f'import broken fails: ImportError: {told}'
    assert remedy in finding.remedy


def test_torchvision_of_another_build():
    error = RuntimeError('operator torchvision::nms does not exist')
    (finding,) = check_torchvision('2.14.1', '0.29.1+cu130', failing(error))
    assert finding.status == 'error'
    assert '2.14.1 and torchvision 0.29.1+cu130' in finding.message and 'nms' in finding.message
    assert 'together' in finding.remedy
    assert statuses(check_torchvision('2.14.1', '0.29.1', int)) == ['ok']


def test_numpy_that_torch_does_not_know():
    (finding,) = check_numpy_bridge(failing(RuntimeError('Numpy is not available')))
    assert finding.status == 'error' and 'Numpy is not available' in finding.message
    assert statuses(check_numpy_bridge(int)) == ['ok']


@pytest.mark.parametrize(
    ('version', 'status'), [((3, 9), 'error'), ((3, 10), 'ok'), ((4, 0), 'ok')]
)
def test_python(version, status):
    assert statuses(check_python(version)) == [status]


# The machine ------------------------------------------------------------------------------------

H100 = Gpu('NVIDIA H100', 80 * GIB, 'sm_90')
OLD = Gpu('Tesla K80', 11 * GIB, 'sm_37')
BUILT = ['sm_75', 'sm_80', 'sm_90', 'sm_120', 'compute_120']


def test_gpus():
    (finding,) = check_gpu('13.0', [H100, H100], 'driver 580', None, BUILT)
    assert finding.status == 'ok'
    assert finding.message == '2 (CUDA 13.0): NVIDIA H100, 80 GiB; NVIDIA H100, 80 GiB'
    assert statuses(check_gpu('13.0', [Gpu('A40', GIB, 'sm_86')], architectures=BUILT)) == ['ok']


def test_gpu_that_torch_has_no_code_for():
    findings = check_gpu('13.0', [H100, OLD], 'driver 470', None, BUILT)
    assert statuses(findings) == ['ok', 'error']
    assert 'Tesla K80 (sm_37)' in findings[1].message


@pytest.mark.parametrize(
    ('build', 'driver', 'visible', 'status', 'told', 'remedy'),
    [
        (None, None, None, 'ok', 'everything runs on the CPU', ''),
        ('13.0', None, None, 'ok', 'built for CUDA 13.0, and no NVIDIA driver', 'driver'),
        ('13.0', 'NVRM 470', None, 'warning', 'NVRM 470', 'driver for CUDA 13.0'),
        ('13.0', 'NVRM 470', '0', 'warning', 'sees no GPU', 'nvidia-smi'),
        ('13.0', 'NVRM 580', '', 'warning', "CUDA_VISIBLE_DEVICES=''", 'unset'),
        ('13.0', 'NVRM 580', '-1', 'warning', "CUDA_VISIBLE_DEVICES='-1'", 'unset'),
        (None, 'NVRM 580', None, 'warning', 'built for the CPU alone', 'CUDA build'),
    ],
)
def test_no_gpu(build, driver, visible, status, told, remedy):
    (finding,) = check_gpu(build, [], driver, visible)
    assert finding.status == status
    assert told in finding.message
    assert remedy in finding.remedy


@pytest.mark.parametrize(
    ('cores', 'threads', 'variable', 'status'),
    [
        (8, 8, None, 'ok'),
        (8, 2, '2', 'ok'),
        (2, 64, None, 'warning'),
        (2, 2, 'two', 'warning'),
        (2, 2, '0', 'warning'),
    ],
)
def test_threads(cores, threads, variable, status):
    (finding,) = check_threads(cores, threads, variable)
    assert finding.status == status
    assert finding.remedy == ('' if status == 'ok' else f'export OMP_NUM_THREADS={cores}')


def test_shared_memory():
    (finding,) = check_shared_memory(64 << 10)
    assert finding.status == 'warning' and '--shm-size' in finding.remedy
    assert statuses(check_shared_memory(64 << 20)) == ['ok']
    assert check_shared_memory(None) == []


@pytest.mark.parametrize(
    ('free', 'status'), [(100 * GIB, 'ok'), (2 * GIB, 'warning'), (10 << 20, 'error')]
)
def test_disk(tmp_path, free, status):
    folders = []

    def usage(folder):
        folders.append(folder)
        return SimpleNamespace(free=free)

    (finding,) = check_work_dir(tmp_path / 'work_dirs' / 'run', usage)
    assert finding.status == status
    assert folders == [tmp_path]
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_written(tmp_path, monkeypatch):
    error = PermissionError(13, 'Permission denied')
    monkeypatch.setattr(machine.tempfile, 'TemporaryFile', failing(error))
    (finding,) = check_work_dir(tmp_path)
    assert finding.status == 'error'
    assert str(tmp_path) in finding.message and 'Permission denied' in finding.message


# Data -------------------------------------------------------------------------------------------


def make(root, *folders):
    for folder in folders:
        (root / folder).mkdir(parents=True)
    return root


def first_of(kind):
    return [names[0] for names in data.find_layout(kind)[1]]


@pytest.mark.parametrize('kind', ['tinyface', 'scface', 'survface'])
def test_data(tmp_path, kind):
    root = make(tmp_path / 'set', *first_of(kind))
    assert check_data_root('X', str(root), 'data/x', kind).status == 'ok'
    # Each of the folders counts.
    for folder in first_of(kind):
        (root / folder).rename(tmp_path / 'away')
        finding = check_data_root('X', str(root), 'data/x', kind)
        assert finding.status == 'error'
        assert folder in finding.message
        assert f'mmvlr prepare {kind} {root}' in finding.remedy
        (tmp_path / 'away').rename(root / folder)


def test_other_layouts_of_scface(tmp_path):
    flat = make(tmp_path / 'a', 'mugshot_frontal_cropped_all', 'surveillance_cameras_all')
    deep = make(tmp_path / 'b', *(f'SCface_database/{name}' for name in first_of('scface')))
    for root in (flat, deep):
        assert check_data_root('X', str(root), '', 'scface').status == 'ok'


def test_archive_that_was_unpacked_too_deep(tmp_path):
    make(tmp_path, *(f'TinyFace/{name}' for name in first_of('tinyface')))
    finding = check_data_root('TINYFACE_ROOT', str(tmp_path), '', 'tinyface')
    assert finding.status == 'error'
    assert finding.remedy == f'export TINYFACE_ROOT={tmp_path / "TinyFace"}'


def test_ui_set(tmp_path):
    assert check_data_root('UI_ROOT', str(tmp_path), '', 'ui').status == 'error'
    (tmp_path / 'inner').mkdir()
    Image.new('RGB', (8, 8)).save(tmp_path / 'inner' / 'a.JPG', 'JPEG')
    assert check_data_root('UI_ROOT', str(tmp_path), '', 'ui').status == 'ok'


def test_data_in_a_pack(tmp_path):
    from mmvlr.datasets.storage import write_pack

    pack = tmp_path / 'faces.pack'
    pixels = np.zeros((8, 8, 3), np.uint8)
    write_pack(pack, ((f'{folder}/a.png', pixels) for folder in first_of('tinyface')))
    assert check_data_root('X', str(pack), '', 'tinyface').status == 'ok'
    assert check_data_root('X', str(pack / 'Training_Set'), '', 'tinyface').status == 'error'


def test_recordio(tmp_path):
    names = ['train.rec', 'train.idx', 'lfw.bin']
    for count in (1, 2, 3):
        finding = check_data_root('MS1M_ROOT', str(tmp_path), '', 'recordio')
        assert finding.status == 'error'
        assert finding.message.endswith(f'lacks {", ".join(names[count - 1 :])}')
        (tmp_path / names[count - 1]).write_bytes(b'')
    assert check_data_root('MS1M_ROOT', str(tmp_path), '', 'recordio').status == 'ok'


def test_data_variables(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = check_data(dict(TINYFACE_ROOT='absent', SCFACE_ROOT='', UI_ROOT='~/ui'))
    assert [finding.topic for finding in found] == ['data'] * 6
    tinyface, scface, survface, ui, ms1m, _ = found
    assert tinyface.status == 'error' and 'TINYFACE_ROOT=absent does not exist' in tinyface.message
    assert scface.status == 'absent' and 'data/scface does not exist' in scface.message
    assert survface.status == 'absent' and 'data/survface does not exist' in survface.message
    assert 'export SURVFACE_ROOT=' in survface.remedy
    assert ui.status == 'error' and 'do not expand ~' in ui.message
    assert ms1m.status == 'absent' and 'data/ms1m does not exist' in ms1m.message
    make(tmp_path / 'data' / 'survface', *first_of('survface'))
    assert 'as they should be' in check_data({})[2].message


def test_variables_of_the_configs(root):
    """The doctor knows each variable of the configs, with the same default."""
    import re

    stated = {}
    for path in (root / 'configs').rglob('*.py'):
        stated.update(re.findall(r"get\('(\w+_ROOT)'\) or '([^']+)'", path.read_text()))
    # Sets that nobody trains on, and folders of one's own, have no recipe to be called ready.
    own = {name: stated.pop(name) for name in ('CFP_ROOT', 'LFW_ROOT', 'GOOD_ROOT')}
    assert own == dict(CFP_ROOT='data/cfp', LFW_ROOT='data/lfw', GOOD_ROOT='data/good')
    assert stated == {variable: default for variable, (default, _) in data.DATA.items()}


def test_real_data(shared):
    """What the loaders read is right to the doctor."""
    loaders = dict(tinyface=TinyFace, scface=SCface, survface=SurvFace, ui=UIFaces)
    for kind, loader in loaders.items():
        folder = shared / 'data' / kind
        keys = dict(scface=dict(train_subjects='1-12')).get(kind, {})
        assert len(loader(data_root=str(folder), **keys)) > 0
        assert check_data_root('X', str(folder), '', kind).status == 'ok', kind


# Weights ----------------------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path, tiny_backbone, tiny_preprocessor):
    model = FaceRecognizer(backbone=tiny_backbone, data_preprocessor=tiny_preprocessor)
    path = tmp_path / 'checkpoints' / 'tiny.pth'
    contract = model.data_preprocessor.contract
    save_pretrained(path, model.backbone, contract, architecture=tiny_backbone, license='MIT')
    return path


def test_model(weights):
    from mmvlr.apis import fingerprint_model, load_model

    finding = check_model(weights, 'model', 'error')
    assert finding.status == 'ok'
    assert fingerprint_model(load_model(weights))['weights'][:16] in finding.message
    for told in ('16 dimensions', '32 x 32 RGB', 'alignment none', 'license MIT', str(weights)):
        assert told in finding.message


def test_model_that_cannot_be_loaded(weights, tmp_path):
    weights.write_bytes(weights.read_bytes()[:-500])
    finding = check_model(weights, 'model', 'error')
    assert finding.status == 'error' and 'not a readable checkpoint' in finding.message
    absent = check_model(tmp_path / 'absent.pth', 'weights', 'warning')
    assert absent.status == 'warning' and 'absent.pth does not exist' in absent.message


def test_start_weights(weights, tmp_path):
    folder = weights.parent
    (folder / 'notes.txt').write_text('')
    assert [f.topic for f in check_start_weights({}, folder)] == ['weights']
    named = check_start_weights(dict(PRETRAINED=str(weights)), folder)
    assert [(f.topic, f.status) for f in named] == [('PRETRAINED', 'ok')]
    broken = folder / 'broken.pth'
    broken.write_bytes(b'')
    assert statuses(check_start_weights({}, folder)) == ['warning', 'ok']
    assert statuses(check_start_weights(dict(PRETRAINED=str(broken)), folder)) == ['error', 'ok']
    (none,) = check_start_weights({}, tmp_path / 'absent')
    assert none.status == 'absent' and 'export PRETRAINED=FILE' in none.remedy


def test_trusted(tmp_path):
    assert statuses(check_trusted('')) == ['ok']
    (finding,) = check_trusted(f'{tmp_path}:absent')
    assert finding.status == 'warning'
    assert str(tmp_path) in finding.message and 'absent does not exist' in finding.message
    assert 'unset MMVLR_TRUSTED' in finding.remedy


# All of it --------------------------------------------------------------------------------------


def test_examine(weights, monkeypatch):
    """This installation, without a word to the network."""

    def connect(*args):
        raise AssertionError('the doctor went to the network')

    monkeypatch.setattr(socket.socket, 'connect', connect)
    monkeypatch.setattr(socket, 'getaddrinfo', connect)
    monkeypatch.chdir(weights.parent.parent)
    for variable in [*data.DATA, 'PRETRAINED', 'MMVLR_TRUSTED']:
        monkeypatch.delenv(variable, raising=False)
    findings = examine(str(weights))
    assert {finding.status for finding in findings} <= {'ok', 'absent', 'warning'}, render(findings)
    topics = [finding.topic for finding in findings]
    wanted = ('python', 'packages', 'torchvision', 'numpy', 'gpu', 'cpu', 'disk', 'data', 'weights')
    assert set(wanted) | {'security', 'model'} <= set(topics)
    assert topics.count('data') == len(data.DATA)
    told = []
    assert 'model' not in [finding.topic for finding in examine(tell=told.append)]
    assert told[:2] == ['python', 'packages'] and len(told) == len(set(told))


def test_a_check_that_fails_is_a_finding(monkeypatch):
    monkeypatch.setattr(data, 'check_trusted', failing(KeyError('odd')))
    monkeypatch.setattr(data, 'check_start_weights', lambda *args: [])
    last = examine()[-1]
    assert (last.topic, last.status) == ('security', 'error')
    assert "could not be examined: KeyError: 'odd'" in last.message


def test_render():
    findings = [
        Finding('gpu', 'ok', 'none'),
        Finding('packages', 'warning', 'first\nsecond', 'do this'),
        Finding('data', 'error', 'bad'),
        Finding('data', 'error', 'worse'),
    ]
    expected = [
        'ok       gpu       none',
        'warning  packages  first',
        '                   second',
        '                   -> do this',
        'error    data      bad',
        'error    data      worse',
        '',
        '2 errors, 1 warning',
    ]
    assert render(findings).splitlines() == expected
    assert render(findings[:1]).endswith('nothing is wrong')
    assert render([]).strip() == 'nothing is wrong'


def test_what_it_is_ready_for(tmp_path):
    """What is missing blocks what needs it, and nothing else; how to get it is told once."""
    (tmp_path / 'ui').mkdir()
    Image.new('RGB', (20, 20)).save(tmp_path / 'ui' / '1.png')
    found = check_packages(STATED, installed(torch='2.14', mmcv_lite='2.2', pillow='13'))
    found += check_data({'UI_ROOT': str(tmp_path / 'ui'), 'SCFACE_ROOT': str(tmp_path / 'ui')})
    found += check_start_weights({}, tmp_path)
    ready, others = judge_readiness(found)
    assert 'use of a model' in ready and 'export' in ready
    lacks = {purpose: {finding.part for finding in missing} for purpose, missing in others.items()}
    # STATED names no extra for the demo, so that nothing is known against it.
    assert lacks['page in the browser'] == {'web'}
    assert lacks['training on TinyFace'] == {'TINYFACE_ROOT', 'PRETRAINED'}
    assert lacks['training on SCface'] == {'SCFACE_ROOT', 'PRETRAINED'}
    assert 'SCFACE_ROOT' not in lacks['training on SurvFace']
    text = render_readiness(found)
    assert text.startswith('ready for: use of a model')
    assert text.count('export PRETRAINED=FILE') == 1
    assert text.count("pip install 'mmvlr[web]'") == 1
    broken = [*found, Finding('torchvision', 'error', 'of another build', 'install it again')]
    ready, others = judge_readiness(broken)
    assert (ready, set(others)) == ([], set(PURPOSES))
    assert 'ready for: nothing' in render_readiness(broken)


def test_purposes_name_what_is_there(root):
    """Extras of setup.py and variables of the doctor."""
    known = {*data.DATA, 'PRETRAINED'}
    setup = (root / 'setup.py').read_text()
    for part in {part for parts in PURPOSES.values() for part in parts} - known:
        assert f"'{part}': " in setup


@pytest.mark.parametrize('absent', [False, True])
def test_command(weights, monkeypatch, capsys, absent):
    """One document, and exit code 1 where there is an error."""
    monkeypatch.chdir(weights.parent.parent)
    model = weights.with_name('absent.pth') if absent else weights
    for variable in [*data.DATA, 'PRETRAINED']:
        monkeypatch.delenv(variable, raising=False)
    code = main(['doctor', '--model', str(model), '--json'])
    document = json.loads(capsys.readouterr().out)
    findings = document['findings']
    assert {*document['ready_for'], *document['not_ready_for']} == {*PURPOSES}
    assert code == int(absent)
    assert set(findings[0]) == {'topic', 'status', 'message', 'remedy', 'part'}
    assert [f['status'] for f in findings if f['topic'] == 'model'] == ['error' if absent else 'ok']


def test_threads_of_this_machine():
    (finding,) = machine.examine_threads()
    assert f'{torch.get_num_threads()} threads' in finding.message
