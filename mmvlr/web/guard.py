"""Who may ask the page, for what, how much and how long: checked before gradio sees a request."""

import asyncio
import contextlib
import functools
import ipaddress
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h11
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from .uploads import measure_folder

#: What the page and clients of its programming interface ask for. The rest of gradio (monitoring,
#: recordings, proxies, editing, run histories) is not there.
_PATHS = re.compile(
    r'/(config|theme\.css|favicon\.ico|robots\.txt|manifest\.json|(assets|static)/.*'
    r'|gradio_api/(info|app_id|startup-events|theme\.css|upload|upload_progress|cancel|reset'
    r'|queue/(join|data)|run/\w+|call/(v2/)?\w+(/\w+)?|heartbeat/\w+))?/?',
    re.ASCII,
)
_HOST = re.compile(r'(?:\[([^]]+)\]|([^]\[:/@\s]+))(?::\d+)?')
_UPLOAD = '/gradio_api/upload'
_FILE = '/gradio_api/file='
_TOO_LATE = b'HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n'
_SAFE = {
    # Scripts of the page itself are in line; nothing is loaded from or sent to elsewhere.
    'Content-Security-Policy': "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "frame-ancestors 'none'; base-uri 'self'; form-action 'self'",
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Referrer-Policy': 'no-referrer',
    'X-Content-Type-Options': 'nosniff',
}


@dataclass(frozen=True)
class Limits:
    """How much a page takes.

    Attributes:
        file: Bytes of an uploaded file.
        upload: Bytes of all files that are uploaded at once.
        kept: Bytes of all files that are kept.
        message: Bytes of a request that uploads nothing.
        seconds: Time in which a request must have arrived.
        half_sent: Requests that may arrive at the same time; the oldest gives way to the next.
    """

    file: int = 32 << 20
    upload: int = 128 << 20
    kept: int = 512 << 20
    message: int = 1 << 20
    seconds: float = 30.0
    half_sent: int = 32


class Guard:
    """Refuse what comes from web pages of others, asks for other things, or is too large.

    A body is read whole before the app sees the request, so nothing of a half-sent upload is kept.

    Args:
        app: The app behind it.
        host: Host the page is bound to.
        folder: Folder of the uploads; only files of it are served.
        limits: Limits.
    """

    def __init__(self, app: ASGIApp, host: str, folder: Path, limits: Limits):
        self.app, self.host, self.folder, self.limits = app, host, folder, limits
        self._arriving = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let the app do so."""
        if scope['type'] != 'http':
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        length = headers.get('content-length', '0')
        size = int(length) if length.isdecimal() else 0
        refused = self._check_sender(headers) or self._check_request(scope, headers, size)
        body = b''
        if not refused:
            try:
                body = await self._read(receive)
            except ConnectionError:
                return
            except BufferError:
                refused = 503, 'Too much is being uploaded; try again in a while.'
        if refused:
            await _discard(receive)
            close = {'connection': 'close'}
            await PlainTextResponse(refused[1], refused[0], close)(scope, receive, send)
            return
        whole = [dict(type='http.request', body=body, more_body=False)]

        async def receive_whole() -> Message:
            return whole.pop() if whole else await receive()

        async def send_safe(message: Message) -> None:
            if message['type'] == 'http.response.start':
                MutableHeaders(scope=message).update(_SAFE)
            await send(message)

        await self.app(scope, receive_whole, send_safe)

    def _check_sender(self, headers: Headers) -> tuple[int, str] | None:
        """Refuse names that others made point here, and web pages of others."""
        host = headers.get('host', '')
        if not is_own_host(host, self.host):
            told = 'This page is asked for under its own address only: by number, or localhost.'
            return 403, told
        if headers.get('origin', f'http://{host}') != f'http://{host}':
            return 403, 'Web pages of others may not use this page.'
        return None

    def _check_request(self, scope: Scope, headers: Headers, size: int) -> tuple[int, str] | None:
        path, limits = scope['path'], self.limits
        if not (_PATHS.fullmatch(path) or path.startswith(f'{_FILE}{self.folder}/')):
            return 404, 'There is no such thing on this page.'
        if 'transfer-encoding' in headers:
            return 411, 'The length of a request must be told.'
        is_upload = path.rstrip('/') == _UPLOAD
        most = limits.upload if is_upload else limits.message
        if size > most:
            return 413, f'A request has {size} bytes; at most {most} are taken.'
        if is_upload and measure_folder(self.folder) + size > limits.kept:
            told = f'The page keeps at most {limits.kept} bytes; uploads are deleted in an hour.'
            return 507, told
        return None

    async def _read(self, receive: Receive) -> bytes:
        """Return the body of a request.

        Raises:
            ConnectionError: It breaks off.
            BufferError: Too much arrives at the same time.
        """
        parts: list[bytes] = []
        try:
            while True:
                message = await receive()
                if message['type'] == 'http.disconnect':
                    raise ConnectionError
                parts.append(message.get('body', b''))
                self._arriving += len(parts[-1])
                if self._arriving > 2 * self.limits.upload:
                    raise BufferError
                if not message.get('more_body'):
                    return b''.join(parts)
        finally:
            self._arriving -= sum(map(len, parts))


def is_own_host(asked: str, host: str) -> bool:
    """Return whether a ``Host`` names this computer in a way that nobody else can have made.

    A name that a stranger owns may point to this computer (DNS rebinding); a number may not.

    Args:
        asked: The header: name or number, with or without a port.
        host: Host the page is bound to.
    """
    parts = _HOST.fullmatch(asked.lower())
    name = parts and (parts[1] or parts[2])
    if not name or name in ('localhost', host.lower()):
        return bool(name)
    try:
        number = ipaddress.ip_address(name)
    except ValueError:
        return not is_loopback(host) and name in _find_names()
    return number.is_loopback or not is_loopback(host)


@functools.cache
def _find_names() -> set[str]:
    own = socket.gethostname().lower()
    return {own, f'{own}.local', socket.getfqdn().lower()}


def is_loopback(host: str) -> bool:
    """Return whether only this computer reaches what is bound to a host."""
    try:
        return host == 'localhost' or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _discard(receive: Receive) -> None:
    """Let the sender finish, for a moment: most read no answer before."""
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(_skip(receive), 2)


async def _skip(receive: Receive) -> None:
    while (await receive()).get('more_body'):
        pass


def make_protocol(limits: Limits) -> type[H11Protocol]:
    """Return uvicorn's protocol of HTTP with an end to requests that do not arrive."""
    half_sent: dict[Any, asyncio.TimerHandle] = {}

    class Protocol(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
                self._wait()
            else:
                self._arrive()

        def connection_lost(self, exc: Exception | None) -> None:
            self._arrive()
            super().connection_lost(exc)

        def shutdown(self) -> None:
            # An open page is kept informed by an answer that never ends.
            self.transport.close()

        def _wait(self) -> None:
            if self not in half_sent:
                half_sent[self] = self.loop.call_later(limits.seconds, self._give_up)
                if len(half_sent) > limits.half_sent:
                    next(iter(half_sent))._give_up()

        def _arrive(self) -> None:
            if self in half_sent:
                half_sent.pop(self).cancel()

        def _give_up(self) -> None:
            self._arrive()
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                self.transport.write(_TOO_LATE)
            self.transport.close()

    return Protocol
