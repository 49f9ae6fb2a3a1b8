"""A small model in a file and folders of synthetic people, for tests of what users call."""

import torch
from PIL import Image

from mmvlr.datasets.synthesis import synthesize_face
from mmvlr.registry import MODELS

MODEL = dict(
    type='RIFace',
    backbone=dict(
        type='MobileFaceNet',
        input_size=32,
        embed_dims=16,
        stem_channels=8,
        stages=((16, 8, 1, 2), (16, 16, 1, 2)),
        last_channels=32,
    ),
    data_preprocessor=dict(type='FaceDataPreprocessor', size=(32, 32)),
)


def model_file(path, seed=0):
    """Write a checkpoint as training does: weights with a head, config as text, contract."""
    torch.manual_seed(seed)
    model = MODELS.build(dict(MODEL))
    with torch.no_grad():
        for name, value in model.state_dict().items():
            # To a fresh network all faces look the same.
            if name.endswith(('weight', 'bias')):
                value.add_(0.3 * torch.randn_like(value))
    model.set_ui_center(torch.randn(16))
    head = dict(type='RecognitionModule', num_classes=5)
    meta = dict(
        cfg=f'data_root = "x"\nmodel = {dict(MODEL, head=head)!r}\n',
        preprocessing=model.data_preprocessor.contract,
    )
    state = {**model.state_dict(), 'head.weight': torch.ones(5, 16)}
    torch.save(dict(state_dict=state, meta=meta), path)
    return path


def people_folders(root, numbers, images=3):
    """Write images of synthetic people as ``root/Zoë NUMBER/k.png``; return their names."""
    names = []
    for number in numbers:
        names.append(f'Zoë {number}')
        folder = root / names[-1]
        folder.mkdir(parents=True, exist_ok=True)
        for image in range(images):
            face = synthesize_face(number, image, seed=0)
            Image.fromarray(face.image).save(folder / f'{image}.png')
    return names
