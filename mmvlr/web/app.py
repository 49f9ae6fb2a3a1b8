"""The page as an app of gradio: what is dropped where, and where the answers stand."""

import atexit
import contextlib
import html
import os
from collections.abc import Iterator, MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmvlr.utils.text import printable

from .page import FacePage
from .uploads import private_folder

if TYPE_CHECKING:
    import gradio

_INTRODUCTION = (
    'Crops of faces, 8 pixels or more. Nothing leaves this computer. The recognizability index '
    '(RI) says how much of a face a network can still recognize; whether an answer can be trusted '
    'is said by a calibration on faces like yours (`mmvlr calibrate`).'
)


#: Least width of an image in pixels: its label stands beside its buttons.
_WIDTH = 300


def import_gradio() -> Any:
    """Return the package gradio, which reports nothing to its makers.

    Raises:
        ImportError: It is not installed.
    """
    os.environ.setdefault('GRADIO_ANALYTICS_ENABLED', 'False')
    try:
        import gradio
    except ImportError as error:
        raise ImportError(
            "the page needs gradio, which is not installed: pip install 'mmvlr[web]'"
        ) from error
    return gradio


@contextlib.contextmanager
def keep_uploads() -> Iterator[Path]:
    """Hold a private folder, in which gradio keeps what it gets; it is removed at the end.

    Raises:
        ImportError: gradio is not installed.
        OSError: See :func:`mmvlr.web.uploads.private_folder`.
    """
    gr = import_gradio()
    with private_folder() as folder:
        # gradio asks its environment where to keep and what to serve, again and again; for one
        # folder, which it makes, only when it is imported.
        where = dict(GRADIO_TEMP_DIR=str(folder), GRADIO_EXAMPLES_CACHE=str(folder))
        # Browsers would keep the faces.
        where['GRADIO_RUN_HISTORY'] = 'False'
        default = dict(DEFAULT_TEMP_DIR=str(folder))
        with _replaced(os.environ, where), _replaced(vars(gr.routes), default):
            yield folder


@contextlib.contextmanager
def _replaced(values: MutableMapping[str, Any], new: dict[str, Any]) -> Iterator[None]:
    before = {name: values.get(name) for name in new}
    values.update(new)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del values[name]
            else:
                values[name] = value


def build_page(page: FacePage, folder: Path | None = None) -> 'gradio.Blocks':
    """Return the page as a gradio app.

    Args:
        page: What it says.
        folder: Of :func:`keep_uploads`; None: one that is removed when the process ends.

    Raises:
        ImportError: gradio is not installed.
        OSError: Uploads cannot be kept.
    """
    gr = import_gradio()
    if folder is None:
        stack = contextlib.ExitStack()
        atexit.register(stack.close)
        stack.enter_context(keep_uploads())

    def shown(work: Any) -> Any:
        def run(*values: Any) -> Any:
            try:
                return work(*values)
            except Exception as error:
                told = _tell(error, values)
                unexpected = not isinstance(error, (ValueError, OSError, MemoryError))
                raise gr.Error(told, print_exception=unexpected) from error

        return run

    # The network and its hooks are one: two visitors take turns.
    one_by_one = dict(concurrency_limit=1, concurrency_id='model')

    def image(label: str) -> Any:
        block = gr.Image(
            label=label,
            type='filepath',
            image_mode=None,
            sources=['upload', 'clipboard'],
            height=260,
            elem_classes='face-image',
            min_width=_WIDTH,
            buttons=[],
        )
        return _take_paths(block)

    def result(label: str) -> Any:
        return gr.Image(
            label=label,
            type='numpy',
            interactive=False,
            height=260,
            format='png',
            elem_classes='face-image',
            min_width=_WIDTH,
            buttons=['fullscreen', 'download'],
        )

    def forget(inputs: list[Any], outputs: list[Any]) -> None:
        """Take an answer away, in the browser, when other faces are dropped."""
        empty = ', '.join(["''"] + ['null'] * (len(outputs) - 1))
        changes = [block.change for block in inputs]
        gr.on(changes, None, None, outputs, js=f'() => [{empty}]')

    # Faces are biometric data: what was uploaded is deleted after an hour, and at the end.
    with gr.Blocks(title='mmvlr', analytics_enabled=False, delete_cache=(600, 3600)) as app:
        gr.Markdown('# Who is it, and can the answer be trusted?\n' + _INTRODUCTION)
        with gr.Tab('Two faces'):
            with gr.Row():
                first, second = image('first face'), image('second face')
            button = gr.Button('Compare', variant='primary')
            told = gr.HTML('Drop two faces.')
            with gr.Row():
                maps = result('first: what speaks for it'), result('second: what speaks for it')
            button.click(shown(page.compare), [first, second], [told, *maps], **one_by_one)
            forget([first, second], [told, *maps])
        with gr.Tab('A face and a gallery'):
            with gr.Row():
                face = image('face')
                people = _take_paths(
                    gr.File(
                        label='people: images named as the person (Ann_1.jpg)'
                        + ('' if page.gallery is None else ', instead of the gallery'),
                        file_count='multiple',
                        file_types=['image'],
                        height=260,
                    )
                )
            search = gr.Button('Identify', variant='primary')
            if page.gallery is not None:
                gr.Markdown(f'The gallery holds {len(page.gallery)} people.')
            verdict = gr.HTML('Drop a face.')
            attention = result('what speaks for the best match')
            search.click(shown(page.identify), [face, people], [verdict, attention], **one_by_one)
            forget([face, people], [verdict, attention])
    return app.queue(max_size=64)


def _take_paths(block: Any) -> Any:
    """Make an input hand over its files as they were uploaded, and no others of this computer.

    gradio's own reading makes 16-bit and transparent images others and has no words for what it
    cannot read; its own keeping fetches what is named by an address of the network.
    """
    gr, folder = import_gradio(), os.path.realpath(block.GRADIO_CACHE)

    def find(payload: Any) -> Any:
        if payload is None:
            return None
        several = hasattr(payload, 'root')
        paths = [file.path for file in (payload.root if several else [payload])]
        for path in paths:
            if not Path(os.path.realpath(path or '')).is_relative_to(folder):
                raise gr.Error('Only files that were uploaded are read.', print_exception=False)
        return paths if several else paths[0]

    async def keep(path: str) -> str:
        return path

    block.preprocess, block.async_move_resource_to_block_cache = find, keep
    return block


def _tell(error: Exception, values: Sequence[Any]) -> str:
    """Return an error as HTML; files have the names under which they were dropped."""
    told = str(error) or type(error).__name__
    for value in values:
        for path in value if isinstance(value, list) else [value]:
            if isinstance(path, str):
                told = told.replace(path, Path(path).name)
    return html.escape(printable(told), quote=False)
