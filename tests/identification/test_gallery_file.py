"""The gallery on disk: what is kept, what is refused, what other processes see."""

import errno
import hashlib
import json
import os
import signal
import struct
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mmvlr.identification import Gallery, GalleryChangedError, MeanTemplate, gallery_file
from mmvlr.registry import TEMPLATES
from mmvlr.utils.contract import ModelMismatchError
from mmvlr.utils.locks import LockedError, locked
from mmvlr.utils.schema import FileFormatError

from .galleries import DIMS, IDENTITY, NAMES, faces, same
from .mutations import mutate_bytes, mutate_value

FILE = 'gallery.safetensors'
# At once: a new interpreter imports torch first.
FORK = get_context('fork')


def save_version_1(gallery, folder):
    """Write a gallery as the first version of mmvlr did."""
    folder.mkdir(exist_ok=True)
    images = [gallery.images(person) for person in gallery.people]
    tensors = {'embedding': np.concatenate([unit for _, unit, _ in images])}
    for name in images[0][2]:
        tensors[f'quality.{name}'] = np.concatenate([qualities[name] for *_, qualities in images])
    save_file(tensors, folder / 'written')
    digest = hashlib.sha256((folder / 'written').read_bytes()).hexdigest()
    tensors_file = folder / f'gallery-{digest[:16]}.safetensors'
    (folder / 'written').rename(tensors_file)
    template = gallery.template | dict(
        type=gallery.template['type'].replace('ImageTemplates', 'PictureTemplates')
    )
    content = json.dumps(
        dict(
            mmvlr='0.1.0',
            identity=gallery.fingerprint,
            template=template,
            tensors=digest,
            people=gallery.people,
            offsets=np.cumsum([0, *gallery.counts.values()]).tolist(),
            pictures=[name for names, *_ in images for name in names],
        )
    )
    digest = hashlib.sha256(content.encode()).hexdigest()
    head = json.dumps(dict(format='mmvlr gallery', version=1, sha256=digest))
    (folder / 'gallery.json').write_text(f'{head[:-1]}, "content": {content}}}\n')
    return tensors_file


def test_saved_and_loaded(gallery, rng, tmp_path):
    gallery.template = dict(type='RIWeightedTemplate', temperature=0.5)
    gallery.enroll('no quality but RI', rng.standard_normal((1, DIMS)), dict(ri=[0.3]))
    gallery.enroll(NAMES[0], *faces(rng, 2))
    folder = gallery.save(tmp_path / 'new' / 'folder')
    loaded = Gallery.load(folder, IDENTITY)
    same(gallery, loaded, rng)
    assert loaded.fingerprint == IDENTITY
    assert np.isnan(loaded.images('no quality but RI')[2]['norm']).all()
    # What was loaded can be extended and saved again, over the old one.
    loaded.enroll('late', *faces(rng, 1))
    loaded.remove(NAMES[4])
    loaded.save(folder)
    same(loaded, Gallery.load(folder), rng)
    assert os.listdir(folder) == [FILE]
    # Any reader of such files reads it.
    found = load_file(folder / FILE)
    assert found['embedding'].shape == (loaded.num_images, DIMS)
    np.testing.assert_array_equal(found['embedding'][:1], loaded.images(NAMES[0])[1][:1])


def test_an_empty_gallery_is_a_gallery(tmp_path):
    loaded = Gallery.load(Gallery(IDENTITY, 'best').save(tmp_path))
    assert len(loaded) == 0
    loaded.enroll('Ann', np.ones((1, DIMS)), dict(ri=[0.1]))
    assert loaded.search(np.ones((1, DIMS))).person.tolist() == [['Ann']]


def drop_index(gallery):
    """Return a gallery as files before version 3 are read: without RI."""
    stored = gallery._state.store(IDENTITY)
    qualities = {name: values for name, values in stored.qualities.items() if name != 'ri'}
    gallery._state = gallery._state.restore(
        gallery_file.StoredGallery(**vars(stored) | dict(qualities=qualities))
    )
    return gallery


@pytest.mark.parametrize('version', [1, 2])
def test_index_of_old_files_is_on_another_scale(gallery, rng, tmp_path, monkeypatch, version):
    def save(template):
        gallery.template = template
        if version == 1:
            return save_version_1(gallery, tmp_path)
        with monkeypatch.context() as patched:
            patched.setattr(gallery_file, '_VERSION', 2)
            return gallery.save(tmp_path)

    for template in ('ri', 'best'):
        save(template)
        with pytest.raises(FileFormatError, match="lacks the quality 'ri'; enroll"):
            Gallery.load(tmp_path)
    save('norm')
    loaded = Gallery.load(tmp_path)
    same(drop_index(gallery), loaded, rng)
    loaded.save(tmp_path)
    assert 'quality.ri' not in load_file(tmp_path / FILE)


@pytest.mark.parametrize('template', ['norm', 'images'])
def test_files_of_version_1_are_read_and_replaced(gallery, rng, tmp_path, template):
    gallery.template = template
    save_version_1(gallery, tmp_path)
    (tmp_path / 'gallery-net.safetensors').write_text('mine')
    same(drop_index(gallery), Gallery.load(tmp_path, IDENTITY), rng)
    with Gallery.update(tmp_path) as loaded:
        loaded.remove('Zoë')
    # The files that its gallery.json names are gone, and nothing else.
    assert sorted(os.listdir(tmp_path)) == ['gallery-net.safetensors', FILE]
    same(loaded, Gallery.load(tmp_path), rng)


def test_names_of_version_1_can_be_anything(tmp_path):
    odd = ['a\nb', ' ', '', 'Zoe\u0308', 'Zoë', 'x\0\x1b[2J']
    gallery = Gallery(IDENTITY)
    gallery.enroll_many(list('abcdef'), np.eye(DIMS)[:6])
    gallery._state = gallery._state.restore(
        gallery_file.StoredGallery(**vars(gallery._state.store(IDENTITY)) | dict(people=odd))
    )
    save_version_1(gallery, tmp_path)
    with Gallery.update(tmp_path) as loaded:
        assert loaded.people == odd
        loaded.enroll('Zoe\u0308', np.ones((1, DIMS)))
        assert loaded.counts['Zoe\u0308'] == 2
        loaded.remove('a\nb', '')
    assert Gallery.load(tmp_path).people == [' ', 'Zoe\u0308', 'Zoë', 'x\0\x1b[2J']


# Nothing but what is ours ----------------------------------------------------------------------


def test_foreign_files_stay(gallery, rng, tmp_path):
    """Also where their names look like those that mmvlr gives."""
    foreign = [
        'gallery_net.safetensors',
        'gallery-0123456789abcdef.safetensors',
        'gallery.json',
        '.gallery.safetensors.abcd1234.safetensors',
        '.mmvlr-0123456789abcdef.safetensors',
        '.env',
        'decision.json',
        'people/Ann/gallery.safetensors',
    ]
    for name in foreign:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f'{{"mine": "{name}"}}')
    for _ in range(2):
        gallery.save(tmp_path)
        with Gallery.update(tmp_path) as loaded:
            loaded.enroll('late', *faces(rng, 1))
        with Gallery.update(tmp_path) as loaded:
            loaded.remove('late')
        gallery = Gallery.load(tmp_path)
    for name in foreign:
        assert (tmp_path / name).read_text() == f'{{"mine": "{name}"}}'
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob('*') if path.is_file()}
    assert files == {*foreign, FILE}


def test_a_file_of_that_name_that_is_no_gallery_is_not_replaced(gallery, tmp_path):
    save_file(dict(weight=np.ones(3, np.float32)), tmp_path / FILE)
    before = (tmp_path / FILE).read_bytes()
    for work in (gallery.save, Gallery.load, lambda folder: Gallery.update(folder).__enter__()):
        with pytest.raises(FileFormatError, match=FILE):
            work(tmp_path)
    assert (tmp_path / FILE).read_bytes() == before


def test_private(gallery, rng, tmp_path):
    def modes(folder):
        return [oct(path.stat().st_mode & 0o777) for path in (folder, folder / FILE)]

    before = os.umask(0o002)
    try:
        assert modes(gallery.save(tmp_path / 'new')) == ['0o700', '0o600']
        # A folder of the user's is left alone, and the file in it is private again.
        (tmp_path / 'own').mkdir(mode=0o775)
        gallery.save(tmp_path / 'own')
        (tmp_path / 'own' / FILE).chmod(0o664)
        with Gallery.update(tmp_path / 'own', keep_mode=True) as loaded:
            loaded.remove(NAMES[0])
        assert modes(tmp_path / 'own') == ['0o775', '0o664']
        with Gallery.update(tmp_path / 'own') as loaded:
            loaded.remove(NAMES[1])
        assert modes(tmp_path / 'own') == ['0o775', '0o600']
    finally:
        os.umask(before)


def test_nothing_of_removed_people_stays(gallery, rng, tmp_path):
    """Not in the temporary file of a killed writer either."""
    gallery.enroll('Eve Removed', *faces(rng, 1))
    gallery.save(tmp_path)

    def die():
        loaded = Gallery.load(tmp_path)
        loaded.enroll('another', *faces(rng, 1))
        os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)
        loaded.save(tmp_path)

    writer = FORK.Process(target=die)
    writer.start()
    writer.join()
    assert writer.exitcode == -signal.SIGKILL
    marks = [b'Eve Removed', gallery.images('Eve Removed')[1].tobytes()]

    def files_with_her():
        files = [path for path in tmp_path.rglob('*') if path.is_file()]
        return sum(any(mark in path.read_bytes() for mark in marks) for path in files)

    assert files_with_her() == 2
    with Gallery.update(tmp_path) as loaded:
        loaded.remove('Eve Removed')
    assert files_with_her() == 0
    assert os.listdir(tmp_path) == [FILE]


# Several processes -----------------------------------------------------------------------------


def test_update_saves_everything_or_nothing(gallery, rng, tmp_path):
    gallery.save(tmp_path / 'there')
    with pytest.raises(ZeroDivisionError), Gallery.update(tmp_path / 'there') as loaded:
        loaded.remove(NAMES[0])
        _ = 1 / 0
    same(gallery, Gallery.load(tmp_path / 'there'), rng)
    with pytest.raises(FileNotFoundError), Gallery.update(tmp_path / 'new'):
        pass
    with pytest.raises(ZeroDivisionError), Gallery.update(tmp_path / 'new', IDENTITY):
        _ = 1 / 0
    assert not (tmp_path / 'new').exists()
    with pytest.raises(ModelMismatchError):
        Gallery.update(tmp_path / 'there', IDENTITY | dict(weights='f' * 64)).__enter__()
    with Gallery.update(tmp_path / 'new', IDENTITY, 'best'):
        pass
    with Gallery.update(tmp_path / 'new', template='images'):
        pass
    assert Gallery.load(tmp_path / 'new').template == dict(type='ImageTemplates')
    # What did not change is not written.
    before = os.stat(tmp_path / 'new' / FILE).st_mtime_ns
    with Gallery.update(tmp_path / 'new', IDENTITY):
        pass
    assert os.stat(tmp_path / 'new' / FILE).st_mtime_ns == before


def test_two_who_loaded_the_same_do_not_overwrite_each_other(gallery, rng, tmp_path):
    gallery.save(tmp_path)
    one, two = Gallery.load(tmp_path), Gallery.load(tmp_path)
    one.enroll('one', *faces(rng, 1))
    two.enroll('two', *faces(rng, 1))
    one.save(tmp_path)
    with pytest.raises(GalleryChangedError, match='nothing was saved'):
        two.save(tmp_path)
    assert 'one' in Gallery.load(tmp_path)
    # Where nobody else writes, a gallery may be saved as often as one likes, and elsewhere.
    one.enroll('more', *faces(rng, 1))
    one.save(tmp_path)
    two.save(tmp_path / 'two')
    same(two, Gallery.load(tmp_path / 'two'), rng)


def test_a_writer_waits_for_another(gallery, tmp_path, monkeypatch):
    gallery.save(tmp_path)
    monkeypatch.setattr('mmvlr.identification.gallery_file.WAIT', 0.1)
    with locked(tmp_path, FILE):
        for work in (gallery.save, lambda folder: Gallery.update(folder).__enter__()):
            with pytest.raises(LockedError, match=FILE):
                work(tmp_path)
        # Readers do not.
        assert len(Gallery.load(tmp_path)) == len(NAMES)


def enroll_in_turns(folder, number, turns):
    for turn in range(turns):
        with Gallery.update(folder, IDENTITY) as gallery:
            gallery.enroll(f'{number}-{turn}', np.ones((2, DIMS)), names=['a', 'b'])


def test_processes_lose_nobody_and_readers_never_fail(tmp_path):
    """Two writers into a folder that is not there; this process loads all the while."""
    folder, turns = tmp_path / 'gallery', 40
    writers = [FORK.Process(target=enroll_in_turns, args=(folder, n, turns)) for n in 'ab']
    for writer in writers:
        writer.start()
    loads = seen = 0
    while any(writer.is_alive() for writer in writers):
        if gallery_file.has_gallery(folder):
            found = Gallery.load(folder)
            assert len(found) >= seen
            assert set(found.counts.values()) == {2}
            loads, seen = loads + 1, len(found)
    assert [writer.exitcode for writer in writers] == [0, 0]
    people = Gallery.load(folder).people
    assert sorted(people) == sorted(f'{number}-{turn}' for number in 'ab' for turn in range(turns))
    assert loads > 30
    assert os.listdir(folder) == [FILE]


def test_readers_of_version_1_see_it_replaced(gallery, tmp_path):
    """The files that a reader has just seen may be gone when it opens them."""
    for turn in range(30):
        folder, loads = tmp_path / str(turn), []
        save_version_1(gallery, folder)

        def read(folder=folder, loads=loads):
            while not loads or len(loads[-1]) == len(NAMES):
                loads.append(Gallery.load(folder))

        with ThreadPoolExecutor(1) as pool:
            reader = pool.submit(read)
            with Gallery.update(folder) as loaded:
                loaded.remove(NAMES[0])
            reader.result()
        assert len(loads[-1]) == len(NAMES) - 1


# What is refused -------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_old_gallery(gallery, rng, tmp_path, monkeypatch):
    gallery.save(tmp_path)
    changed = Gallery.load(tmp_path)
    changed.enroll('late', *faces(rng, 1))

    def fail(*names):
        raise OSError(errno.ENOSPC, 'No space left on device')

    for place in ('os.replace', 'mmvlr.identification.gallery_file._write_tensors'):
        with monkeypatch.context() as patch, pytest.raises(OSError, match=FILE):
            patch.setattr(place, fail)
            changed.save(tmp_path)
        same(gallery, Gallery.load(tmp_path), rng)
        assert os.listdir(tmp_path) == [FILE]
    changed.save(tmp_path)
    same(changed, Gallery.load(tmp_path), rng)


@pytest.mark.parametrize('version', [1, 2])
def test_every_flipped_bit_is_noticed(gallery, tmp_path, version):
    if version == 1:
        files = [save_version_1(gallery, tmp_path), tmp_path / 'gallery.json']
    else:
        files = [gallery.save(tmp_path) / FILE]
    rng = np.random.default_rng(7)
    for file in files:
        data = file.read_bytes()
        cut = [data[:place] for place in (0, 7, 300, len(data) // 2, len(data) - 2)]
        flipped = [
            data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]
            for place in rng.integers(0, len(data) - 1, 100).tolist()
        ]
        for damaged in [*cut, *flipped, data + b'more']:
            file.write_bytes(damaged)
            with pytest.raises(FileFormatError, match=str(tmp_path)):
                Gallery.load(tmp_path)
        file.write_bytes(data)
    Gallery.load(tmp_path)


def test_files_of_two_galleries_are_not_mixed(gallery, rng, tmp_path):
    one = save_version_1(gallery, tmp_path / 'one')
    gallery.enroll('late', *faces(rng, 1))
    two = save_version_1(gallery, tmp_path / 'two')
    one.write_bytes(two.read_bytes())
    with pytest.raises(FileFormatError, match=one.name):
        Gallery.load(tmp_path / 'one')
    one.unlink()
    with pytest.raises(FileFormatError, match=f'tensors: {one.name}'):
        Gallery.load(tmp_path / 'one')
    with pytest.raises(FileNotFoundError, match='three'):
        Gallery.load(tmp_path / 'three')


def write_file(path, tensors=None, content=None, metadata=None, seal=True):
    """Write a gallery's file by hand, with the right digest of whatever is in it."""
    data = json.dumps(content).encode() if isinstance(content, dict) else content
    metadata = dict(format='mmvlr gallery', version='3') | (metadata or {})
    if seal:
        metadata.setdefault('sha256', gallery_file._digest(data, tensors))
    with open(path, 'wb') as file:
        whole = tensors | dict(content=np.frombuffer(data, np.uint8))
        gallery_file._write_tensors(file, whole, metadata)


def parts():
    tensors = {'embedding': np.eye(4, dtype=np.float32), 'quality.ri': np.zeros(4, np.float32)}
    content = dict(
        identity=dict(embedding=dict(dims=4)),
        template=dict(type='MeanTemplate'),
        people=['a', 'b', 'c'],
        offsets=[0, 1, 3, 4],
        images=['1', '2', '3', '4'],
    )
    return tensors, content


def test_a_file_by_hand_is_read(tmp_path):
    write_file(tmp_path / FILE, *parts())
    assert Gallery.load(tmp_path).counts == dict(a=1, b=2, c=1)


F32 = np.float32


@pytest.mark.parametrize(
    ('tensors', 'content', 'field'),
    [
        ({}, dict(people=['a', 'b', 'a']), 'people'),
        ({}, dict(people=['a', 'b', 3]), 'people'),
        ({}, dict(people=['a', 'b']), 'offsets'),
        ({}, dict(people='abc'), 'people'),
        ({}, dict(offsets=[0, 3, 1, 4]), 'offsets'),
        ({}, dict(offsets=[0, 1, 1, 4]), 'offsets'),
        ({}, dict(offsets=[0, 1, 2**62, 4]), 'offsets'),
        ({}, dict(offsets=[0, 1, 10**400, 4]), 'out of range'),
        ({}, dict(offsets=[0, -1, 3, 4]), 'offsets'),
        ({}, dict(offsets=[0, 1.5, 3, 4]), 'offsets'),
        ({}, dict(offsets=None), 'offsets'),
        ({}, dict(images=['1', '2', '3']), 'images'),
        ({}, dict(more=1), 'more'),
        ({}, dict(identity={}), 'identity.embedding.dims'),
        ({}, dict(identity=dict(embedding=dict(dims=5))), 'identity.embedding.dims'),
        ({}, dict(identity=dict(embedding=dict(dims='4'))), 'identity.embedding.dims'),
        ({}, dict(identity=3), 'identity'),
        ({}, dict(template={}), 'template'),
        ({}, dict(template=dict(type=['MeanTemplate'])), 'template'),
        ({}, dict(template=dict(type='collections.Counter')), 'template'),
        ({}, dict(template=dict(type='BestTemplate', n=3)), 'template'),
        ({}, dict(template=dict(type='BestTemplate', k='2')), 'template'),
        ({}, dict(template=dict(type='BestTemplate', k=10**400)), 'out of range'),
        ({}, dict(template=dict(type='BestTemplate', quality=['ri'])), 'template'),
        ({}, dict(template=dict(type='RIWeightedTemplate', temperature='hot')), 'template'),
        ({}, dict(template=dict(type='NormWeightedTemplate')), "'norm'"),
        ({}, json.loads('{"identity":' + '{"a":' * 70 + '1' + '}' * 70 + '}'), 'deep'),
        ({}, b'\xff\xfe', 'JSON'),
        ({}, b'[' * 100_000, 'JSON'),
        ({}, b'{"offsets": ' + b'9' * 5000 + b'}', 'JSON'),
        ({}, b'{"identity": NaN}', 'JSON'),
        ({}, b'{"identity": 1e999}', 'JSON'),
        (dict(embedding=None), {}, 'embedding'),
        (dict(embedding=np.eye(4, dtype=np.float64)), {}, 'embedding'),
        (dict(embedding=np.full((4, 4), np.nan, F32)), {}, 'embedding'),
        (dict(embedding=np.full((4, 4), 1e30, F32)), {}, 'embedding'),
        (dict(embedding=np.zeros((4, 4), F32)), {}, 'embedding'),
        (dict(embedding=np.ones(4, F32)), {}, 'embedding'),
        (dict(embedding=np.ones((4, 2, 2), F32) / 2), {}, 'embedding'),
        ({'quality.ri': np.full(4, np.inf, F32)}, {}, 'quality.ri'),
        ({'quality.ri': np.zeros(3, F32)}, {}, 'quality.ri'),
        ({'other': np.zeros(4, F32)}, {}, 'other'),
    ],
)
def test_content_that_contradicts_itself_is_refused_by_field(tmp_path, tensors, content, field):
    """With the right digest: nobody but its author can have meant it so."""
    own_tensors, own_content = parts()
    own_tensors = {k: v for k, v in (own_tensors | tensors).items() if v is not None}
    gallery_file._DTYPES['<f8'] = 'F64'
    try:
        content = content if isinstance(content, bytes) else own_content | content
        write_file(tmp_path / FILE, own_tensors, content)
    finally:
        del gallery_file._DTYPES['<f8']
    with pytest.raises(FileFormatError, match=field) as error:
        Gallery.load(tmp_path)
    assert str(tmp_path / FILE) in str(error.value) and len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ('metadata', 'field'),
    [
        (dict(version='4'), 'version: 4.*update mmvlr'),
        (dict(version='9' * 5000), 'version'),
        (dict(version='²'), 'version'),
        (dict(format='mmvlr decision'), "format: 'mmvlr decision'"),
        (dict(sha256='0' * 64), 'sha256'),
    ],
)
def test_other_formats_are_refused(tmp_path, metadata, field):
    write_file(tmp_path / FILE, *parts(), metadata)
    with pytest.raises(FileFormatError, match=field):
        Gallery.load(tmp_path)


def test_sizes_are_checked_before_memory_is_taken(tmp_path):
    """A header that tells of 6.9 EiB in a file of some bytes."""
    header = json.dumps(
        dict(
            __metadata__=dict(format='mmvlr gallery', version='2', sha256='0'),
            embedding=dict(dtype='F32', shape=[10**9, 2 * 10**9], data_offsets=[0, 8 * 10**18]),
        )
    ).encode()
    (tmp_path / FILE).write_bytes(struct.pack('<Q', len(header)) + header)
    with pytest.raises(FileFormatError, match=FILE):
        Gallery.load(tmp_path)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(weights='f' * 64), 'weights'),
        (dict(preprocessing=IDENTITY['preprocessing'] | dict(color_order='BGR')), 'color_order'),
        (dict(embedding=IDENTITY['embedding'] | dict(flip_fusion='sum')), 'flip_fusion'),
    ],
)
def test_a_gallery_of_another_network_is_refused(gallery, tmp_path, change, message):
    gallery.save(tmp_path)
    with pytest.raises(ModelMismatchError, match=f'{FILE} .*{message}'):
        Gallery.load(tmp_path, IDENTITY | change)


def test_a_rule_that_nobody_registered(gallery, tmp_path):
    @TEMPLATES.register_module()
    class FirstTemplate(MeanTemplate):
        name = 'first'

        def weights(self, qualities, starts):
            kept = np.zeros(starts[-1])
            kept[starts[:-1]] = 1
            return kept

    gallery.template = 'first'
    gallery.save(tmp_path)
    np.testing.assert_array_equal(
        Gallery.load(tmp_path).templates()[0][2], gallery.images(NAMES[2])[1][0]
    )
    del TEMPLATES._module_dict['FirstTemplate']
    with pytest.raises(FileFormatError, match=r"template: .*'FirstTemplate' is not registered"):
        Gallery.load(tmp_path)


def test_mutated_files_are_refused_or_work(tmp_path):
    """Content with the right digest, and bytes: one kind of error, or a gallery that answers."""
    rng = np.random.default_rng(0)
    tensors, content = parts()
    write_file(tmp_path / FILE, tensors, content)
    whole = (tmp_path / FILE).read_bytes()
    outcomes = Counter()
    for turn in range(int(os.environ.get('MMVLR_MUTATIONS', 300))):
        if turn % 3 == 0:
            (tmp_path / FILE).write_bytes(mutate_bytes(rng, whole))
        elif turn % 3 == 1:
            write_file(tmp_path / FILE, tensors, mutate_value(rng, content))
        else:
            data = mutate_bytes(rng, json.dumps(content).encode())
            write_file(tmp_path / FILE, tensors, data)
        try:
            gallery = Gallery.load(tmp_path)
        except FileFormatError as error:
            assert str(tmp_path) in str(error) and len(str(error)) < 1000
            outcomes['refused'] += 1
        else:
            outcomes['read'] += 1
            if len(gallery):
                gallery.search(np.eye(4), k=2)
                gallery.save(tmp_path / 'again')
                assert Gallery.load(tmp_path / 'again').counts == gallery.counts
    assert outcomes['refused'] > outcomes['read'] > 0
    print(outcomes)


def test_mutated_files_of_version_1_are_refused_or_work(gallery, tmp_path):
    save_version_1(gallery, tmp_path)
    file, rng = tmp_path / 'gallery.json', np.random.default_rng(1)
    whole = json.loads(file.read_text())
    outcomes = Counter()
    for turn in range(int(os.environ.get('MMVLR_MUTATIONS', 100))):
        content = mutate_value(rng, whole['content'])
        sealed = whole | dict(
            content=content, sha256=hashlib.sha256(json.dumps(content).encode()).hexdigest()
        )
        data = json.dumps(mutate_value(rng, sealed) if turn % 2 else sealed).encode()
        file.write_bytes(mutate_bytes(rng, data) if turn % 5 == 0 else data)
        try:
            Gallery.load(tmp_path).search(np.eye(DIMS))
        except FileFormatError as error:
            assert str(tmp_path) in str(error)
            outcomes['refused'] += 1
        else:
            outcomes['read'] += 1
    assert outcomes['refused'] > 0
    print(outcomes)
