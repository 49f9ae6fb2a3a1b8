"""A page in the browser to try a model on faces of one's own: ``pip install 'mmvlr[web]'``."""

from .page import FacePage, build_page, serve

__all__ = ['FacePage', 'build_page', 'serve']
