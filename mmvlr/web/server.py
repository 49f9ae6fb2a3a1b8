"""The page on a port of this computer, until it is interrupted."""

import atexit
import contextlib
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from .app import build_page, import_gradio, keep_uploads
from .page import FacePage

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_STYLE = Path(__file__).with_name('style.css')


@contextlib.contextmanager
def open_page(
    page: FacePage, host: str = '127.0.0.1', port: int = 7860, **limits: float
) -> Iterator[str]:
    """Serve the page in a thread; at the end everything that was dropped on it is deleted.

    Args:
        page: What it says.
        host: ``'0.0.0.0'`` to let other computers see it; there is no password.
        port: Port; 0 takes any that is free.
        limits: See :class:`mmvlr.web.guard.Limits`.

    Yields:
        Its address.

    Raises:
        ImportError: gradio is not installed.
        OSError: The port is taken, or uploads cannot be kept.
    """
    gr = import_gradio()
    import uvicorn
    from fastapi import FastAPI
    from fastapi.middleware.cors import CORSMiddleware

    from .guard import Guard, Limits, make_protocol

    bounds = Limits(**limits)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_listen(host, port))
        folder = stack.enter_context(keep_uploads())
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        # Without a policy of its own gradio allows every origin, with credentials.
        app.add_middleware(CORSMiddleware)
        app.add_middleware(Guard, host=host, folder=folder, limits=bounds)
        blocks = build_page(page, folder)
        # Fonts of the default theme come from the network.
        theme = gr.themes.Default(font=['system-ui', 'sans-serif'], font_mono=['monospace'])
        gr.mount_gradio_app(
            app,
            blocks,
            '/',
            theme=theme,
            css=_STYLE.read_text(encoding='utf-8'),
            footer_links=[],
            max_file_size=bounds.file,
            enable_monitoring=False,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
        )
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=make_protocol(bounds),
                ws='none',
                proxy_headers=False,
                log_level='warning',
                limit_concurrency=128,
                # Accepted at a time: there may be no more than 256 open files.
                backlog=32,
                timeout_graceful_shutdown=2,
            )
        )
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            while not server.started:
                if not thread.is_alive():
                    raise RuntimeError('The server of the page does not start.')
                time.sleep(0.01)
            name = f'[{host}]' if ':' in host else host
            yield f'http://{name}:{listener.getsockname()[1]}/'
        finally:
            blocks.is_running = False
            server.should_exit = True
            thread.join(timeout=10)


def check_page(host: str, port: int) -> None:
    """Say what keeps a page from being shown, before a model is loaded for it.

    Raises:
        ImportError: gradio is not installed.
        OSError: The port is taken.
    """
    import_gradio()
    _listen(host, port).close()


def serve(
    page: FacePage, host: str = '127.0.0.1', port: int = 7860, block: bool = True
) -> tuple[contextlib.ExitStack, str]:
    """Show the page until it is interrupted.

    Ctrl-C ends it, and so do SIGTERM and a closed terminal, which exit with 128 and the number of
    the signal. What was dropped on it is deleted at each of these ends; after a kill, by the next
    page of the same user.

    Args:
        page: What it says.
        host: See :func:`open_page`.
        port: See there.
        block: Wait; False returns at once.

    Returns:
        What has a ``close`` that ends the page, and its address.
    """
    stack = contextlib.ExitStack()
    if not block:
        atexit.register(stack.close)
        return stack, stack.enter_context(open_page(page, host, port))
    with stack:
        stack.enter_context(_ended_by_signals())
        address = stack.enter_context(open_page(page, host, port))
        print(f'{address}  (Ctrl+C ends it)', file=sys.stderr, flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            pass
        finally:
            # Deleting is not interrupted.
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_IGN)
    return stack, address


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise OSError(
            f'the page cannot be shown on port {port} of {host} ({error}): is another page there? '
            'Choose another --port (0: any that is free), or another --host'
        ) from error


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Raise ``SystemExit`` when the process is to end, so that everything is left in order."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number in (signal.SIGTERM, signal.SIGHUP):
        # nohup ignores one of them.
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
