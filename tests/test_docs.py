"""What the documentation says can be done: code runs, commands exist, links lead somewhere.

In ``README.md`` and ``docs/*.md`` a comment in front of a fenced block says what is done with it,
in the order of the page and in an empty folder with ``configs`` and ``tools`` in it:

- ``<!-- run -->``: the block, Python or bash, is executed; Python blocks share their names. Code
  inside the comment itself (``<!-- run``, lines, ``-->``) is executed and not shown.
- ``<!-- file: NAME -->``: the block is written to that file, behind what the page wrote there.
- ``<!-- output -->``: the block is what the last executed one printed, log lines apart.
"""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import traceback
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / 'README.md',
    ROOT / 'CONTRIBUTING.md',
    *sorted((ROOT / 'docs').glob('*.md')),
    *sorted((ROOT / 'configs').rglob('README.md')),
]

FENCE = re.compile(r'^```(\w*)[^\n]*\n(.*?)^```$', re.M | re.S)
STEP = re.compile(
    r'^<!-- run\n(?P<hidden>.*?)^-->$'
    r'|^<!-- (?P<action>run|output|file: (?P<name>\S+)) -->\n+'
    r'```(?P<language>\w+)\n(?P<code>.*?)^```$',
    re.M | re.S,
)
LOG_LINE = re.compile(r'^\d\d/\d\d \d\d:\d\d:\d\d - \w+ - .*\n', re.M)
LINK = re.compile(r'(?<!!)\[[^\]]*\]\(([^)\s]+)\)')


def page_id(path):
    return str(path.relative_to(ROOT))


def run_page(page):
    """Do in the current folder what the comments of a page ask for; raise where it fails."""
    text = page.read_text(encoding='utf-8')
    names, printed, written = {'__name__': 'page'}, None, set()
    for step in STEP.finditer(text):
        action = step['action'] or 'run'
        code = step['hidden'] or step['code']
        # Empty lines in front make line numbers in messages those of the page.
        line = text.count('\n', 0, step.start('hidden' if step['hidden'] else 'code'))
        if action == 'run' and step['language'] == 'bash':
            command = ['bash', '-euo', 'pipefail', '-c', code]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            tail = (done.stdout + done.stderr)[-4000:]
            assert done.returncode == 0, f'{page.name}:{line}: {tail}'
            printed = done.stdout
        elif action == 'run':
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile('\n' * line + code, page.name, 'exec'), names)
            printed = LOG_LINE.sub('', out.getvalue())
        elif action == 'output':
            assert printed == code, f'{page.name}:{line}: printed {printed!r}'
        else:
            file = Path(step['name'])
            file.parent.mkdir(parents=True, exist_ok=True)
            before = file.read_text(encoding='utf-8') + '\n\n' if file in written else ''
            file.write_text(before + code, encoding='utf-8')
            written.add(file)


def commands():
    """Command lines of bash blocks that start with ``python tools/``, with their page."""
    for page in PAGES:
        for language, block in FENCE.findall(page.read_text(encoding='utf-8')):
            if language != 'bash':
                continue
            for line in block.replace('\\\n', ' ').splitlines():
                words = shlex.split(line, comments=True)
                while words and re.fullmatch(r'\w+=.*', words[0]):
                    words.pop(0)
                if len(words) > 1 and words[1].startswith('tools/'):
                    yield pytest.param(page, words, id=f'{page_id(page)}: {shlex.join(words[1:])}')


def own_commands():
    """Command lines of bash blocks that start with ``mmvlr``, with their page."""
    for page in PAGES:
        for language, block in FENCE.findall(page.read_text(encoding='utf-8')):
            for line in block.replace('\\\n', ' ').splitlines() if language == 'bash' else ():
                words = shlex.split(line, comments=True)
                if words and words[0] == 'mmvlr' and words[1] != 'COMMAND':
                    yield pytest.param(words[1:], id=f'{page_id(page)}: {shlex.join(words)}')


@cache
def help_of(script):
    """What a tool of the repository prints for ``--help``."""
    done = subprocess.run(
        [sys.executable, ROOT / script, '--help'], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def help_of_verb(name):
    """What a verb of :data:`PROGRAMS` prints for ``--help``."""
    from mmvlr.cli.main import run_program

    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as error:
        run_program(name, ['--help'])
    assert error.value.code == 0
    return out.getvalue()


def anchors(page):
    """The anchors of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r'^#+ (.+)$', FENCE.sub('', page.read_text(encoding='utf-8')), re.M)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


@pytest.mark.slow
@pytest.mark.parametrize(
    'page', [page for page in PAGES if STEP.search(page.read_text(encoding='utf-8'))], ids=page_id
)
def test_code_runs(page, tmp_path):
    pytest.importorskip('skimage')
    # Copies and not links, as a page may write below configs; a subprocess, as what the pages
    # register must not be seen by other tests.
    for name in ('configs', 'tools', 'projects'):
        (tmp_path / name).mkdir()
        for entry in (ROOT / name).iterdir():
            (tmp_path / name / entry.name).symlink_to(entry)
    environment = {
        **os.environ,
        'PATH': f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}',
        'PYTHONPATH': f'{tmp_path}{os.pathsep}{ROOT}',
        'OMP_NUM_THREADS': '1',
    }
    done = subprocess.run(
        [sys.executable, __file__, page],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_page_that_fails_is_noticed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = tmp_path / 'page.md'
    page.write_text('<!-- run -->\n```python\nprint(1)\n```\n\n<!-- output -->\n```text\n2\n```\n')
    with pytest.raises(AssertionError, match=r'page.md:7: printed '):
        run_page(page)
    page.write_text('<!-- run -->\n```bash\nfalse\n```\n')
    with pytest.raises(AssertionError, match=r'page.md:2'):
        run_page(page)
    page.write_text('\n\n<!-- run\nx = 1 / 0\n-->\n')
    with pytest.raises(ZeroDivisionError) as error:
        run_page(page)
    assert traceback.extract_tb(error.tb)[-1].lineno == 4


@pytest.mark.slow
@pytest.mark.parametrize(('page', 'words'), commands())
def test_command_exists(page, words):
    program, script, *arguments = words
    path = ROOT / script
    assert path.is_file(), f'{page_id(page)}: {script} does not exist'
    assert program == {'.py': 'python', '.sh': 'bash'}[path.suffix]
    for word in arguments:
        if re.fullmatch(r'configs/\S+\.py', word):
            assert (ROOT / word).is_file(), f'{page_id(page)}: {word} does not exist'
    options = [word.split('=')[0] for word in arguments if re.match(r'--?[a-z]', word)]
    if path.suffix == '.py':
        text = help_of(script)
        for option in options:
            found = re.search(rf'(?<![\w-]){re.escape(option)}(?![\w-])', text)
            assert found, f'{page_id(page)}: {script} has no option {option}'


@pytest.mark.parametrize('words', own_commands())
def test_command_of_mmvlr_parses(words):
    from mmvlr.cli.main import PROGRAMS, build_parser

    if words[0] not in PROGRAMS:
        parser = build_parser()
        (verbs,) = (a.choices for a in parser._actions if a.dest == 'command')
        for action in verbs[words[0]]._actions:
            # The files of an example need not be there.
            if getattr(action.type, '__module__', '').startswith('mmvlr'):
                action.type = None
        assert callable(parser.parse_args(words).run)
        return
    text = help_of_verb(words[0])
    for option in (word.split('=')[0] for word in words[1:] if re.match(r'--?[a-z]', word)):
        assert re.search(rf'(?<![\w-]){re.escape(option)}(?![\w-])', text), option


@pytest.mark.parametrize('page', PAGES, ids=page_id)
def test_links_resolve(page):
    for target in LINK.findall(FENCE.sub('', page.read_text(encoding='utf-8'))):
        if re.match(r'[a-z]+:', target):
            continue
        name, _, anchor = target.partition('#')
        path = (page.parent / name).resolve() if name else page
        if 'api/generated' in path.as_posix():
            continue  # written by the build of the documentation, which checks it
        assert path.exists(), f'{page_id(page)}: {target} does not exist'
        if anchor:
            assert anchor in anchors(path), f'{page_id(page)}: {target}: no such heading'


@pytest.mark.parametrize('page', PAGES, ids=page_id)
def test_markers_are_understood(page):
    text = page.read_text(encoding='utf-8')
    # The contributors' guide shows the markers in its prose.
    marked = re.findall(r'^<!-- (?:run|file|output)', text, re.M)
    assert len(marked) == len(list(STEP.finditer(text)))


if __name__ == '__main__':
    run_page(Path(sys.argv[1]))
