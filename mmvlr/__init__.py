"""mmvlr: recognition and quality estimation of very-low-resolution faces."""

from .version import __version__

__all__ = ['__version__']
