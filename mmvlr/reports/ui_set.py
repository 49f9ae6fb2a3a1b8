"""Inspect a UI set: embed its crops by a model, and draw a contact sheet of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from mmengine.registry import DefaultScope
from PIL import Image
from torch.utils.data import DataLoader

from mmvlr.datasets import NO_IDENTITY, FaceDataset, face_collate
from mmvlr.engine import extract_predictions
from mmvlr.engine.building import load_config
from mmvlr.preparation.ui_building import FACES_FOLDER, SHEET_FILE, UISet
from mmvlr.registry import MODELS
from mmvlr.utils.checkpoint import check_architecture, unwrap_state_dict
from mmvlr.utils.compat import load_checkpoint_file
from mmvlr.utils.contract import check_contract, contract_of_checkpoint
from mmvlr.utils.io import write_atomic
from mmvlr.utils.outputs import OutputFolder

from .faces import FaceCard, contact_sheet

SHEET_FACES = 240


class Crops(FaceDataset):
    """Faces in memory, for the pipeline of a config."""

    def __init__(self, crops: list[np.ndarray], pipeline: list):
        self.crops = crops
        super().__init__(data_root='crops', pipeline=pipeline, test_mode=True)

    def load_data_list(self) -> list[dict]:
        """Return one record per face."""
        return [dict(img=crop, identity=NO_IDENTITY, role='ui') for crop in self.crops]


def build_embedder(
    config_file: str | Path, checkpoint: str
) -> Callable[[list[np.ndarray]], np.ndarray]:
    """Return a function from crops to embeddings of a checkpoint's model.

    Raises:
        CheckpointMismatchError, ContractMismatchError: The checkpoint does not fit the config.
    """
    config = load_config(config_file)
    state = load_checkpoint_file(checkpoint)
    with DefaultScope.overwrite_default_scope('mmvlr'):
        model = MODELS.build({**config.model, 'head': None})
    check_architecture(model, state, checkpoint)
    contract = contract_of_checkpoint(state)
    if contract is not None:
        check_contract(model.data_preprocessor.contract, contract, checkpoint)
    # The head of a trained checkpoint is not needed here.
    model.load_state_dict(unwrap_state_dict(state), strict=False)

    def embed(crops: list[np.ndarray]) -> np.ndarray:
        with DefaultScope.overwrite_default_scope('mmvlr'):
            dataset = Crops(crops, config.test_dataloader.dataset.pipeline)
        loader = DataLoader(dataset, batch_size=64, collate_fn=face_collate)
        return extract_predictions(model, loader)['embedding'].numpy()

    return embed


def write_sheet(out: Path, result: UISet) -> None:
    """Write a contact sheet of faces spread evenly over the set."""
    with OutputFolder(out, 'build_ui_set', wait=60) as output:
        output.claim([SHEET_FILE])
        if not result.faces:
            output.remove([SHEET_FILE])
            return
        _write_sheet(out, result)


def _write_sheet(out: Path, result: UISet) -> None:
    count = min(SHEET_FACES, len(result.faces))
    cards = []
    for index in np.linspace(0, len(result.faces) - 1, count).round().astype(int):
        with Image.open(out / FACES_FOLDER / f'ui_{index + 1:06d}.png') as face:
            pixels = np.asarray(face.convert('RGB'))
        caption = (f'{index + 1}', f'{pixels.shape[1]} x {pixels.shape[0]}')
        cards.append(FaceCard(pixels, caption))
    sheet = Image.fromarray(contact_sheet(cards, columns=16, size=64))
    write_atomic(out / SHEET_FILE, sheet.save)
