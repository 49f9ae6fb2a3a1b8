"""Export a model for distribution: self-contained ONNX files and published weights."""

import contextlib
import copy
import hashlib
import io
import json
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from mmvlr.models.folding import folded
from mmvlr.models.recognizers import FaceRecognizer
from mmvlr.utils.checkpoint import digest_state
from mmvlr.utils.io import sha256_of, write_atomic
from mmvlr.version import __version__

from .exported import (
    FORMAT,
    METADATA,
    OPSET,
    SEAL,
    OnnxNetwork,
    digest_weights,
    needs,
    read_published,
)
from .network import fingerprint_model, load_model

__all__ = ['OnnxNetwork', 'export_onnx', 'largest_differences', 'publish', 'read_published']

#: Names of the outputs of a file and those of :meth:`FaceRecognizer.predictions`.
OUTPUTS = dict(embedding='embedding', norm='embedding_norm', ri='recognizability', ers='ers')
#: Largest allowed difference between a file and the model. See :func:`largest_differences`.
TOLERANCE = 1e-4
_LICENSE = re.compile(
    r'\(*[\w.+-]+(:[\w.+-]+)?\)*( (AND|OR|WITH) \(*[\w.+-]+(:[\w.+-]+)?\)*)*', re.ASCII
)


class Exported(NamedTuple):
    """Result of :func:`export_onnx`.

    Attributes:
        path: The file.
        sha256: SHA-256 of the file.
        differences: Largest difference from the model for each output, see
            :func:`largest_differences`.
    """

    path: Path
    sha256: str
    differences: dict[str, float]


# ONNX: writing -----------------------------------------------------------------------------------


class PlainPReLU(nn.Module):
    """Compute PReLU as a x + (1 - a) relu(x), with the slope a of each channel.

    onnxruntime's PRelu processes a map element by element on CPU: in a MobileFaceNet it takes more
    time than all convolutions together. Sums and products are vectorized.

    Args:
        prelu: The layer to replace, for maps (B, C, h, w).
    """

    def __init__(self, prelu: nn.PReLU):
        super().__init__()
        slope = prelu.weight.detach().view(-1, 1, 1).clone()
        self.register_buffer('slope', slope)
        self.register_buffer('rest', 1 - slope)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, h, w) to the same shape."""
        return self.slope * x + self.rest * F.relu(x)


class _Faces(nn.Module):
    """A recognizer as a function of uint8 faces, ready to be traced.

    Args:
        model: The recognizer, float32 on the CPU; a folded copy of it is used.
    """

    def __init__(self, model: FaceRecognizer):
        super().__init__()
        self.model = folded(model)
        for parent in list(self.model.backbone.modules()):
            for name, child in parent.named_children():
                if isinstance(child, nn.PReLU):
                    setattr(parent, name, PlainPReLU(child))

    def forward(self, faces: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map faces (B, H, W, 3), uint8 RGB, to the outputs of the file."""
        data = dict(inputs=faces.permute(0, 3, 1, 2))
        found = self.model.predictions(self.model.data_preprocessor(data)['inputs'])
        return {name: found[key].float() for name, key in OUTPUTS.items() if key in found}


def export_onnx(
    model: FaceRecognizer, path: str | Path, license: str, name: str | None = None
) -> Exported:
    """Write a recognizer as one ONNX file that takes uint8 faces.

    Input ``faces`` (B, H, W, 3), uint8 RGB of the contract's size, any B; outputs ``embedding``
    (B, D), ``norm`` (B,) and, if the model has them, ``ri`` and ``ers`` (B,), float32. Scaling,
    color order, flip fusion and the choice of embedding are part of the graph. The file is run by
    onnxruntime and compared with the model before it is renamed to ``path``.

    Args:
        model: The recognizer.
        path: The file, ``.onnx``.
        license: SPDX expression of the weights' license, such as ``'CC-BY-NC-4.0'``.
        name: Name of the model; that of the file by default.

    Raises:
        ImportError: A package of ``mmvlr[export]`` is missing.
        ValueError: A bad argument, or a model of 2 GB or more.
        RuntimeError: The outputs of onnxruntime differ from those of the model.
    """
    onnx, _, _ = needs('onnx', 'onnxscript', 'onnxruntime')
    path = _checked(path, '.onnx', license)
    if model.adapter is not None and not model.adapter.is_constant:
        raise ValueError(
            f'{path}: adapters that a gate weights face by face cannot be written as ONNX; write '
            '.safetensors, or use a FixedGate'
        )
    # Reference of the comparison: the unfolded model on the CPU.
    model = copy.deepcopy(model, {id(model.head): None}).cpu().float().eval()
    traced = _Faces(model)
    size = sum(value.nbytes for value in traced.state_dict().values())
    if size > 2**31 - 2**24:
        raise ValueError(f'the weights take {size:,} bytes; one ONNX file holds less than 2 GB')
    proto = _traced(traced, model)
    proto.graph.name = name or path.stem
    proto.producer_name, proto.producer_version = 'mmvlr', __version__
    fingerprint = fingerprint_model(model)
    onnx.helper.set_model_props(
        proto,
        {
            'mmvlr.format': str(FORMAT),
            'mmvlr.version': __version__,
            'mmvlr.name': proto.graph.name,
            'mmvlr.license': license,
            'mmvlr.weights_sha256': fingerprint['weights'],
            'mmvlr.identity': json.dumps(fingerprint),
            'mmvlr.contract': json.dumps(model.data_preprocessor.contract),
            'mmvlr.outputs': json.dumps([output.name for output in proto.graph.output]),
        }
        | ({'mmvlr.training_note': note} if (note := model.training_note) else {}),
    )
    onnx.checker.check_model(proto)
    data = proto.SerializeToString(deterministic=True)
    data += SEAL + hashlib.sha256(data).hexdigest().encode()
    differences: dict[str, float] = {}

    def write(temporary: Path) -> None:
        temporary.write_bytes(data)
        network = OnnxNetwork(temporary, providers=['CPUExecutionProvider'])
        differences.update(largest_differences(model, network))
        # Not "any above": a difference of nan must fail too.
        wrong = [
            f'{key} by {value:.1e}' for key, value in differences.items() if not value < TOLERANCE
        ]
        if wrong:
            raise RuntimeError(
                f'{path} was not written: onnxruntime and PyTorch differ ({", ".join(wrong)}; '
                f'{TOLERANCE:.0e} is allowed). Please report the versions of torch and onnxruntime'
            )

    write_atomic(path, write)
    return Exported(path, sha256_of(path), differences)


def _traced(traced: _Faces, model: FaceRecognizer) -> Any:
    """Return the ModelProto of the traced model, without information about this machine."""
    if torch.__version__ < (2, 5):
        raise ImportError(
            f'the export to ONNX needs torch 2.5 or later, this is {torch.__version__}'
        )
    faces = torch.zeros(2, *model.data_preprocessor.size, 3, dtype=torch.uint8)
    with torch.no_grad(), _quiet():
        names = list(traced(faces))
        program = torch.onnx.export(
            traced,
            (faces,),
            dynamo=True,
            opset_version=OPSET,
            input_names=['faces'],
            output_names=names,
            dynamic_shapes=({0: torch.export.Dim('batch')},),
            external_data=False,
        )
    proto = program.model_proto
    graph = proto.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        # Names of source files and lines.
        del part.metadata_props[:]
        part.ClearField('doc_string')
    for part in graph.initializer:
        del part.metadata_props[:]
    del graph.value_info[:]
    return proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress progress, warnings and log lines of the exporter."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(disabled)


def largest_differences(
    model: FaceRecognizer, network: 'OnnxNetwork', batch_sizes: Sequence[int] = (1, 37)
) -> dict[str, float]:
    """Return the largest differences between a file and its model, on random images.

    Differences of ``embedding`` are divided by the length of the model's embedding, all others by
    the value where it exceeds 1.

    Args:
        model: The recognizer, in eval mode on the CPU.
        network: The file.
        batch_sizes: Numbers of faces at once.

    Returns:
        dict: The largest over all faces for each output; nan if a value is not finite.
    """
    rng = np.random.default_rng(0)
    height, width = network.size
    largest: dict[str, float] = {}
    for number in batch_sizes:
        # Blocks of 1 to 16 pixels: noise as well as large plain areas.
        faces = np.empty((number, height, width, 3), np.uint8)
        for index in range(number):
            block = 2 ** (index % 5)
            small = rng.integers(0, 256, (-(-height // block), -(-width // block), 3), np.uint8)
            faces[index] = small.repeat(block, 0).repeat(block, 1)[:height, :width]
        batch = torch.from_numpy(faces).permute(0, 3, 1, 2)
        with torch.no_grad():
            inputs = model.data_preprocessor(dict(inputs=batch))['inputs']
            wanted = {key: value.numpy() for key, value in model.predictions(inputs).items()}
        for name, found in network(faces).items():
            right = wanted[OUTPUTS[name]]
            if name == 'embedding':
                scale = np.linalg.norm(right, axis=1, keepdims=True)
            else:
                scale = np.maximum(np.abs(right), 1)
            difference = float((np.abs(found - right) / scale).max())
            largest[name] = float(np.maximum(largest.get(name, 0.0), difference))
    return largest


# Published weights -------------------------------------------------------------------------------


def publish(
    model: FaceRecognizer,
    path: str | Path,
    license: str,
    name: str | None = None,
    config: Mapping[str, Any] | None = None,
    adapter_only: bool = False,
) -> str:
    """Write a recognizer's weights as safetensors with a description of the model.

    Head and losses are left out. The metadata of the file hold what :func:`read_published`
    returns. Before it is renamed to ``path``, the file is read back and its model compared with the
    given one.

    Args:
        model: The recognizer.
        path: The file, ``.safetensors``.
        license: SPDX expression of the weights' license, such as ``'CC-BY-NC-4.0'``.
        name: Name of the model; that of the file by default.
        config: Config of the model for ``MODELS.build``; by default ``model.source_config``, which
            :func:`mmvlr.apis.network.load_model` sets.
        adapter_only: Leave the backbone out, which the file names by the SHA-256 of its weights
            instead; ``load_model(BASE, adapter=PATH)`` reads such a file. The model must not be
            merged: ``load_model(..., merge=False)``.

    Returns:
        str: SHA-256 of the file.

    Raises:
        ValueError: A bad argument.
        RuntimeError: The model read from the file differs from the given one.
    """
    path = _checked(path, '.safetensors', license)
    config = config or getattr(model, 'source_config', None)
    if config is None:
        raise ValueError(
            'the model does not say what it was built from: give its config, config=dict(type=...)'
        )
    config = _without_training(config)
    try:
        json.dumps(config)
    except TypeError as error:
        raise ValueError(
            f'the config of the model holds more than plain values ({error}); give one that names '
            'its parts by type'
        ) from error
    if adapter_only and model.adapter is None:
        raise ValueError(
            f'{path}: the model has no adapter that could be written alone; it was trained without '
            'model.backbone.adapter, or its adapter is merged (load_model(..., merge=False))'
        )
    without = ('head.', 'backbone.') if adapter_only else 'head.'
    state = {
        key: value.detach().cpu().contiguous()
        for key, value in model.state_dict().items()
        if not key.startswith(without)
    }
    metadata = dict(
        format=FORMAT,
        mmvlr_version=__version__,
        name=name or path.stem,
        license=license,
        identity=fingerprint_model(model),
        config=config,
    )
    metadata |= {} if model.training_note is None else dict(training_note=model.training_note)
    if adapter_only:
        metadata['base'] = digest_state(model.backbone.state_dict())
    metadata['sha256'] = digest_weights(state, metadata)
    # A single entry, as safetensors writes several in any order: equal models give equal files.
    entries = {METADATA: json.dumps(metadata, sort_keys=True)}

    def write(temporary: Path) -> None:
        save_file(state, temporary, entries)
        if not adapter_only:
            _check_same(model, load_model(temporary, merge=False), path)

    write_atomic(path, write)
    return sha256_of(path)


def _without_training(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recognizer's config without entries that only training needs."""
    return {
        # Paths of starting weights are of no use in a published file.
        key: _without_training(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if key not in ('head', 'distillation', 'init_cfg')
        and not key.startswith('loss_')
        and not key.endswith('_moves_backbone')
    }


def _check_same(model: FaceRecognizer, read: FaceRecognizer, path: Path) -> None:
    """Raise RuntimeError unless the model read from the file gives the same predictions."""
    model = copy.deepcopy(model, {id(model.head): None}).cpu().eval()
    faces = torch.randint(
        0, 256, (2, 3, *model.data_preprocessor.size), generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        wanted, found = (
            one.predictions(one.data_preprocessor(dict(inputs=faces))['inputs'])
            for one in (model, read)
        )
    different = [key for key in wanted if not torch.equal(wanted[key], found.get(key))]
    if fingerprint_model(model) != fingerprint_model(read) or different:
        raise RuntimeError(
            f'{path} was not written: the model built from the config is not the given one '
            f'(different: {", ".join(different) or "fingerprint"}). Give the config that it was '
            'built from'
        )


# Both --------------------------------------------------------------------------------------------


def _checked(path: str | Path, suffix: str, license: str) -> Path:
    path = Path(path).expanduser()
    if path.suffix != suffix:
        raise ValueError(f'{path}: the name of the file must end in {suffix}')
    if not isinstance(license, str) or not _LICENSE.fullmatch(license):
        raise ValueError(
            f'license must be an SPDX expression such as MIT, CC-BY-NC-4.0 or LicenseRef-ours '
            f'(https://spdx.org/licenses), not {license!r}: who gets the file must know what is '
            'allowed'
        )
    return path
