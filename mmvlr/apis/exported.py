"""Read the files of :mod:`mmvlr.apis.export`: ONNX files and published weights."""

import hashlib
import importlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from safetensors import safe_open

from mmvlr.utils.contract import Contract, Fingerprint
from mmvlr.utils.filetype import describe_content
from mmvlr.utils.schema import FileFormatError, FileModel, parse_json, validate

#: Version of both formats; a reader refuses higher ones. Since 2, ``ri`` is xi itself.
FORMAT = 2
#: Operator set of the ONNX files: onnxruntime 1.18 and later run them.
OPSET = 20
#: Protobuf's encoding of another ``metadata_props`` entry, up to its value of 64 hex digits. Fields
#: may be appended to a protobuf message: thus the file ends with a checksum of everything before
#: it, and onnxruntime reads it like any other file.
SEAL = b'\x72\x50\x0a\x0cmmvlr.sha256\x12\x40'
#: Faces that go through an ONNX network at once on a CPU: their maps stay in the cache.
_PORTION = 8

#: The entry of a safetensors file's metadata that is ours, JSON.
METADATA = 'mmvlr'

#: Longest text of an entry, in bytes.
_LONGEST = 2**20
_REMEDY = 'get the file again, or export it again from the checkpoint'
_Text = Annotated[str, Field(max_length=1000)]


class _OnnxFacts(FileModel):
    """Metadata of an ONNX file."""

    name: _Text
    license: _Text
    identity: Fingerprint
    contract: Contract
    outputs: Annotated[list[Literal['embedding', 'norm', 'ri', 'ers']], Field(min_length=1)]
    training_note: _Text | None = None


class _Published(FileModel):
    """Metadata of published weights."""

    format: int
    mmvlr_version: _Text
    name: _Text
    license: _Text
    identity: Fingerprint
    config: dict[str, Any]
    #: Of an adapter alone: SHA-256 of the weights of the backbone that it changes.
    base: _Text | None = None
    #: What the training set said of its faces; files without a note lack the entry.
    training_note: _Text | None = None


class OnnxNetwork:
    """A file of :func:`export_onnx`, run by onnxruntime alone.

    Args:
        path: The file.
        providers: Names of onnxruntime's execution providers, best first. None for CUDA, where
            onnxruntime has it, and CPU.
        threads: Number of threads; None for one per core.

    Attributes:
        fingerprint: See :func:`mmvlr.apis.network.fingerprint_model`.
        contract: The preprocessing contract.
        size: (height, width) of the faces in pixels.
        name: Name of the model.
        license: SPDX expression.
        outputs: Names of the outputs of a call.
        training_note: What the training set said of its faces, or None.

    Raises:
        FileNotFoundError: There is no such file.
        ImportError: onnxruntime is missing.
        ValueError: The file is damaged, of a newer mmvlr or of something else; or onnxruntime
            lacks the provider.
    """

    def __init__(
        self,
        path: str | Path,
        providers: Sequence[str] | None = None,
        threads: int | None = None,
    ):
        (runtime,) = needs('onnxruntime')
        self.path = Path(path)
        data = self._sealed()
        available = runtime.get_available_providers()
        usable = [p for p in ('CUDAExecutionProvider', 'CPUExecutionProvider') if p in available]
        wanted = list(providers or usable)
        lacking = [provider for provider in wanted if provider not in available]
        if lacking:
            raise ValueError(
                f'onnxruntime here has no {", ".join(lacking)}, only {", ".join(available)}; for '
                'NVIDIA GPUs pip install onnxruntime-gpu in place of onnxruntime'
            )
        options = runtime.SessionOptions()
        # Errors only: its warnings, such as a GPU that cannot be listed, do not concern the file.
        options.log_severity_level = 3
        options.intra_op_num_threads = threads or 0
        try:
            self.session = runtime.InferenceSession(data, options, providers=wanted)
        except Exception as error:  # onnxruntime has a dozen types and no common one
            raise ValueError(
                f'{self.path}: onnxruntime {runtime.__version__} cannot run it ({error}); it takes '
                f'a version that knows operator set {OPSET}'
            ) from error
        meta = self.session.get_modelmeta().custom_metadata_map
        _check_format(meta.get('mmvlr.format'), self.path)
        texts = {
            key: meta[f'mmvlr.{key}'] for key in _OnnxFacts.model_fields if f'mmvlr.{key}' in meta
        }
        for key in texts.keys() & {'identity', 'contract', 'outputs'}:
            kind = list if key == 'outputs' else dict
            texts[key] = _parse(texts[key], f'{self.path}: mmvlr.{key}', kind)
        facts = validate(texts, _OnnxFacts, self.path, _REMEDY)
        if meta['mmvlr.format'] == '1' and 'ri' in facts.outputs:
            problem = 'mmvlr.format: 1, when the output ri had another scale'
            raise FileFormatError(self.path, problem, 'export it again from the checkpoint')
        self.fingerprint: dict[str, Any] = facts.identity.model_dump()
        self.contract: dict[str, Any] = facts.contract.model_dump()
        self.size: tuple[int, int] = tuple(facts.contract.size)
        self.name, self.license, self.outputs = facts.name, facts.license, facts.outputs
        self.training_note = facts.training_note
        self._check_graph()
        on_cpu = self.session.get_providers()[0] == 'CPUExecutionProvider'
        self._portion = _PORTION if on_cpu else 64

    def _sealed(self) -> bytes:
        if not self.path.is_file():
            raise FileNotFoundError(
                f'{self.path} does not exist; mmvlr.apis.export.export_onnx makes such files'
            )
        data = self.path.read_bytes()
        body, seal = data[: -len(SEAL) - 64], data[-len(SEAL) - 64 :]
        if not seal.startswith(SEAL):
            raise ValueError(
                f'{self.path} is no ONNX file exported by mmvlr, or is cut off: there is no '
                'checksum at its end. Get it again, or export it again from the checkpoint'
            )
        if hashlib.sha256(body).hexdigest().encode() != seal[len(SEAL) :]:
            raise ValueError(
                f'{self.path} is damaged: its content does not match its checksum. Get it again, '
                'or export it again from the checkpoint'
            )
        return data

    def _check_graph(self) -> None:
        """Raise FileFormatError unless inputs and outputs of the network match the metadata."""
        dims = self.fingerprint['embedding']['dims']
        shapes = {'faces': [*self.size, 3], 'embedding': [dims]}
        nodes = {
            node.name: node for node in (*self.session.get_inputs(), *self.session.get_outputs())
        }
        if not {'embedding', 'norm'} <= set(self.outputs):
            problem = f'mmvlr.outputs: {self.outputs}, without embedding or norm'
            raise FileFormatError(self.path, problem, _REMEDY)
        for name in ('faces', *self.outputs):
            found = nodes[name].shape[1:] if name in nodes else None
            if found != shapes.get(name, []):
                problem = f'{name}: the network has the shape {found}, not {shapes.get(name, [])}'
                raise FileFormatError(self.path, problem, _REMEDY)
        if self.contract != self.fingerprint['preprocessing']:
            problem = 'mmvlr.contract: other than identity.preprocessing'
            raise FileFormatError(self.path, problem, _REMEDY)

    def __call__(self, faces: np.ndarray) -> dict[str, np.ndarray]:
        """Map faces (B, H, W, 3), uint8 RGB of the contract's size, to the outputs of the network.

        Returns:
            dict: float32 ``embedding`` (B, D), ``norm`` (B,) and, where the model has them, ``ri``
            and ``ers`` (B,).

        Raises:
            ValueError: The faces are something else.
        """
        faces = np.ascontiguousarray(faces)
        if faces.dtype != np.uint8 or faces.shape[1:] != (*self.size, 3) or not len(faces):
            height, width = self.size
            raise ValueError(
                f'{self.path} takes uint8 RGB faces (B, {height}, {width}, 3) with B > 0, not '
                f'{faces.dtype} {faces.shape}'
            )
        parts = [
            self.session.run(self.outputs, {'faces': faces[start : start + self._portion]})
            for start in range(0, len(faces), self._portion)
        ]
        columns = zip(*parts, strict=True)
        return {n: np.concatenate(c) for n, c in zip(self.outputs, columns, strict=True)}


def read_published(
    path: str | Path,
) -> tuple[dict[str, Any], dict[str, torch.Tensor], dict[str, Any]]:
    """Read a file of :func:`publish`.

    Args:
        path: The file.

    Returns:
        tuple: The model's config for ``MODELS.build``, its state dict, and the metadata: a dict
        with ``format`` (int), ``mmvlr_version``, ``name``, ``license`` (str) and ``identity``
        (dict, with the preprocessing contract in it).

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, of a newer mmvlr or of something else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f'{path} does not exist; mmvlr.apis.export.publish makes such files'
        )
    try:
        with safe_open(path, 'pt') as file:
            text = (file.metadata() or {}).get(METADATA)
            # Weights of other programs are not read, as they may be large.
            metadata = {} if text is None else _parse(text, path)
            _check_format(metadata.get('format'), path)
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except ValueError:
        raise
    except Exception as error:  # safetensors raises its own type, and torch's for odd ones
        with open(path, 'rb') as file:
            kind = describe_content(file.read(512))
        told = error if kind is None or 'safetensors' in kind else f'it is {kind}'
        raise ValueError(
            f'{path} is no readable safetensors file ({told}); it may be cut off: get it again'
        ) from error
    if metadata.pop('sha256', None) != digest_weights(state, metadata):
        raise ValueError(
            f'{path} is damaged: its content does not match its checksum. Get it again'
        )
    validate(metadata, _Published, path, _REMEDY)
    has_index = any(key.startswith('regression.') for key in state)
    if metadata['format'] == 1 and has_index and metadata['config'].get('type') != 'CRFIQA':
        # The formula of its index was left out: nobody knows whether it is xi or its logarithm.
        problem = 'format: 1, when the recognizability index had another scale'
        raise FileFormatError(path, problem, 'publish it again from the checkpoint')
    return metadata.pop('config'), state, metadata


def _parse(text: str, source: str | Path, kind: type = dict) -> Any:
    if len(text) > _LONGEST:
        problem = f'metadata of {len(text):,} characters, up to {_LONGEST:,} are read'
        raise FileFormatError(source, problem, _REMEDY)
    return parse_json(text.encode(errors='replace'), kind, source, _REMEDY)


def digest_weights(state: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> str:
    """Return the SHA-256 of weights and metadata, independent of their order."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for key, value in sorted(state.items()):
        digest.update(f'{key} {value.dtype} {tuple(value.shape)};'.encode())
        digest.update(value.contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _check_format(version: str | int | None, path: Path) -> None:
    if not re.fullmatch('[0-9]{1,9}', str(version)):
        raise ValueError(f'{path} holds no model written by mmvlr: it states no format version')
    if int(version) > FORMAT:
        raise ValueError(
            f'{path} was written by a newer mmvlr (format {version}, this one reads up to '
            f'{FORMAT}): update mmvlr'
        )


def needs(*packages: str) -> list[Any]:
    """Import packages of the extra ``export``."""
    found = []
    for package in packages:
        try:
            found.append(importlib.import_module(package))
        except ImportError as error:
            raise ImportError(f"this needs {package}: pip install 'mmvlr[export]'") from error
    return found
