"""What all transforms have in common."""

from abc import ABC, abstractmethod
from typing import Any


class BaseTransform(ABC):
    """Base of all transforms: a callable that takes and returns the dict of an image.

    It is called as those of mmcv and mmengine are, so a pipeline may mix all of them.
    """

    def __call__(self, results: dict) -> Any:
        """Return :meth:`transform` of ``results``."""
        return self.transform(results)

    @abstractmethod
    def transform(self, results: dict) -> Any:
        """Change an image's dict and return it; None leaves the image out."""
