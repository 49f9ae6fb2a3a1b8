"""build_ui_set.py on composed people: kill and resume, broken images, clusters."""

import importlib.util
import os
import time

import numpy as np
import pytest
from PIL import Image

from mmvlr.apis import load_config
from mmvlr.datasets import UIFaces
from mmvlr.registry import MODELS
from mmvlr.reports.ui_set import build_embedder
from mmvlr.utils.checkpoint import save_pretrained
from tests.preparation.test_ui_building import compose_people, contents, read_manifest, real_faces
from tests.tools.test_align_tool import run_killed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec('facenet_pytorch') is None,
        reason="facenet-pytorch is missing: pip install 'mmvlr[align]'",
    ),
]
TOOL = 'dataset_converters/build_ui_set.py'


@pytest.fixture(scope='module')
def people(shared, tmp_path_factory):
    """Four tracks of three images in the layout of LPW, and an image that is cut short."""
    root = tmp_path_factory.mktemp('people') / 'lpw'
    compose_people(root, real_faces(shared, 8, 20), 'lpw', tracks=4)
    broken = root / 'scen1' / 'view1' / '0000' / '00001.jpg'
    broken.write_bytes(broken.read_bytes()[:900])
    return root


def running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A dead process that nobody waited for is no longer running.
    with open(f'/proc/{pid}/stat') as file:
        return file.read().rsplit(')', 1)[1].split()[0] != 'Z'


def test_killed_and_started_again_it_gives_the_same(people, tmp_path, root, tool, capsys):
    whole, out = tmp_path / 'whole', tmp_path / 'out'
    main = tool(TOOL).main
    assert main([str(people), str(whole), '--layout', 'lpw']) == 3
    printed = capsys.readouterr()
    assert '1 images cannot be read' in printed.err
    assert '0000/00001.jpg' in printed.err
    assert '12 images, 0 of them searched before' in printed.out
    assert 'images without a face' in printed.out
    rows = read_manifest(whole)
    assert len(rows) >= 3
    assert f'{len(rows)} kept' in printed.out
    faces = UIFaces(str(whole / 'faces'))
    assert len(faces) == len(rows)
    with Image.open(whole / 'contact_sheet.png') as sheet:
        assert sheet.size[0] > 72 * len(rows)

    workers = run_killed(root, TOOL, 5, people, out, '--layout', 'lpw', '--jobs', '2')
    assert len(workers) == 2
    assert not (out / 'manifest.csv').exists()
    end = time.monotonic() + 60
    while any(running(pid) for pid in workers) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(running(pid) for pid in workers)
    assert main([str(people), str(out), '--layout', 'lpw']) == 3
    assert '12 images, 5 of them searched before' in capsys.readouterr().out
    assert contents(out) == contents(whole)


def test_clusters_of_a_checkpoint(people, tmp_path, tool, config_file, capsys):
    config = load_config(config_file)
    model = MODELS.build({**config.model, 'head': None})
    checkpoint = tmp_path / 'tiny.pth'
    save_pretrained(checkpoint, model.backbone, model.data_preprocessor.contract)
    main, out = tool(TOOL).main, tmp_path / 'out'
    args = [str(people), str(out), '--layout', 'lpw', '--every', '2']
    model_args = ['--config', config_file, '--checkpoint', str(checkpoint)]
    # Nothing is merged below a distance of zero: the largest cluster is one face. The image that
    # is cut short is not among every second one.
    assert main([*args, *model_args, '--cluster-distance', '0']) == 0
    printed = capsys.readouterr().out
    assert len(read_manifest(out)) == 1
    assert 'faces outside the unrecognizable cluster' in printed
    assert 'the largest of 1, ' in printed
    assert main([*args, *model_args, '--cluster-distance', '2']) == 0
    together = read_manifest(out)
    assert main(args) == 0
    assert read_manifest(out) == together
    assert len(together) > 1

    # The embeddings are those of the model, image for image.
    crops = [np.asarray(Image.open(out / row['file'])) for row in together]
    embed = build_embedder(config_file, str(checkpoint))
    found = embed(crops)
    for crop, embedding in zip(crops, found, strict=True):
        alone = embed([crop])[0]
        np.testing.assert_allclose(alone, embedding, rtol=1e-4, atol=1e-4)
    other = load_config(config_file, {'model.data_preprocessor.color_order': 'BGR'})
    changed = tmp_path / 'bgr.py'
    other.dump(str(changed))
    args += ['--config', str(changed), '--checkpoint', str(checkpoint)]
    assert main(args) == 1
    assert 'color_order' in capsys.readouterr().err


def test_without_a_face_nothing_is_written_and_said(people, tmp_path, tool, config_file, capsys):
    out = tmp_path / 'out'
    back = people / 'scen3' / 'view1' / '0002'
    assert tool(TOOL).main([str(back), str(out), '--layout', 'folder']) == 1
    assert 'no face is left' in capsys.readouterr().err
    assert not (out / 'contact_sheet.png').exists()
    with pytest.raises(SystemExit):
        tool(TOOL).main([str(back), str(out), '--layout', 'folder', '--config', str(config_file)])
    assert '--config and --checkpoint go together' in capsys.readouterr().err
    assert tool(TOOL).main([str(back), str(out), '--layout', 'mars']) == 1
    assert 'bbox_train' in capsys.readouterr().err
