"""A page in the browser to try a model on faces of one's own: ``pip install 'mmvlr[web]'``."""

from .app import build_page
from .page import FacePage
from .server import check_page, open_page, serve

__all__ = ['FacePage', 'build_page', 'check_page', 'open_page', 'serve']
