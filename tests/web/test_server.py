"""The page as its neighbors meet it: what it refuses, how much it takes, what it leaves behind."""

import asyncio
import contextlib
import http.client
import io
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import uuid

import numpy as np
import pytest
from PIL import Image

from mmvlr.cli.common import FAILED
from mmvlr.cli.main import main
from mmvlr.datasets.transforms import read_image
from mmvlr.web import open_page
from mmvlr.web.guard import Guard, Limits, is_own_host
from mmvlr.web.uploads import NOTES_FILE, private_folder

from ..tools.test_foreign_files import FOREIGN

LIMITS = dict(file=20_000, upload=50_000, kept=60_000, message=5_000, seconds=2.0, half_sent=4)
HOST = '127.0.0.1'
# What a shell starts in the background ignores SIGINT, and so does what that starts.
SCRIPT = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from tests.web.test_server import StandIn
from mmvlr.web import serve
serve(StandIn(), port=0)
"""


class StandIn:
    """A page that reads its images and has no model."""

    gallery = None

    def compare(self, first, second):
        for face in (first, second):
            read_image(face)
        return 'compared', np.zeros((8, 8, 3), np.uint8), None

    def identify(self, face, people):
        raise KeyError(*people)


@pytest.fixture(scope='module', autouse=True)
def places(tmp_path_factory):
    """A cache folder of one's own, and leftovers of another user in the temporary folder."""
    root = tmp_path_factory.mktemp('page')
    (root / 'tmp').mkdir()
    # A file: not even root can make a folder of it.
    (root / 'tmp' / 'gradio').touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('TMPDIR', str(root / 'tmp'))
        patch.setattr('tempfile.tempdir', None)
        patch.setenv('XDG_CACHE_HOME', str(root / 'cache'))
        yield root / 'cache' / 'mmvlr' / 'pages'


@pytest.fixture(scope='module')
def port(places):
    with open_page(StandIn(), port=0, **LIMITS) as address:
        yield int(address.rstrip('/').rsplit(':', 1)[1])


def ask(port, method, path, body=None, **headers):
    """Return status, headers and content of an answer."""
    with contextlib.closing(http.client.HTTPConnection(HOST, port, timeout=20)) as connection:
        connection.request(method, path, body, {k.replace('_', '-'): v for k, v in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode(errors='replace')


def upload(port, *contents, name='a.png', **headers):
    lines = []
    for content in contents:
        lines.append(
            b'--XX\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n\r\n%s\r\n'
            % (name.encode(), content)
        )
    body = b''.join(lines) + b'--XX--\r\n'
    headers = {'Content_Type': 'multipart/form-data; boundary=XX', **headers}
    return ask(port, 'POST', '/gradio_api/upload', body, **headers)


def call(port, function, *data):
    """Return the kind and the data of an answer of the programming interface."""
    path = f'/gradio_api/call/{function}'
    kind = {'Content_Type': 'application/json'}
    status, _, told = ask(port, 'POST', path, json.dumps(dict(data=data)), **kind)
    assert status == 200, told
    _, _, told = ask(port, 'GET', f'{path}/{json.loads(told)["event_id"]}')
    event, data = told.strip().split('\n\n')[-1].split('\n')
    return event.removeprefix('event: '), json.loads(data.removeprefix('data: '))


def dropped(path, name=None):
    kind = {'_type': 'gradio.FileData'}
    return dict(path=path, orig_name=name or os.path.basename(path), meta=kind)


def image(side=8):
    file = io.BytesIO()
    Image.fromarray(np.random.randint(0, 255, (side, side, 3), np.uint8)).save(file, 'png')
    return file.getvalue()


def list_kept(places):
    return {path for path in places.rglob('*/*') if path.is_file()}


def test_page_works_beside_the_leftovers_of_another_user(port, places):
    status, headers, _ = ask(port, 'GET', '/')
    assert status == 200
    assert "default-src 'self'" in headers['Content-Security-Policy']
    assert not json.loads(ask(port, 'GET', '/config')[2]).get('run_history')
    status, _, told = upload(port, image())
    (path,) = json.loads(told)
    folder = places / os.path.relpath(path, places).split(os.sep)[0]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    kind, (told, shown, nothing) = call(port, 'run', dropped(path), dropped(path))
    assert (kind, told, nothing) == ('complete', 'compared', None)
    assert shown['path'].startswith(f'{folder}/')
    assert ask(port, 'GET', f'/gradio_api/file={shown["path"]}')[0] == 200


@pytest.mark.parametrize(
    ('headers', 'status'),
    [
        ({}, 200),
        (dict(Host='localhost:{port}', Origin='http://localhost:{port}'), 200),
        (dict(Host='attacker.example:{port}', Origin='http://attacker.example:{port}'), 403),
        (dict(Host='10.1.2.3:{port}'), 403),
        (dict(Origin='http://attacker.example'), 403),
        (dict(Origin='http://127.0.0.1:1'), 403),
        (dict(Origin='null'), 403),
        (dict(Host='['), 403),
    ],
)
def test_pages_of_others_are_refused(port, headers, status):
    headers = {name: value.format(port=port) for name, value in headers.items()}
    for answer in (ask(port, 'GET', '/config', **headers), upload(port, image(), **headers)):
        assert answer[0] == status
        assert not [name for name in answer[1] if name.lower().startswith('access-control')]


@pytest.mark.parametrize(
    ('asked', 'host', 'own'),
    [
        ('[::1]:80', '127.0.0.1', True),
        ('127.0.0.1.attacker.example', '127.0.0.1', False),
        ('', '127.0.0.1', False),
        ('a@localhost', '127.0.0.1', False),
        ('[', '127.0.0.1', False),
        ('LocalHost:7', '127.0.0.1', True),
        ('192.168.1.5', '127.0.0.1', False),
        ('192.168.1.5:80', '0.0.0.0', True),
        ('attacker.example', '0.0.0.0', False),
        (socket.gethostname(), '0.0.0.0', True),
        ('faces.example:80', 'faces.example', True),
    ],
)
def test_is_own_host(asked, host, own):
    assert is_own_host(asked, host) is own


@pytest.mark.parametrize(
    'path',
    [
        '/gradio_api/file=/etc/passwd',
        '/gradio_api/file={pages}/.mmvlr-pages',
        '/gradio_api/file={pages}/{folder}/../.mmvlr-pages',
        '/gradio_api/file=http://example.com/',
        '/gradio_api/file={pages}/{folder}',
        '/gradio_api/proxy=https://a.hf.space/',
        '/gradio_api/vibe-code',
        '/monitoring/summary',
        '/assets/../../../../etc/passwd',
        '/static/..%2f..%2f..%2fblocks.py',
    ],
)
def test_nothing_else_is_served(port, places, path):
    (folder,) = [path.name for path in places.iterdir() if path.is_dir()]
    status, _, _ = ask(port, 'GET', path.format(pages=places, folder=folder))
    assert status in (403, 404)


@pytest.mark.parametrize('meta', [True, False])
@pytest.mark.parametrize('path', ['{file}', 'http://127.0.0.1:{port}/config', '{pages}/../x.png'])
def test_only_uploads_are_inputs(port, places, tmp_path, path, meta):
    (tmp_path / 'a.png').write_bytes(image())
    (places.parent / 'x.png').write_bytes(image())
    face = dropped(path.format(file=tmp_path / 'a.png', port=port, pages=places))
    if not meta:
        del face['meta']
    before = list_kept(places)
    for function, people in (('run', face), ('run_1', [face])):
        assert call(port, function, face, people)[0] == 'error'
    assert list_kept(places) == before


def test_uploads_are_bounded(port, places):
    before = list_kept(places)
    assert upload(port, b'x' * 20_001)[0] == 413
    assert upload(port, *[b'x' * 19_000] * 3)[0] == 413
    assert ask(port, 'POST', '/gradio_api/queue/join', b'[' * 5_001)[0] == 413
    assert ask(port, 'POST', '/gradio_api/upload', iter([b'x']))[0] == 411
    assert list_kept(places) == before
    codes = [upload(port, bytes([number]) * 15_000)[0] for number in range(6)]
    assert codes[0] == 200
    assert codes[-1] == 507
    assert sum(path.stat().st_size for path in list_kept(places)) <= LIMITS['kept']


def test_arriving_uploads_are_bounded(tmp_path):
    """What has arrived counts, of all requests together."""
    headers = [(b'host', HOST.encode()), (b'content-length', b'100')]
    scope = dict(type='http', method='POST', path='/gradio_api/upload', headers=headers)

    async def answer(scope, receive, send):
        assert len((await receive())['body']) == 90
        await send(dict(type='http.response.start', status=200, headers=[]))

    async def arrive(guard, ended):
        parts, codes = [dict(type='http.request', body=b'x' * 90, more_body=True)], []

        async def receive():
            if parts:
                return parts.pop()
            await ended.wait()
            return dict(type='http.request')

        async def send(message):
            codes.append(message.get('status'))

        await guard(scope, receive, send)
        return codes[0]

    async def arrive_thrice():
        guard, ended = Guard(answer, HOST, tmp_path, Limits(upload=100)), asyncio.Event()
        asyncio.get_running_loop().call_later(0.1, ended.set)
        return await asyncio.gather(*[arrive(guard, ended) for _ in range(3)])

    assert asyncio.run(arrive_thrice()) == [200, 200, 503]


def test_half_sent_requests_end(port, places):
    """The page answers meanwhile, and nothing of them is kept."""
    head = (
        f'POST /gradio_api/upload HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 9000\r\n'
        'Content-Type: multipart/form-data; boundary=XX\r\n\r\n--XX\r\nContent-Disposition: '
        'form-data; name="files"; filename="half.png"\r\n\r\nhalf'
    )
    before = list_kept(places)
    sent = [head.encode(), b'GET / HT', b'']
    with contextlib.ExitStack() as stack:
        halves = []
        for number in range(30):
            half = stack.enter_context(socket.create_connection((HOST, port), timeout=10))
            half.sendall(sent[number % 3])
            halves.append(half)
        assert ask(port, 'GET', '/config')[0] == 200
        ends = [half.recv(1 << 16)[:12] for half in halves]
    assert {*ends} <= {b'HTTP/1.1 408', b''}
    assert b'HTTP/1.1 408' in ends
    assert list_kept(places) == before


def test_unreadable_image_has_words(port):
    name = '<img src=x onerror=alert(1)>.png'
    _, _, told = upload(port, b'no image')
    (path,) = json.loads(told)
    kind, told = call(port, 'run', dropped(path), dropped(path))
    assert kind == 'error'
    assert 'a.png' in told['error']
    assert os.path.dirname(path) not in told['error']
    _, _, told = upload(port, b'no image', name=name)
    (path,) = json.loads(told)
    # Not even a name that is asked for by hand comes back as HTML.
    for function in ('run', 'run_1'):
        data = (dropped(path, name), [dropped(path, name)])
        kind, told = call(port, function, *(data if function == 'run_1' else [data[0]] * 2))
        assert kind == 'error'
        assert told['error']
        assert '<' not in told['error']


def test_second_page_on_a_port_names_the_option(port, capsys, tmp_path):
    with pytest.raises(OSError, match='--port'), open_page(StandIn(), port=port):
        pass
    # Told before the model is read, which is none.
    (tmp_path / 'none.pth').write_bytes(b'PK')
    assert main(['page', '--model', str(tmp_path / 'none.pth'), '--port', str(port)]) == FAILED
    told = capsys.readouterr().err
    assert '--port' in told
    assert 'none.pth' not in told


def test_folder_that_cannot_be_written_names_the_variable(monkeypatch, tmp_path):
    (tmp_path / 'file').touch()
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    with pytest.raises(OSError, match='XDG_CACHE_HOME'), private_folder():
        pass


class Process:
    """A page in a process of its own, with a face that was dropped on it."""

    def __init__(self, root):
        path = os.pathsep.join([str(root), os.environ.get('PYTHONPATH', '')])
        self.process = subprocess.Popen(
            [sys.executable, '-c', SCRIPT],
            stderr=subprocess.PIPE,
            env={**os.environ, 'PYTHONPATH': path},
            start_new_session=True,
        )

    def drop(self):
        line = self.process.stderr.readline().decode()
        self.port = int(line.split('/  ')[0].rsplit(':', 1)[1])
        # A name and a content that are nobody else's.
        self.name = f'{uuid.uuid4().hex}.png'
        assert upload(self.port, image(), name=self.name)[0] == 200
        # As an open page does all the time.
        self.alive = socket.create_connection((HOST, self.port))
        self.alive.sendall(b'GET /gradio_api/heartbeat/a HTTP/1.1\r\nHost: localhost\r\n\r\n')
        assert b'200 OK' in self.alive.recv(100)

    def end(self, number):
        self.process.send_signal(number)
        with self.alive, self.process.stderr as told:
            code = self.process.wait(timeout=120)
            assert told.read() == b''
        return code


@pytest.mark.slow
def test_uploads_are_deleted_at_any_end(places, root):
    """Each end of five pages; one goes on; what a killed one left is removed by the next."""
    places.mkdir(parents=True, exist_ok=True)
    before = {*places.iterdir()}
    foreign = [places / name for name in (*FOREIGN, '0123456789abcdef', 'mine.lock', 'a/b.png')]
    for path in foreign:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('foreign')
    ends = {signal.SIGINT: 0, signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGKILL: -9}
    pages = {number: Process(root) for number in [*ends, None]}

    def left():
        return {path.name for path in places.rglob('*.png') if len(path.stem) == 32}

    try:
        for page in pages.values():
            page.drop()
        names = {number: page.name for number, page in pages.items()}
        assert left() == {*names.values()}
        assert {number: pages[number].end(number) for number in ends} == ends
        assert left() == {names[signal.SIGKILL], names[None]}
        with private_folder():
            assert left() == {names[None]}
        assert upload(pages[None].port, image())[0] == 200
        assert pages[None].end(signal.SIGTERM) == 143
    finally:
        for page in pages.values():
            page.process.kill()
            page.process.wait()
    top = {places / path.relative_to(places).parts[0] for path in foreign}
    assert {*places.iterdir()} == before | top | {places / NOTES_FILE}
    assert {path.read_text() for path in foreign} == {'foreign'}
