"""Base class of all transforms."""

from abc import ABC, abstractmethod
from typing import Any


class BaseTransform(ABC):
    """Base of all transforms: a callable that takes and returns the dict of an image.

    It has the interface of mmcv's and mmengine's transforms, so a pipeline may mix them.
    """

    def __call__(self, results: dict) -> Any:
        """Return :meth:`transform` of ``results``."""
        return self.transform(results)

    @abstractmethod
    def transform(self, results: dict) -> Any:
        """Change an image's dict and return it; None leaves the image out."""
