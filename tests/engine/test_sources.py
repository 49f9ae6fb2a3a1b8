"""What a run depends on beside its config: source files, found as they are imported."""

import subprocess
import sys

import numpy as np
import pytest

from mmvlr.engine import sources
from mmvlr.engine.sources import digest_images, digest_sources, find_sources, named_modules


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A package and a module of a user's."""
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / 'own_package'
    package.mkdir()
    (package / '__init__.py').write_text('')
    (package / 'loss.py').write_text('from . import margin\nfrom .parts.inner import a\n')
    (package / 'margin.py').write_text('import numpy, json, own_module\n')
    (package / 'parts').mkdir()
    (package / 'parts' / '__init__.py').write_text('')
    (package / 'parts' / 'inner.py').write_text('import mmvlr.models\na = 1\n')
    (package / 'unused.py').write_text('')
    (tmp_path / 'own_module.py').write_text('import own_package.loss\n')
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith('own_')]:
        del sys.modules[name]


def test_imports_are_followed_and_installed_packages_are_not(own):
    found = find_sources(['own_package.loss', 'numpy', 'mmvlr.models', 'absent_module'])
    assert found.pop('absent_module') is None
    assert {str(path.relative_to(own)) for path in found.values()} == {
        'own_module.py',
        'own_package/__init__.py',
        'own_package/loss.py',
        'own_package/margin.py',
        'own_package/parts/__init__.py',
        'own_package/parts/inner.py',
    }


def test_modules_that_a_config_names():
    config = dict(
        custom_imports=dict(imports=['own_package.loss']),
        model=dict(type='RIFace', head=[dict(type='own_module.Head'), dict(type=np.ndarray)]),
    )
    assert named_modules(config) == ['numpy', 'own_module', 'own_package.loss']


@pytest.mark.parametrize('file', ['own_module.py', 'own_package/parts/inner.py'])
def test_one_character_changes_the_digest(own, file):
    config = dict(custom_imports=dict(imports='own_package.loss'))
    before = digest_sources(config)
    (own / 'own_package' / 'unused.py').write_text('# not a part of it')
    assert digest_sources(config) == before
    path = own / file
    path.write_text(path.read_text() + '#')
    assert digest_sources(config) != before
    assert digest_sources({}) not in (before, digest_sources(config))


def test_source_of_mmvlr_itself():
    """Every module that a training and a scoring import counts; pages and reports do not."""
    program = """
import sys
import mmvlr.cli.programs.score, mmvlr.cli.programs.train
import mmvlr.datasets, mmvlr.models.quality, mmvlr.evaluation, mmvlr.engine
print(*(n for n, m in sys.modules.items() if n.startswith('mmvlr') and hasattr(m, '__file__')))
"""
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    imported, found = set(done.stdout.split()), set(sources.find_own_sources())
    assert len(imported) > 80
    own = {name for name in imported if not name.startswith('mmvlr.cli')}
    assert own - found <= {'mmvlr.utils.text'}
    assert not [name for name in found if name.startswith(('mmvlr.web', 'mmvlr.reports.page'))]


def test_digest_of_files(tmp_path):
    path = tmp_path / 'a.py'
    path.write_text('a')
    before = sources.digest_files(dict(a=path, b=None))
    assert sources.digest_files(dict(b=path, a=None)) != before
    path.write_text('b')
    assert sources.digest_files(dict(a=path, b=None)) != before


def test_images_of_loaders(tmp_path):
    faces = dict(type='SyntheticFaces', num_people=2, images_per_person=2)
    config = dict(
        train_dataloader=dict(dataset=dict(faces)),
        val_dataloader=dict(dataset=dict(type='ValidationSubset', dataset=dict(faces))),
        other_dataloader=dict(dataset=dict(faces, population=5)),
        ui_dataloader=dict(dataset=dict(type='UIFaces', data_root=str(tmp_path / 'absent'))),
        test_dataloader=None,
    )
    found = digest_images(config, [*config, 'another_dataloader'])
    assert list(found) == [name for name in config if name != 'test_dataloader']
    assert found['ui_dataloader'] == 'missing'
    assert found['train_dataloader'] != found['other_dataloader']
