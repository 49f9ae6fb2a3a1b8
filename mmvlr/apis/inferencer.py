"""FaceInferencer: compute embeddings and qualities of images, without a config or a Runner."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mmvlr.datasets.alignment import describe_crowd
from mmvlr.datasets.inspection import watch_images
from mmvlr.datasets.transforms import ImageError, resize
from mmvlr.registry import INFERENCERS
from mmvlr.structures import NO_IDENTITY, FaceTable
from mmvlr.structures.face_table import MEASURES
from mmvlr.utils.contract import CONTRACT_KEY
from mmvlr.utils.vectors import unit_rows
from mmvlr.utils.work import progress_bar

from .images import NamedImage, NoFaceError, count_images, read_images
from .network import Network, TorchNetwork, load_network

#: Number of images from which on a progress bar is shown.
_LONG = 200


@dataclass(frozen=True)
class _Crop:
    """An image as the input of the network, or the reason why it cannot be used.

    Attributes:
        name: Name of the image.
        pixels: (H, W, 3) uint8 RGB of the contract's size; None if there is an ``error``.
        side: Shorter side of the image, or of the face found in it, in pixels.
        faces: Number of faces found in the image; 0 where none was aligned.
        error: Why there are no pixels.
    """

    name: str
    pixels: np.ndarray | None = None
    side: float = 0
    faces: int = 0
    error: Exception | None = None


@dataclass(frozen=True)
class VerificationResult:
    """Similarity of two faces.

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
    """Embed faces, measure their quality, compare them, and compute attention maps.

    Args:
        model: A checkpoint (``.pth``), published weights (``.safetensors``), an export
            (``.onnx``), or a recognizer or network in memory.
        device: Such as ``'cuda'``; None for the GPU if there is one.
        batch_size: Faces that go through the network together.
        align: ``'none'``: every image is a face, cropped as the model knows it. ``'mtcnn'``:
            find and align the face in each image (``pip install 'mmvlr[align]'``). One without a
            face, or a frame with several of which none is twice as large as the others, cannot be
            used (and is named in :attr:`FaceTable.unaligned`); the column ``faces`` says how many
            each image has. Or the config of a detector: ``dict(type='YuNetDetector', file=...)``.
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
        align: str | Mapping[str, Any] = 'none',
        config: Mapping[str, Any] | None = None,
    ):
        if batch_size < 1:
            raise ValueError(f'batch_size must be at least 1, not {batch_size}')
        if align not in ('none', 'mtcnn') and not isinstance(align, Mapping):
            raise ValueError(f"align must be 'none' or 'mtcnn', not {align!r}, or a config")
        self.network: Network = load_network(model, device, config)
        #: What the training set says of its faces, which need not be like those to come.
        self.training_note: str | None = getattr(self.network, 'training_note', None)
        self.source = f'model {model}' if isinstance(model, (str, Path)) else 'the model'
        self.batch_size = batch_size
        self.aligner = None
        self.fingerprint = dict(self.network.fingerprint)
        if align != 'none':
            self.aligner = self._make_aligner(None if align == 'mtcnn' else align)

    def _make_aligner(self, detector: Mapping[str, Any] | None) -> Callable:
        from mmvlr.preparation import Aligner, make_recipe

        aligner = Aligner(make_recipe(detector, self.network.size[0]), detector)
        contract = dict(self.network.contract)
        stated = contract['alignment']
        if stated not in ('none', aligner.recipe.name):
            raise ValueError(
                f'the model was trained on faces of the alignment {stated}, not '
                f'{aligner.recipe.name}; align the images as its training did and use '
                "align='none'"
            )
        # Faces cropped differently are not comparable, so the alignment is part of the contract.
        contract['alignment'] = aligner.recipe.name
        self.fingerprint[CONTRACT_KEY] = contract
        return aligner

    def add_measures(self, config: Mapping[str, Any]) -> None:
        """Measure a config's ``quality_measures`` too, fitted to its training faces if needed.

        Raises:
            ValueError: The model is an export, or a measure needs images in native size.
        """
        from mmvlr.engine.scoring import configured_measures, prepare_measures

        measures = configured_measures(config)
        if measures and not isinstance(self.network, TorchNetwork):
            raise ValueError('quality_measures need the PyTorch model, not an export')
        for measure in measures:
            if measure.needs_images:
                raise ValueError(
                    f'quality_measures: {measure.name!r} needs images in native size, which only '
                    'mmvlr score has; leave it out'
                )
        if measures:
            prepare_measures(self.network.model, measures, config)
            self.network.measures = measures

    # Streams ------------------------------------------------------------------------------------

    def stream(self, faces: Any, on_error: str = 'collect') -> Iterator[FaceTable]:
        """Yield results batch by batch, in order; memory does not grow with the input.

        Args:
            faces: See :func:`mmvlr.apis.images.read_images`.
            on_error: ``'collect'``: images that cannot be used are listed in ``failures``.
                ``'raise'``: the first of them raises its error.

        Raises:
            FileNotFoundError, ValueError: A path does not exist, or is a folder without images.
        """
        if on_error not in ('collect', 'raise'):
            raise ValueError(f"on_error must be 'collect' or 'raise', not {on_error!r}")
        # Cropped when read, as a batch of whole images may exceed the memory.
        images = read_images(faces)
        if self.aligner is None:
            images = watch_images(images, self.network.size)
        crops = map(self._crop, images)
        batches = _batches(crops, self.batch_size)
        with ThreadPoolExecutor(1) as reader:
            # The next batch is read while the network works on this one.
            coming = reader.submit(next, batches, None)
            while batch := coming.result():
                coming = reader.submit(next, batches, None)
                for crop in batch:
                    if crop.error is not None and on_error == 'raise':
                        raise crop.error
                results = self._results(batch)
                if results.failures and on_error == 'raise':
                    raise ImageError(results.failures[0][1])
                yield results

    def embed(
        self, faces: Any, on_error: str = 'collect', progress: bool | None = None
    ) -> FaceTable:
        """Return embeddings and qualities of all faces.

        A single image that cannot be used is an error; of many, those that cannot be used are
        listed in ``failures``.

        Args:
            faces: See :func:`mmvlr.apis.images.read_images`.
            on_error: See :meth:`stream`.
            progress: Show a bar; None for inputs of 200 images or more, or of unknown number.

        Raises:
            FileNotFoundError, ValueError: A path does not exist, a folder has no images, or none
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
        results = FaceTable.join(parts) if parts else self._table([], [])
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
    ) -> FaceTable:
        """Return the qualities of all faces; an alias of :meth:`embed`, which costs the same."""
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
            similarity=float(unit_rows(a.embedding)[0] @ unit_rows(b.embedding)[0]),
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
        """Return maps of the parts of each face that contribute to its similarity to a reference.

        Args:
            faces: See :func:`mmvlr.apis.images.read_images`.
            references: (N, D) embeddings to compare with, see
                :func:`mmvlr.models.activation.activation_maps`.
            method: ``'gradcam'``, ``'gradcam++'`` or ``'eigencam'``.

        Returns:
            (N, H, W) float32 in [0, 1], H and W of the contract.

        Raises:
            ImportError: The library of activation maps is not installed.
            ValueError: An image cannot be used, there are more or fewer references than faces, or
                the model is an export, which has no gradient.
        """
        from mmvlr.models.activation import activation_maps

        if not isinstance(self.network, TorchNetwork):
            raise ValueError('attention needs the PyTorch model: an export has no gradients')
        maps, done = [], 0
        crops = map(self._crop, read_images(faces))
        for batch in _batches(crops, min(self.batch_size, 16)):
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
        """Return the faces as the input of the network, (H, W, 3) uint8 RGB each.

        Raises:
            ValueError: An image cannot be used.
        """
        crops = [self._crop(image) for image in read_images(faces)]
        for crop in crops:
            if crop.error is not None:
                raise crop.error
        return [crop.pixels for crop in crops]

    # One batch ----------------------------------------------------------------------------------

    def _crop(self, image: NamedImage) -> _Crop:
        if image.error is not None:
            return _Crop(image.name, error=image.error)
        pixels, faces = image.pixels, 0
        side = float(min(pixels.shape[:2]))
        try:
            if self.aligner is not None:
                found = self.aligner(pixels)
                pixels, faces = found.image, found.faces
                side = side if found.detection is None else found.detection.size
            crop = resize(pixels, self.network.size, self.network.contract['interpolation'])
        except Exception as error:  # whatever it is, the others are still wanted
            what = 'resized' if self.aligner is None else 'aligned'
            reason = ' '.join(str(error).split())[:300] or type(error).__name__
            message = f'{image.name}: the face in it cannot be {what} ({reason})'
            return _Crop(image.name, error=ImageError(message))
        if crop is image.pixels:
            # A generator may use its array again for the next frame.
            crop = crop.copy()
        error = None
        if self.aligner is not None and found.detection is None:
            reason = describe_crowd(faces)
            error = NoFaceError(f'{image.name}: {reason}')
        return _Crop(image.name, crop, side, faces, error)

    def _check_network(self) -> None:
        """Raise ValueError if the network gives NaN or infinity for any face."""
        face = np.random.default_rng(0).integers(0, 256, (1, *self.network.size, 3), np.uint8)
        if not np.isfinite(self.network(face)['embedding']).all():
            raise ValueError(
                f'{self.source} is damaged: its embeddings are not finite, whatever the face; get '
                'it again, or take a checkpoint from before the training diverged'
            )

    def _results(self, batch: Sequence[_Crop]) -> FaceTable:
        failed = [crop for crop in batch if crop.error is not None]
        good = [crop for crop in batch if crop.error is None]
        if not good:
            return self._table([], failed)
        output = dict(self.network(np.stack([crop.pixels for crop in good])))
        bad = ~np.isfinite(output['embedding']).all(axis=1)
        if bad.any():
            self._check_network()
            output = {name: values[~bad] for name, values in output.items()}
            wrong = [crop for crop, is_bad in zip(good, bad, strict=True) if is_bad]
            good = [crop for crop, is_bad in zip(good, bad, strict=True) if not is_bad]
            what = 'the model has no finite embedding for this face'
            failed += [replace(crop, error=ImageError(f'{crop.name}: {what}')) for crop in wrong]
        return self._table(good, failed, output)

    def _table(
        self,
        good: Sequence[_Crop],
        failed: Sequence[_Crop],
        output: Mapping[str, np.ndarray] | None = None,
    ) -> FaceTable:
        output = output or dict(embedding=np.zeros((0, 0), np.float32))
        qualities = {name: output[name] for name in MEASURES if name in output}
        qualities['size'] = np.array([crop.side for crop in good], np.float32)
        columns = dict(qualities, name=np.array([crop.name for crop in good], dtype=str))
        if self.aligner is not None:
            columns['faces'] = np.array([crop.faces for crop in good], np.int64)
        meta = dict(
            fingerprint=self.fingerprint,
            failures=[(crop.name, str(crop.error)) for crop in failed],
            unaligned=[crop.name for crop in failed if isinstance(crop.error, NoFaceError)],
        )
        return FaceTable(
            embedding=output['embedding'],
            role=np.full(len(good), 'probe'),
            identity=np.full(len(good), NO_IDENTITY),
            columns=columns,
            meta=meta,
        )


def _batches(crops: Iterable[_Crop], size: int) -> Iterator[list[_Crop]]:
    """Yield batches; if the source fails, yield the crops before the failure first."""
    batch: list[_Crop] = []
    failure = None
    try:
        for crop in crops:
            batch.append(crop)
            if len(batch) == size:
                yield batch
                batch = []
    except Exception as error:
        failure = error
    if batch:
        yield batch
    if failure is not None:
        raise failure
