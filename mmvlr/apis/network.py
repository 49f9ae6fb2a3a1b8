"""Load networks from files of any supported format, without running code of the file."""

import copy
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from mmengine.registry import DefaultScope
from torch.overrides import TorchFunctionMode

from mmvlr.models.quality import FaceBatch, QualityMeasure
from mmvlr.models.recognizers import FaceRecognizer, predict_in_full_batches
from mmvlr.registry import MODELS, check_registered
from mmvlr.structures.face_table import PREDICTED
from mmvlr.utils.checkpoint import (
    CheckpointMismatchError,
    check_values,
    digest_state,
    unwrap_state_dict,
)
from mmvlr.utils.compat import load_checkpoint_file
from mmvlr.utils.contract import (
    CONTRACT_KEY,
    ModelMismatchError,
    check_contract,
    contract_of_checkpoint,
)
from mmvlr.utils.text import printable
from mmvlr.utils.zoo import find_model

from .plain_values import plain_assignment

#: State that only training needs, or that affects neither embeddings nor qualities.
_NOT_USED = ('head.', 'data_preprocessor.', 'ui_mean', 'ui_std')
_TRAINING_ONLY = (
    'head',
    'distillation',
    'loss_regression',
    'loss_diversion',
    'loss_attention',
    'init_cfg',
)
_SHOWN = 300  # characters of a file's text in messages
# mmengine keeps one default scope for all threads.
_building = threading.Lock()


class Network(Protocol):
    """Interface of the networks of :class:`mmvlr.apis.FaceInferencer`: PyTorch model or ONNX file.

    Attributes:
        fingerprint: See :func:`fingerprint_model`.
        contract: The preprocessing contract.
        size: (height, width) of the faces in pixels.
        training_note: What the training set said of its faces, or None.
    """

    fingerprint: dict[str, Any]
    contract: dict[str, Any]
    size: tuple[int, int]
    training_note: str | None

    def __call__(self, faces: np.ndarray) -> dict[str, np.ndarray]:
        """Map faces (B, H, W, 3), uint8 RGB of the contract's size, to the outputs of the network.

        Returns:
            dict: float32 ``embedding`` (B, D), ``norm`` (B,) and, where the model has them, ``ri``
            and ``ers`` (B,).
        """


class TorchNetwork:
    """A recognizer as a :class:`Network`.

    Args:
        model: The recognizer; it is put into eval mode on ``device``.
        device: Such as ``'cuda'``; None for the GPU if there is one.

    Attributes:
        measures: Quality measures beside those that the model predicts; their values are outputs.

    Raises:
        ValueError: A GPU is requested and there is none.
    """

    def __init__(self, model: FaceRecognizer, device: str | torch.device | None = None):
        if device is None:
            device = 'cuda' if torch.cuda.is_available() else 'cpu'
        self.device = torch.device(device)
        if self.device.type == 'cuda' and not torch.cuda.is_available():
            raise ValueError(
                f"device is '{device}', but PyTorch sees no GPU (mmvlr doctor says why); use 'cpu'"
            )
        self.model = model.to(self.device).eval()
        self.fingerprint = fingerprint_model(model)
        self.contract = model.data_preprocessor.contract
        self.size = model.data_preprocessor.size
        self.training_note = model.training_note
        self.measures: Sequence[QualityMeasure] = ()

    def inputs(self, faces: np.ndarray) -> torch.Tensor:
        """Return network input (B, 3, H, W) of faces (B, H, W, 3), uint8 RGB."""
        batch = torch.from_numpy(np.ascontiguousarray(faces)).permute(0, 3, 1, 2).contiguous()
        return self.model.data_preprocessor(dict(inputs=batch))['inputs']

    @torch.inference_mode()
    def __call__(self, faces: np.ndarray) -> dict[str, np.ndarray]:
        """See :class:`Network`."""
        inputs = self.inputs(faces)
        samples = self.model.predict(inputs)
        names = dict(embedding='embedding', **PREDICTED)
        found = {
            name: torch.stack([sample.get(key) for sample in samples])
            for name, key in names.items()
            if key in samples[0]
        }
        if self.measures:
            found |= predict_in_full_batches(self._measure, inputs)
        return {name: values.float().cpu().numpy() for name, values in found.items()}

    def _measure(self, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        faces = FaceBatch(self.model, inputs)
        return {measure.name: measure(faces) for measure in self.measures}


def load_model(
    path: str | Path,
    config: Mapping[str, Any] | None = None,
    adapter: str | Path | None = None,
    merge: bool = True,
) -> FaceRecognizer:
    """Build the recognizer of a checkpoint and load it, without head, in eval mode, on the CPU.

    A checkpoint of ``mmvlr train`` holds its config, from which the model's part is read as plain
    values; no code in it is run, and types are looked up in the registry only.

    Args:
        path: ``.pth`` of training or of a converter, or ``.safetensors`` that was published.
        config: Config of the model (a whole config's ``model``), for checkpoints without one or
            with types of your own.
        adapter: File of an adapter that was published alone, to be attached to this model.
        merge: Add an adapter that changes all faces alike to the weights.

    Raises:
        FileNotFoundError: There is no such file.
        ModelMismatchError: The adapter is of another base.
        UntrustedCheckpointError: The file would run code.
        CheckpointMismatchError: File and config do not fit together.
        ContractMismatchError: ``config`` states another preprocessing than the file.
        ValueError: The file does not describe its model, or no model can be built from its
            description.
    """
    path = find_model(path)
    if not path.is_file():
        raise FileNotFoundError(
            f'{path} does not exist; a model is a checkpoint (.pth), published weights '
            '(.safetensors) or an export (.onnx)'
        )
    size = path.stat().st_size
    base = None if adapter is None else load_model(path, config)
    if adapter is not None or path.suffix == '.safetensors':
        from .exported import read_published

        path, config = (path, config) if adapter is None else (Path(adapter).expanduser(), None)
        found, state, meta = read_published(path)
        _check_base(base, meta.get('base'), path)
        if base is not None:
            state |= {f'backbone.{key}': value for key, value in base.backbone.state_dict().items()}
        contract = meta['identity'][CONTRACT_KEY]
    else:
        checkpoint = load_checkpoint_file(str(path))
        if not isinstance(checkpoint, Mapping):
            raise ValueError(f'{path} holds a {type(checkpoint).__name__}, no checkpoint')
        try:
            state = unwrap_state_dict(checkpoint)
        except (AttributeError, TypeError) as error:
            raise ValueError(f'{path}: its state_dict holds no named weights') from error
        meta = checkpoint.get('meta')
        found = _stated_config(meta, path) if isinstance(meta, Mapping) else None
        contract = contract_of_checkpoint(checkpoint, path)
    stated = found if config is None else config
    if stated is None:
        raise ValueError(
            f'{path} does not say which model it is of; name its config file '
            '(for example --config configs/riface/mobilefacenet_tinyface.py)'
        )
    if not isinstance(stated, Mapping) or 'type' not in stated:
        raise ValueError(
            f'{path}: a config of a model is wanted, a dict with type and backbone (of a config '
            f'file: mmvlr.apis.load_config(FILE).model), not {stated!r:.80}'
        )
    stated = {key: value for key, value in stated.items() if key not in _TRAINING_ONLY}
    if isinstance(stated.get('backbone'), Mapping):
        # Starting weights of the training are replaced by those of the checkpoint.
        stated['backbone'] = {k: v for k, v in stated['backbone'].items() if k != 'init_cfg'}
    own_preprocessor = stated.get('data_preprocessor')
    if isinstance(contract, Mapping):
        stated['data_preprocessor'] = {**contract, 'type': 'FaceDataPreprocessor'}
    check_registered(stated, MODELS, str(path))
    model = _build(stated, path, len(state), size)
    if not isinstance(model, FaceRecognizer):
        raise ValueError(f'{path}: model.type is {stated["type"]!r}, which is no recognizer')
    if config is not None and own_preprocessor is not None and contract is not None:
        expected = _build(own_preprocessor, path, len(state), size).contract
        check_contract(expected, contract, str(path))
    _load(model, state, path)
    _require_embedding(model.eval(), path)
    if merge and model.adapter is not None and model.adapter.is_constant:
        model.merge_adapter()
        stated['backbone'] = {k: v for k, v in stated['backbone'].items() if k != 'adapter'}
    #: What the model was built from, for publishing it.
    model.source_config = stated
    model.training_note = _read_training_note(meta) or (base and base.training_note)
    return model


def _read_training_note(meta: Any) -> str | None:
    """Return what the training set says of its faces, such as that they are synthetic."""
    meta = meta if isinstance(meta, Mapping) else {}
    data = meta.get('dataset_meta')
    note = data.get('note') if isinstance(data, Mapping) else meta.get('training_note')
    return printable(note[:_SHOWN]) if isinstance(note, str) else None


def _check_base(base: FaceRecognizer | None, wanted: str | None, path: Path) -> None:
    """Raise ValueError unless a published file has the base that it needs."""
    if base is None and wanted is not None:
        raise ValueError(
            f'{path} is an adapter alone: name its base, the model that it was trained on, too '
            f'(load_model(BASE, adapter=FILE), or mmvlr export BASE OUT --adapter {path.name})'
        )
    if base is None:
        return
    if wanted is None:
        raise ValueError(
            f'{path} is a whole model and no adapter: use it without a base; mmvlr export '
            '--adapter-only writes an adapter'
        )
    found = digest_state(base.backbone.state_dict())
    if found != wanted:
        raise ModelMismatchError(
            f'{path} is an adapter of a backbone with the weights {wanted[:12]}, but those of the '
            f'given base are {found[:12]}: name the model that the adapter was trained on'
        )


def _require_embedding(model: FaceRecognizer, path: Path) -> None:
    """Raise ValueError unless a face of the size of the preprocessing goes through the model."""
    height, width = model.data_preprocessor.size
    try:
        with torch.inference_mode():
            model.predictions(torch.zeros(1, 3, height, width))
    except Exception as error:  # layers raise what they like for maps that they do not fit
        reason = ' '.join(str(error).split())[:_SHOWN]
        raise ValueError(
            f'{path}: the model cannot embed faces of {height} x {width} pixels, the size that '
            f'its preprocessing states ({reason}); the file is damaged, or its config is of '
            'another model'
        ) from error


class _Allowance(TorchFunctionMode):
    """Limit what is built to what a file of ``size`` bytes with ``count`` weights can fill.

    Sizes and numbers of layers in a file are trusted only as far as its weights justify them.
    """

    _MAKING = frozenset({torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn})

    def __init__(self, size: int, count: int):
        super().__init__()
        self.numbers = 2**24 + size
        self.calls = 10_000 + 100 * count

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        self.calls -= 1
        if func in self._MAKING:
            sizes = {key: kwargs[key] for key in ('size', 'fill_value') if key in kwargs}
            self.numbers -= func(*args, **sizes, device='meta').numel()
        if self.calls < 0 or self.numbers < 0:
            raise ValueError('it describes more or larger layers than the file has weights')
        return func(*args, **kwargs)


def _build(config: Mapping[str, Any], path: Path, count: int, size: int) -> Any:
    allowance = _Allowance(size, count)
    try:
        with _building, DefaultScope.overwrite_default_scope('mmvlr'), allowance:
            return MODELS.build(dict(config))
    except Exception as error:  # parts raise what they like for arguments that they do not know
        reason = ' '.join(str(error).split())[:_SHOWN]
        raise ValueError(
            f'{path}: no {config["type"]} can be built from its config ({reason}); it may be of '
            'another version of mmvlr'
        ) from error


def _stated_config(meta: Mapping[str, Any], path: Path) -> dict[str, Any] | None:
    if isinstance(meta.get('cfg'), str):
        return plain_assignment(meta['cfg'], 'model', str(path))
    if isinstance(meta.get('architecture'), Mapping):
        return dict(type='FaceRecognizer', backbone=dict(meta['architecture']))
    return None


def _load(model: FaceRecognizer, state: Mapping[str, torch.Tensor], path: Path) -> None:
    wanted = model.state_dict()
    state = {
        key: value
        for key, value in state.items()
        if isinstance(value, torch.Tensor) and not key.startswith('head.')
    }
    # A converted backbone has no UI center, and so only lacks ERS.
    optional = ('num_batches_tracked', 'ui_center', 'ui_mean', 'ui_std', 'data_preprocessor')
    missing = [k for k in wanted if k not in state and not any(part in k for part in optional)]
    shapes = [
        f'{key}: checkpoint {tuple(value.shape)}, model {tuple(wanted[key].shape)}'
        for key, value in state.items()
        if key in wanted and value.shape != wanted[key].shape
    ]
    known = {key.split('.')[0] for key in wanted}
    unknown = [k for k in state if k not in wanted and k.split('.')[0] in known]
    for problem, names in (
        ('weights of the model are missing in it', missing),
        ('weights have another shape', shapes),
        ('of its weights are unknown', unknown),
    ):
        if names:
            raise CheckpointMismatchError(
                f'{path} does not fit its config: {len(names)} {problem}, such as '
                f'{names[0]:.{_SHOWN}}'
            )
    check_values(state, wanted, str(path))
    model.load_state_dict(state, strict=False)


def fingerprint_model(model: FaceRecognizer) -> dict[str, Any]:
    """Return the fingerprint that decides whether embeddings of two models can be compared.

    Returns:
        dict: ``weights``, SHA-256 of the weights for embedding and qualities, independent of the
        file format; ``preprocessing``, the contract; ``embedding``, its size and how it is made.
    """
    if model.adapter is not None and model.adapter.is_constant:
        # An adapter is the same model merged or not.
        model = copy.deepcopy(model, {id(model.head): None}).cpu()
        model.merge_adapter()
    made = dict(dims=model.embed_dims, flip_fusion=model.flip_fusion)
    made['inference_embedding'] = getattr(model, 'inference_embedding', 'backbone')
    return {
        'weights': digest_state(
            {k: v for k, v in model.state_dict().items() if not k.startswith(_NOT_USED)}
        ),
        CONTRACT_KEY: model.data_preprocessor.contract,
        'embedding': made,
    }


def load_network(
    source: Any, device: str | None = None, config: Mapping[str, Any] | None = None
) -> Network:
    """Return the network of a recognizer, a checkpoint, published weights or an ONNX file.

    Args:
        source: A :class:`FaceRecognizer`, a :class:`Network`, or the path of a file.
        device: Such as ``'cuda'`` or ``'cpu'``; None for the GPU if there is one.
        config: See :func:`load_model`.

    Raises:
        TypeError: It is none of these kinds. For other errors see :func:`load_model`.
    """
    if isinstance(source, FaceRecognizer):
        return TorchNetwork(source, device)
    if not isinstance(source, (str, Path)):
        if not (callable(source) and hasattr(source, 'fingerprint')):
            raise TypeError(
                'a model is the path of a checkpoint, published weights or an export, a '
                f'FaceRecognizer or a Network, not {type(source).__name__}'
            )
        return source
    if Path(source).suffix == '.onnx':
        from .exported import OnnxNetwork

        providers = None
        if device is not None and str(device) not in ('cpu', 'cuda', 'cuda:0'):
            raise ValueError(
                f"an export runs on 'cpu' or the first GPU ('cuda'), not {str(device)!r}; choose "
                'another GPU by CUDA_VISIBLE_DEVICES'
            )
        if device is not None:
            kind = 'CUDA' if 'cuda' in str(device) else 'CPU'
            providers = [f'{kind}ExecutionProvider']
        return OnnxNetwork(Path(source).expanduser(), providers=providers)
    return TorchNetwork(load_model(source, config), device)
