"""Build of mmvlr. Tool settings live in pyproject.toml, pinned versions in requirements/."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
VERSION = re.search(
    r"__version__ = '(.+)'", (ROOT / 'mmvlr' / 'version.py').read_text(encoding='utf-8')
).group(1)

REPORT = ['matplotlib>=3.8', 'jinja2>=3.1']
DEMO = ['scikit-image>=0.22', *REPORT]
ALIGN = ['facenet-pytorch>=2.5.3,<2.6']
CAM = ['grad-cam>=1.5']
EXPORT = ['onnx>=1.17', 'onnxscript>=0.5', 'onnxruntime>=1.18']
GALLERY = ['faiss-cpu>=1.9']
TIMM = ['timm>=1.0.9']
MMCV = ['mmcv-lite>=2.2']
CLUSTER = ['submitit>=1.5']
VIDEO = ['av>=14.2', 'trackers>=2.6,<3']
WEB = ['gradio>=6', *CAM]
USE = [*EXPORT, *GALLERY, *WEB]
TESTS = [
    *('pytest>=8', 'pytest-timeout', 'pytest-xdist', 'hypothesis', 'ruff'),
    *(*DEMO, *ALIGN, *CAM, *TIMM, *USE, *CLUSTER, *VIDEO),
]
DOCS = ['sphinx>=7', 'myst-parser', 'furo']


class BuildWithConfigs(build_py):
    """Copy ``configs`` and ``tools`` into the wheel as ``mmvlr/.mim``.

    OpenMMLab's own way (a symbolic link made when ``develop`` stands in argv) does nothing under
    a modern pip, which calls ``editable_wheel``. Copying at build time needs no such guess.
    """

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        if self.editable_mode:
            return
        for folder in ('configs', 'tools'):
            target = Path(self.build_lib) / 'mmvlr' / '.mim' / folder
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(
                ROOT / folder, target, ignore=shutil.ignore_patterns('__pycache__', '*.pyc')
            )


setup(
    name='mmvlr',
    version=VERSION,
    description='Recognition and quality estimation of very-low-resolution faces',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['mmvlr', 'mmvlr.*']),
    package_data={
        'mmvlr': ['py.typed'],
        'mmvlr.reports': ['style.css', 'templates/*.html.j2'],
        'mmvlr.web': ['style.css', 'answer.html.j2'],
    },
    python_requires='>=3.10',
    install_requires=[
        'torch>=2.7',
        'torchvision>=0.22',
        'numpy>=1.26',
        'mmengine>=0.10.7',
        'opencv-python>=4.8',
        'packaging',
        'pillow>=10.1',
        'pydantic>=2',
        'scikit-learn',
        'scipy',
        'tensorboard',
        'rich',
        'safetensors',
    ],
    extras_require={
        'report': REPORT,
        'demo': DEMO,
        'align': ALIGN,
        'cam': CAM,
        'export': EXPORT,
        'gallery': GALLERY,
        'web': WEB,
        'video': VIDEO,
        'cluster': CLUSTER,
        'mmcv': MMCV,
        'timm': TIMM,
        'tests': TESTS,
        'docs': DOCS,
        'all': [*TESTS, *DOCS],
    },
    entry_points={'console_scripts': ['mmvlr = mmvlr.cli:main']},
    cmdclass={'build_py': BuildWithConfigs},
    zip_safe=False,
)
