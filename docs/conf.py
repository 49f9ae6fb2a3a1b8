"""Configuration of Sphinx; the API pages are written from the packages themselves."""

import importlib
import inspect
import pkgutil
import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import mmvlr  # noqa: E402

project = 'mmvlr'
author = 'the mmvlr contributors'
copyright = author
version = release = mmvlr.__version__

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx.ext.mathjax']
exclude_patterns = ['_build']
html_theme = 'furo'
html_title = f'mmvlr {release}'

myst_enable_extensions = ['dollarmath', 'colon_fence']
myst_heading_anchors = 3
autodoc_default_options = {'members': True, 'show-inheritance': True, 'member-order': 'bysource'}
napoleon_numpy_docstring = False
napoleon_use_ivar = True

PACKAGES = {
    'mmvlr': 'Registries',
    'mmvlr.apis': 'Build runners and run models',
    'mmvlr.datasets': 'Data sets',
    'mmvlr.datasets.storage': 'Data sets in one file',
    'mmvlr.datasets.transforms': 'Transforms',
    'mmvlr.models': 'Models',
    'mmvlr.models.backbones': 'Backbones',
    'mmvlr.models.heads': 'Heads',
    'mmvlr.models.losses': 'Losses',
    'mmvlr.models.recognizers': 'Recognizers',
    'mmvlr.engine': 'Engine',
    'mmvlr.engine.hooks': 'Hooks',
    'mmvlr.engine.optimizers': 'Optimizers',
    'mmvlr.evaluation': 'Evaluation',
    'mmvlr.evaluation.functional': 'Functional metrics',
    'mmvlr.evaluation.metrics': 'Metrics of mmengine',
    'mmvlr.identification': 'Identification',
    'mmvlr.cli': 'The command mmvlr',
    'mmvlr.web': 'The page in the browser',
    'mmvlr.models.quality': 'Quality measures',
    'mmvlr.structures': 'Structures',
    'mmvlr.experiments': 'Experiments',
    'mmvlr.reports': 'Reports',
    'mmvlr.utils': 'Utilities',
}


def write_api_pages(app: Sphinx) -> None:
    """Write one page a package, and one with every registered name."""
    folder = HERE / 'api' / 'generated'
    folder.mkdir(parents=True, exist_ok=True)
    pages = {'components.md': components_page()}
    found = packages()
    for name in found:
        pages[f'{name}.rst'] = package_page(name, PACKAGES.get(name, name), found)
    for name, text in pages.items():
        path = folder / name
        # An unchanged page keeps its time, so that Sphinx reads it only once.
        if not path.is_file() or path.read_text(encoding='utf-8') != text:
            path.write_text(text, encoding='utf-8')
    for path in set(folder.iterdir()) - {folder / name for name in pages}:
        path.unlink()


def packages() -> list[str]:
    """Return the names of mmvlr's packages, in the order of ``PACKAGES``, unknown ones last."""
    names = ['mmvlr']
    names += [m.name for m in pkgutil.walk_packages(mmvlr.__path__, 'mmvlr.') if m.ispkg]
    order = list(PACKAGES)
    return sorted(
        names, key=lambda name: (order.index(name) if name in order else len(order), name)
    )


def package_page(name: str, title: str, found: list[str]) -> str:
    """Return a page with the package's docstring and its public modules."""
    lines = [title, '=' * len(title), '', f'``{name}``', '', f'.. automodule:: {name}']
    lines += ['   :no-members:', '']
    package = importlib.import_module(name)
    for module in pkgutil.iter_modules(package.__path__):
        full = f'{name}.{module.name}'
        if full in found or module.name.startswith('_'):
            continue
        lines += [full, '-' * len(full), '', f'.. automodule:: {full}', '']
    return '\n'.join(lines)


def components_page() -> str:
    """Return a table a registry: name, where it lives and the first line of its docstring."""
    from mmengine.registry import Registry

    from mmvlr import registry

    lines = ['# Registered components', '', 'What a config can name as `type`.']
    for name, found in vars(registry).items():
        if not isinstance(found, Registry) or name.startswith('MMENGINE_'):
            continue
        found.import_from_location()
        if not found.module_dict:
            continue
        lines += ['', f'## {name}', '', '| `type` | module | |', '|---|---|---|']
        for key, component in sorted(found.module_dict.items()):
            summary = (inspect.getdoc(component) or '').split('\n\n')[0].replace('\n', ' ')
            summary = re.sub(r':\w+:`~?([^`]+)`', r'`\1`', summary)
            summary = summary.replace('|', '\\|').replace('``', '`').replace('$', '\\$')
            lines.append(f'| `{key}` | `{component.__module__}` | {summary} |')
    return '\n'.join([*lines, ''])


def setup(app: Sphinx) -> None:
    """Register the writer of the API pages."""
    app.connect('builder-inited', write_api_pages)
