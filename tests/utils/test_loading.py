"""What workers of a data loader hand over: bytes, no open files; and whoever dies ends the run."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner
from PIL import Image

from mmvlr.datasets import FaceDataset, SyntheticFaces
from mmvlr.datasets.synthesis import synthesize_face
from mmvlr.engine import extract_predictions
from mmvlr.engine.scoring import measure_quality
from mmvlr.registry import MODELS
from mmvlr.utils import compat

PIPELINE = [dict(type='LoadFace'), dict(type='ResizeFace', size=(32, 32)), dict(type='PackFace')]


def loader(dataset, batch_size, **options):
    compat.apply()
    return Runner.build_dataloader(
        dict(
            batch_size=batch_size,
            num_workers=2,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dataset,
            **options,
        ),
        seed=0,
    )


@pytest.fixture
def few_files():
    """An account that may open 256 files."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def count_open_files():
    return len(os.listdir('/proc/self/fd'))


@pytest.mark.parametrize('collate', ['mmvlr.face_collate', 'pseudo_collate'])
def test_a_thousand_faces_need_no_open_files(few_files, tiny_backbone, tiny_preprocessor, collate):
    """Labels, images and native images of all faces are kept until the last one was seen."""
    faces = SyntheticFaces(num_people=20, images_per_person=50, pipeline=PIPELINE)
    model = MODELS.build(
        dict(type='FaceRecognizer', backbone=tiny_backbone, data_preprocessor=tiny_preprocessor)
    )
    batches = loader(faces, 64, collate_fn=dict(type=collate))
    before = count_open_files()
    found = extract_predictions(model, batches)
    kept = list(batches)
    # The last iterator's pipes may not have been closed yet.
    assert count_open_files() < before + 30
    assert [int(sample.gt_label) for sample in found['samples']] == [i // 50 for i in range(1000)]
    assert not any(image.is_shared() for batch in kept for image in batch['inputs'])
    quality = measure_quality(None, batches, [dict(type='SizeQuality')])
    assert [len(values) for values in quality.values()] == [1000]


class Kinds(FaceDataset):
    """Tensors of many kinds."""

    values = (
        torch.tensor(7),
        torch.arange(12.0).reshape(3, 4).T[1:],
        torch.tensor([True, False]),
        torch.zeros(0, 3, dtype=torch.float64),
        torch.tensor([1 + 2j]).conj(),
        torch.tensor([1.5, -2], dtype=torch.bfloat16),
    )

    def load_data_list(self):
        return [dict(role='train') for _ in self.values]

    def prepare_data(self, idx):
        return self.values[idx]


def test_tensors_arrive_as_they_were():
    (found,) = loader(Kinds(), len(Kinds.values), collate_fn=list)
    for got, sent in zip(found, Kinds.values, strict=True):
        assert got.dtype is sent.dtype and torch.equal(got, sent)
        got.fill_(1)  # it is not read-only


class Dying(SyntheticFaces):
    """Its first worker ends while it makes its second batch."""

    def __init__(self, how):
        self.how = how
        super().__init__(num_people=64, images_per_person=4, pipeline=PIPELINE)

    def prepare_data(self, idx):
        face = super().prepare_data(idx)
        if idx == 200:
            if self.how == 'unsendable':
                face['data_samples'].set_metainfo(dict(img_path=lambda: None))
            elif self.how == 'killed':
                os.kill(os.getpid(), signal.SIGKILL)
            elif self.how != 'never':
                os._exit(int(self.how))
        return face


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize('how', ['0', '1', 'killed', 'unsendable'])
def test_a_dead_worker_ends_the_run(how):
    """Also one that died while its first batch, larger than a pipe, was half sent."""
    collate = dict(type='mmvlr.face_collate')
    begin = time.monotonic()
    with pytest.raises(RuntimeError, match=r'(?i)worker.* (exited|killed|ended)'):
        batches = iter(loader(Dying(how), 100, collate_fn=collate))
        if how != 'unsendable':
            batches._workers[0].join()
        list(batches)
    assert time.monotonic() - begin < 60


@pytest.mark.slow
def test_workers_end_with_a_killed_parent(root, tmp_path):
    """They would wait for ever to send the batch that nobody reads."""
    script = tmp_path / 'killed.py'
    script.write_text(
        'import os, signal, time\n'
        'from tests.utils.test_loading import Dying, loader\n'
        "batches = iter(loader(Dying('never'), 100, collate_fn=dict(type='mmvlr.face_collate')))\n"
        'time.sleep(2)\n'
        'print(*[worker.pid for worker in batches._workers], flush=True)\n'
        'os.kill(os.getpid(), signal.SIGKILL)\n'
    )
    environment = {**os.environ, 'PYTHONPATH': str(root)}
    # To a file: a pipe would stay open as long as the workers live.
    with open(tmp_path / 'pids', 'w') as out:
        subprocess.run([sys.executable, script], env=environment, stdout=out, check=False)
    workers = (tmp_path / 'pids').read_text().split()[-2:]
    assert len(workers) == 2
    deadline = time.monotonic() + 20
    while any(Path('/proc', pid).exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not [pid for pid in workers if Path('/proc', pid).exists()]


def write_faces(folder, person, count):
    folder.mkdir(parents=True)
    for number in range(count):
        image = synthesize_face(person, number, seed=0).image
        Image.fromarray(image).save(folder / f'{number}.png')


@pytest.mark.slow
def test_a_shipped_recipe_trains_with_256_files(root, tmp_path):
    """More faces than files, with workers: prototypes, UI center and steps."""
    for person in range(14):
        write_faces(tmp_path / 'tinyface' / 'Training_Set' / str(person), person, 20)
    write_faces(tmp_path / 'ui', 99, 8)
    environment = {
        **os.environ,
        'PYTHONPATH': str(root),
        'TINYFACE_ROOT': str(tmp_path / 'tinyface'),
        'UI_ROOT': str(tmp_path / 'ui'),
    }
    command = [sys.executable, root / 'tools' / 'train.py']
    command += [root / 'configs' / 'riface' / 'mobilefacenet_tinyface.py', '--max-iters', '2']
    command += ['--work-dir', tmp_path / 'run']
    command += ['--cfg-options', 'load_from=None', 'train_dataloader.batch_size=8']
    limit = 'ulimit -n 256; exec "$@"'
    done = subprocess.run(
        ['bash', '-c', limit, 'bash', *map(str, command)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / 'run' / 'iter_2.pth').is_file()
