"""The command ``mmvlr``: use a model without writing Python."""

from .main import main

__all__ = ['main']
