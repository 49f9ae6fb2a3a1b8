"""The functions that users of MMPretrain, MMDetection and their like type: models by name."""

import fnmatch
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmvlr.engine.building import load_config
from mmvlr.models.recognizers import FaceRecognizer
from mmvlr.registry import MODELS
from mmvlr.structures import FaceTable
from mmvlr.utils.shipped import list_configs
from mmvlr.utils.zoo import ZOO

from .inferencer import FaceInferencer
from .network import load_model


def list_models(pattern: str | None = None) -> list[str]:
    """Return the names that :func:`get_model` takes: of the model zoo, and of mmvlr's configs.

    Args:
        pattern: Such as ``'riface/*'``; None for all.

    Example:
        >>> list_models('sface*')
        ['sface']
    """
    return fnmatch.filter([*ZOO, *list_configs()], pattern or '*')


def get_model(
    model: str | Path | Config,
    pretrained: bool | str | Path = False,
    device: str | None = None,
    **kwargs: Any,
) -> FaceRecognizer:
    """Return a recognizer in eval mode.

    Args:
        model: A name of :func:`list_models`, a checkpoint, or a config (name, file or object).
        pretrained: For a config, the checkpoint to load into it; True for the one of its
            ``load_from``. A name of the zoo and a checkpoint have weights anyway.
        device: Such as ``'cuda'``; None for the CPU.
        **kwargs: Entries of the config's model to replace, such as ``head``. Without
            ``head`` there is none, as inference needs none.

    Raises:
        FileNotFoundError: There is no such model, or it was not fetched yet (``mmvlr models get``).
    """
    if not isinstance(model, Config):
        name = str(model)
        if name in ZOO or Path(name).suffix in ('.pth', '.safetensors'):
            return load_model(name).to(device or 'cpu')
        model = load_config(name)
    settings = {**model.model.to_dict(), 'head': None, **kwargs}
    if pretrained is True:
        pretrained = model.get('load_from')
        if not pretrained:
            raise ValueError('the config has no load_from; name the checkpoint: pretrained=FILE')
    if pretrained:
        built = load_model(pretrained, None if pretrained == model.get('load_from') else settings)
    else:
        with DefaultScope.overwrite_default_scope('mmvlr'):
            built = MODELS.build(settings)
    return built.to(device or 'cpu').eval()


def init_model(
    config: str | Path | Config, checkpoint: str | Path | None = None, device: str | None = None
) -> FaceRecognizer:
    """Return the recognizer of a config, with the weights of a checkpoint if one is given.

    Args:
        config: See :func:`get_model`.
        checkpoint: The checkpoint.
        device: Such as ``'cuda'``; None for the CPU.
    """
    return get_model(config, checkpoint or False, device)


def inference_model(model: Any, images: Any, **kwargs: Any) -> FaceTable:
    """Return embeddings and qualities of images.

    Args:
        model: A recognizer, or what :class:`FaceInferencer` takes: a name of the zoo, a file.
        images: See :meth:`FaceInferencer.embed`.
        **kwargs: Arguments of :class:`FaceInferencer`.
    """
    return FaceInferencer(model, **kwargs).embed(images)
