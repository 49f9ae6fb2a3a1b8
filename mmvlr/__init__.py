"""mmvlr: recognition and quality estimation of very-low-resolution faces."""

from .utils.threads import share_cores
from .version import __version__

# Before torch is imported, which is why the tools import mmvlr first.
share_cores()

__all__ = ['__version__']
