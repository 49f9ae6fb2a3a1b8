"""Fixtures of the command line's tests."""

import json

import pytest

from mmvlr.cli import main

from ..people import model_file, people_folders


@pytest.fixture(scope='session')
def model(tmp_path_factory):
    """Path of a small checkpoint."""
    return model_file(tmp_path_factory.mktemp('model') / 'epoch_1.pth')


@pytest.fixture(scope='session')
def faces(tmp_path_factory):
    """Folder with ``people`` (8), ``known`` (other images of them) and ``strangers`` (12)."""
    root = tmp_path_factory.mktemp('faces')
    people_folders(root / 'people', range(8), 2)
    people_folders(root / 'strangers', range(20, 32), 2)
    for folder in people_folders(root / 'known', range(8), 5):
        # Those that are enrolled are not among the probes.
        for image in ('0.png', '1.png'):
            (root / 'known' / folder / image).unlink()
    return root


@pytest.fixture
def mmvlr(model, capsys, monkeypatch):
    """Return a function: arguments -> (exit code, document of --json)."""
    monkeypatch.setenv('MMVLR_MODEL', str(model))

    def run(*arguments, model_used=True):
        used = ['--device', 'cpu', '--model', str(model)] if model_used else []
        code = main([str(argument) for argument in [*arguments, *used, '--json']])
        return code, json.loads(capsys.readouterr().out)

    return run
