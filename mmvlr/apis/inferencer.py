"""FaceInferencer: from images to embeddings and qualities, without a config or a Runner."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmvlr.datasets.transforms import ImageError, resize
from mmvlr.evaluation import FaceTable
from mmvlr.evaluation.table import NO_IDENTITY, read_fields
from mmvlr.registry import INFERENCERS
from mmvlr.utils.contract import CONTRACT_KEY
from mmvlr.utils.io import write_csv
from mmvlr.utils.vectors import unit_rows
from mmvlr.utils.work import progress_bar

from .images import Image, NoFaceError, count_images, images_of
from .network import Network, TorchNetwork, network_of

#: From so many images on a bar shows how far the work is.
_LONG = 200


@dataclass(frozen=True, eq=False)
class FaceResults:
    """What was found of N faces, in the order in which they were given.

    Attributes:
        names: Path of each image, or ``array 3``.
        embedding: (N, D) float32, raw: compare by cosine.
        qualities: ``ri`` (recognizability index), ``ers``, ``norm`` (length of the backbone's
            embedding) as far as the model has them
            and ``size`` (shorter side of the image, or of the face found in it, in pixels):
            (N,) float32 each, higher is better.
        failures: (name, reason) of the images that could not be used; they are not among the N.
        identity: Which model and preprocessing: see :func:`mmvlr.apis.network.identity_of`.
        unaligned: Names of those of the failures in which no face was found; empty without
            alignment.
    """

    names: list[str]
    embedding: np.ndarray
    qualities: dict[str, np.ndarray]
    failures: list[tuple[str, str]] = field(default_factory=list)
    identity: Mapping[str, Any] = field(default_factory=dict)
    unaligned: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def unit(self) -> np.ndarray:
        """The embeddings as unit vectors (N, D)."""
        return unit_rows(self.embedding, lambda row: f'the embedding of {self.names[row]}')

    def rows(self, embedding: bool = False) -> list[dict[str, Any]]:
        """Return one dict a face, plain values only; with ``embedding`` its numbers too."""
        rows = []
        for index, name in enumerate(self.names):
            row: dict[str, Any] = dict(name=name)
            row |= {key: float(values[index]) for key, values in self.qualities.items()}
            if embedding:
                row['embedding'] = [float(value) for value in self.embedding[index]]
            rows.append(row)
        return rows

    def to_csv(self, path: str | Path, embedding: bool = False) -> Path:
        """Write names and qualities as a table, with ``embedding`` one column a dimension."""
        columns = ['name', *self.qualities]
        rows = self.rows()
        if embedding:
            dims = [f'e{index}' for index in range(self.embedding.shape[1])]
            columns += dims
            for row, values in zip(rows, self.embedding.tolist(), strict=True):
                row.update(zip(dims, values, strict=True))
        path = Path(path).expanduser()
        write_csv(path, columns, rows, private=True)
        return path

    def to_npz(self, path: str | Path) -> Path:
        """Write everything; :meth:`from_npz` and ``mmvlr.evaluation.FaceTable.load`` read it."""
        return FaceTable(
            embedding=self.embedding,
            role=np.full(len(self), 'probe'),
            identity=np.full(len(self), NO_IDENTITY),
            columns={**self.qualities, 'name': np.array(self.names, dtype=str)},
            meta=dict(
                identity=dict(self.identity), failures=self.failures, unaligned=self.unaligned
            ),
        ).save(Path(path).expanduser())

    @classmethod
    def from_npz(cls, path: str | Path) -> 'FaceResults':
        """Read what :meth:`to_npz` wrote.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is another kind of file.
        """
        path = Path(path).expanduser()
        table = FaceTable.from_fields(read_fields(path), path)
        if 'identity' not in table.meta or 'name' not in table.columns:
            raise ValueError(f'{path} does not say which model made it; mmvlr embed writes it')
        return cls(
            names=[str(name) for name in table.columns['name']],
            embedding=table.embedding,
            qualities={k: v for k, v in table.columns.items() if k != 'name'},
            failures=[tuple(failure) for failure in table.meta.get('failures', [])],
            identity=table.meta['identity'],
            unaligned=table.meta.get('unaligned', []),
        )


@dataclass(frozen=True)
class _Crop:
    """An image as the network sees it, or what is wrong with it.

    Attributes:
        name: Of the image.
        pixels: (H, W, 3) uint8 RGB of the contract's size; None if there is an ``error``.
        side: Shorter side of the image, or of the face found in it, in pixels.
        aligned: Whether a face was found and aligned.
        error: Why there are no pixels.
    """

    name: str
    pixels: np.ndarray | None = None
    side: float = 0
    aligned: bool = False
    error: Exception | None = None


@dataclass(frozen=True)
class VerificationResult:
    """How alike two faces are.

    Attributes:
        similarity: Cosine of the embeddings, in [-1, 1].
        names: The two images.
        qualities: Quality by name: (of the first, of the second).
    """

    similarity: float
    names: tuple[str, str]
    qualities: dict[str, tuple[float, float]]


@INFERENCERS.register_module()
class FaceInferencer:
    """Embed faces, judge their quality, compare them, show what the network attends to.

    Args:
        model: A checkpoint (``.pth``), published weights (``.safetensors``), an export
            (``.onnx``), or a recognizer or network that is already there.
        device: Such as ``'cuda'``; None for the GPU if there is one.
        batch_size: Faces that go through the network together.
        align: ``'none'``: every image is a face, cropped as the model knows it. ``'mtcnn'``:
            find and align the face in each image; one without a face cannot be used (and is
            named in :attr:`FaceResults.unaligned`). Needs ``pip install 'mmvlr[align]'``.
        config: Config of the model, for checkpoints without one.

    Raises:
        FileNotFoundError: There is no such file.
        UntrustedCheckpointError: The file would run code.
        ValueError: The file is not of a model, or was made for another alignment.

    Example:
        Embeddings of a folder, as a table::

            faces = FaceInferencer('riface.safetensors').embed('crops/')
            faces.to_csv('faces.csv')
    """

    def __init__(
        self,
        model: Any,
        device: str | None = None,
        batch_size: int = 64,
        align: str = 'none',
        config: Mapping[str, Any] | None = None,
    ):
        if batch_size < 1:
            raise ValueError(f'batch_size must be at least 1, not {batch_size}')
        if align not in ('none', 'mtcnn'):
            raise ValueError(f"align must be 'none' or 'mtcnn', not {align!r}")
        self.network: Network = network_of(model, device, config)
        self.batch_size = batch_size
        self.aligner = None
        self.identity = dict(self.network.identity)
        if align == 'mtcnn':
            self.aligner = self._make_aligner()

    def _make_aligner(self) -> Callable:
        from mmvlr.datasets import Aligner, AlignmentRecipe

        aligner = Aligner(AlignmentRecipe(size=self.network.size[0]))
        contract = dict(self.network.contract)
        stated = contract['alignment']
        if stated not in ('none', aligner.recipe.name):
            raise ValueError(
                f'the model was trained on faces of the alignment {stated}, not '
                f'{aligner.recipe.name}; align the images as its training did and use '
                "align='none'"
            )
        # Faces cropped in another way are not comparable: a gallery must know.
        contract['alignment'] = aligner.recipe.name
        self.identity[CONTRACT_KEY] = contract
        return aligner

    # Streams ------------------------------------------------------------------------------------

    def stream(self, faces: Any, on_error: str = 'collect') -> Iterator[FaceResults]:
        """Yield results batch by batch, in order; memory does not grow with the input.

        Args:
            faces: See :func:`mmvlr.apis.images.images_of`.
            on_error: ``'collect'``: images that cannot be used are listed in ``failures``.
                ``'raise'``: the first of them ends the work.

        Raises:
            FileNotFoundError, ValueError: A path names nothing, or a folder without images.
        """
        if on_error not in ('collect', 'raise'):
            raise ValueError(f"on_error must be 'collect' or 'raise', not {on_error!r}")
        # Cropped when read: a batch of whole images can be larger than the memory.
        crops = map(self._crop, images_of(faces))
        with ThreadPoolExecutor(1) as reader:
            # The next batch is read while the network works on this one.
            coming = reader.submit(_take, crops, self.batch_size)
            while batch := coming.result():
                coming = reader.submit(_take, crops, self.batch_size)
                for crop in batch:
                    if crop.error is not None and on_error == 'raise':
                        raise crop.error
                yield self._results(batch)

    def embed(
        self, faces: Any, on_error: str = 'collect', progress: bool | None = None
    ) -> FaceResults:
        """Return embeddings and qualities of all faces.

        A single image that cannot be used is an error; of many, those that cannot be used are
        listed in ``failures``.

        Args:
            faces: See :func:`mmvlr.apis.images.images_of`.
            on_error: See :meth:`stream`.
            progress: Show a bar; None for inputs of 200 images or more, or of unknown number.

        Raises:
            FileNotFoundError, ValueError: A path names nothing, a folder has no images, or none
                of the images can be used.
        """
        total = count_images(faces)
        if progress is None:
            progress = total is None or total >= _LONG
        bar = progress_bar('embedding', total) if progress else nullcontext(lambda: None)
        parts = []
        with bar as advance:
            for part in self.stream(faces, 'raise' if total == 1 else on_error):
                parts.append(part)
                for _ in range(len(part) + len(part.failures)):
                    advance()
        results = join_results(parts)
        if not results.failures and not len(results):
            raise ValueError('no face to embed: there is no image in what was given')
        if not len(results):
            only_unaligned = len(results.unaligned) == len(results.failures)
            raise (NoFaceError if only_unaligned else ValueError)(
                f'no face to embed: none of the {len(results.failures)} images can be used; '
                f'the first: {results.failures[0][1]}'
            )
        return results

    def quality(
        self, faces: Any, on_error: str = 'collect', progress: bool | None = None
    ) -> FaceResults:
        """Return the qualities of all faces: :meth:`embed`, which costs no more."""
        return self.embed(faces, on_error, progress)

    def verify(self, first: Any, second: Any) -> VerificationResult:
        """Compare two faces.

        Args:
            first: One image.
            second: Another.

        Raises:
            ValueError: One of them is not exactly one image.
        """
        faces = []
        for given in (first, second):
            if count_images(given) != 1:
                raise ValueError(f'verify compares two images; {given!r:.80} is not one')
            faces.append(self.embed(given, 'raise', progress=False))
        a, b = faces
        names = a.qualities.keys() & b.qualities.keys()
        return VerificationResult(
            similarity=float(a.unit[0] @ b.unit[0]),
            names=(a.names[0], b.names[0]),
            qualities={
                name: (float(a.qualities[name][0]), float(b.qualities[name][0]))
                for name in a.qualities
                if name in names
            },
        )

    def attention(
        self, faces: Any, references: np.ndarray | None = None, method: str = 'gradcam'
    ) -> np.ndarray:
        """Return which parts of each face carry its similarity to a reference.

        Args:
            faces: See :func:`mmvlr.apis.images.images_of`.
            references: (N, D) embeddings to compare with, see
                :func:`mmvlr.apis.activation.activation_maps`.
            method: ``'gradcam'``, ``'gradcam++'`` or ``'eigencam'``.

        Returns:
            (N, H, W) float32 in [0, 1], H and W of the contract.

        Raises:
            ImportError: The library of activation maps is not installed.
            ValueError: An image cannot be used, there are more or fewer references than faces, or
                the model is an export, which has no gradient.
        """
        from .activation import activation_maps

        if not isinstance(self.network, TorchNetwork):
            raise ValueError('attention needs the PyTorch model: an export has no gradients')
        maps, done = [], 0
        crops = map(self._crop, images_of(faces))
        while batch := _take(crops, min(self.batch_size, 16)):
            for crop in batch:
                if crop.error is not None:
                    raise crop.error
            inputs = self.network.inputs(np.stack([crop.pixels for crop in batch]))
            chosen = None if references is None else references[done : done + len(batch)]
            maps.append(activation_maps(self.network.model, inputs, chosen, method))
            done += len(batch)
        if not maps:
            raise ValueError('there is no face')
        if references is not None and len(references) != done:
            raise ValueError(f'{len(references)} references for {done} faces; one each is needed')
        return np.concatenate(maps)

    def crops(self, faces: Any) -> list[np.ndarray]:
        """Return the faces as the network sees them, aligned or not, (H, W, 3) uint8 RGB each.

        Raises:
            ValueError: An image cannot be used.
        """
        crops = [self._crop(image) for image in images_of(faces)]
        for crop in crops:
            if crop.error is not None:
                raise crop.error
        return [crop.pixels for crop in crops]

    # One batch ----------------------------------------------------------------------------------

    def _crop(self, image: Image) -> _Crop:
        if image.error is not None:
            return _Crop(image.name, error=image.error)
        pixels, aligned = image.pixels, False
        side = float(min(pixels.shape[:2]))
        if self.aligner is not None:
            try:
                found = self.aligner(pixels)
            except ValueError as error:
                reason = f'{image.name}: the face in it cannot be aligned ({error})'
                return _Crop(image.name, error=ImageError(reason))
            pixels, aligned = found.image, found.detection is not None
            side = found.detection.size if aligned else side
        crop = resize(pixels, self.network.size, self.network.contract['interpolation'])
        if crop is image.pixels:
            # A generator may use its array again for the next frame.
            crop = crop.copy()
        error = None
        if self.aligner is not None and not aligned:
            error = NoFaceError(f'{image.name}: no face was found in it, so none can be aligned')
        return _Crop(image.name, crop, side, aligned, error)

    def _results(self, batch: Sequence[_Crop]) -> FaceResults:
        failures = [(crop.name, str(crop.error)) for crop in batch if crop.error is not None]
        unaligned = [crop.name for crop in batch if isinstance(crop.error, NoFaceError)]
        good = [crop for crop in batch if crop.error is None]
        if not good:
            none = np.zeros((0, 0), np.float32)
            return FaceResults([], none, {}, failures, self.identity, unaligned)
        output = dict(self.network(np.stack([crop.pixels for crop in good])))
        embedding = output.pop('embedding')
        bad = np.flatnonzero(~np.isfinite(embedding).all(axis=1))
        if len(bad):
            raise ValueError(
                f'the embedding of {good[bad[0]].name} is not finite; the weights of the model are '
                'damaged'
            )
        order = [name for name in ('ri', 'ers', 'norm') if name in output]
        qualities = {name: output[name] for name in order}
        qualities['size'] = np.array([crop.side for crop in good], np.float32)
        names = [crop.name for crop in good]
        return FaceResults(names, embedding, qualities, failures, self.identity, unaligned)


def _take(crops: Iterable[_Crop], count: int) -> list[_Crop]:
    return list(itertools.islice(crops, count))


def join_results(parts: Sequence[FaceResults]) -> FaceResults:
    """Put results of one model behind each other."""
    full = [part for part in parts if len(part)]
    failures = [failure for part in parts for failure in part.failures]
    if not full:
        unaligned = [name for part in parts for name in part.unaligned]
        none = np.zeros((0, 0), np.float32)
        return FaceResults([], none, {}, failures, unaligned=unaligned)
    return FaceResults(
        names=[name for part in full for name in part.names],
        embedding=np.concatenate([part.embedding for part in full]),
        qualities={
            name: np.concatenate([part.qualities[name] for part in full])
            for name in full[0].qualities
        },
        failures=failures,
        identity=full[0].identity,
        unaligned=[name for part in parts for name in part.unaligned],
    )
