# SPDX-License-Identifier: Apache-2.0
"""Directories: complete, without duplicates, at any position, of any size, and with any key that S3 allows."""
import ctypes
import errno
import os
import random

from harness import BUCKET, MIB, check, equal, options, raises
from servers.s3d import S3d

NONE = (None,)
ODD = ('sp ace', 'plus+plus', 'a&b=c;d', 'per%41cent', '%', '%2F', 'ünïcödé', '日本', 'emoji😀', 'tilde~', 'file.bak~',
       'new\nline', 'tab\tx', 'back\\slash', '#hash?query', '*star', '(paren)', '[x]{y}', '|<lt>"quote\'', ' leading',
       'trailing ', 'dot.', '.hidden', '...', 'a:b', '@$!,', '-dash', "it's", '`cmd`', '&amp;', 'e\u0301', '\u202ertl',
       'n' * 255, 'é' * 127)
CONTROL = ('bell\x07', 'one\x01', 'del\x7f', 'return\r')


class Directory:
    """A directory stream with its positions, which Python's own does not show."""

    class Entry(ctypes.Structure):
        _fields_ = [('ino', ctypes.c_uint64), ('off', ctypes.c_int64), ('reclen', ctypes.c_ushort),
                    ('type', ctypes.c_ubyte), ('name', ctypes.c_char * 256)]

    def __init__(self, path):
        self.c = ctypes.CDLL(None, use_errno=True)
        self.c.opendir.restype = ctypes.c_void_p
        self.c.readdir.restype = ctypes.POINTER(self.Entry)
        self.c.telldir.restype = ctypes.c_long
        self.handle = ctypes.c_void_p(self.c.opendir(os.fsencode(path)))
        check(self.handle.value, f'opendir: {path}')

    def next(self):
        entry = self.c.readdir(self.handle)
        return os.fsdecode(entry.contents.name) if entry else None

    def tell(self):
        return self.c.telldir(self.handle)

    def seek(self, place):
        self.c.seekdir(self.handle, ctypes.c_long(place))

    def rewind(self):
        self.c.rewinddir(self.handle)

    def rest(self):
        names = []
        while (name := self.next()) is not None:
            names.append(name)
        return names

    def close(self):
        self.c.closedir(self.handle)


def numbered_server(t, count, prefix='many/', size=10):
    server = t.s3d(memory=True)
    server.synthetic_keys(BUCKET, prefix, count, size)
    return server


def names_of(server, prefix):
    return [item['key'].removeprefix(prefix) for item in server.client().list(BUCKET, prefix)]


def check_complete(have, want, what):
    equal(len(have), len(set(have)), f'{what}: names without duplicates')
    missing, extra = set(want) - set(have), set(have) - set(want)
    check(not missing and not extra, f'{what}: {len(missing)} missing such as {sorted(missing)[:3]}, '
          f'{len(extra)} too many such as {sorted(extra)[:3]}')


@options(timeout=120, san=True)
def test_five_thousand_keys(t):
    server = numbered_server(t, 5000)
    want = names_of(server, 'many/')
    m = t.mount(server)
    check_complete(os.listdir(m.file('many')), want, 'the first time')
    check_complete(os.listdir(m.file('many')), want, 'again')
    with os.scandir(m.file('many')) as entries:
        check(all(e.stat().st_size == 10 for e in entries), 'sizes of listed files')
    requests = server.stats()['requests']
    check(set(requests) == {'list'}, f'more than lists were asked for: {requests}')


@options(timeout=120, san=True)
def test_positions_in_a_directory(t):
    server = numbered_server(t, 5000)
    m = t.mount(server)
    d = Directory(m.file('many'))
    places, names = [], []
    while True:
        places.append(d.tell())
        name = d.next()
        if name is None:
            break
        names.append(name)
    check_complete(names, ['.', '..', *names_of(server, 'many/')], 'readdir')
    equal(len(places), len(set(places)), 'positions that differ')
    rng = random.Random(4)
    for _ in range(60):
        at = rng.randrange(len(names))
        d.seek(places[at])
        check([d.next() for _ in range(3)] == (names + [None] * 3)[at:at + 3], f'names after seekdir to entry {at}')
    d.seek(places[2500])
    check(d.rest() == names[2500:], 'the rest after seekdir to the middle')
    equal(d.next(), None, 'after the end')
    d.rewind()
    check(d.rest() == names, 'all names after rewinddir')
    d.close()


@options(timeout=120)
def test_two_readers_of_one_directory(t):
    server = numbered_server(t, 3000)
    m = t.mount(server)
    a, b = Directory(m.file('many')), Directory(m.file('many'))
    one, two = [], []
    for _ in range(1500):
        one.append(a.next())
        two += [b.next(), b.next()]
    one += a.rest()
    two += b.rest()
    want = ['.', '..', *names_of(server, 'many/')]
    check_complete(one, want, 'the slower reader')
    check_complete(two, want, 'the faster reader')
    a.close()
    b.close()


def listed_within_memory(t, count):
    server = numbered_server(t, count, size=1)
    with t.mount(server, memory='32MiB') as m:
        have = 0
        seen = bytearray(count)
        with os.scandir(m.file('many')) as entries:
            for e in entries:
                number = int(e.name)
                check(not seen[number], f'{e.name} is there twice')
                seen[number] = 1
                have += 1
        equal(have, count, 'keys')
        if not t.san:
            peak = m.peak_rss_bytes()
            check(peak <= 64 * MIB, f'{peak >> 20} MiB at the peak of listing {count} keys with a budget of 32 MiB')


@options(timeout=120, san=True)
def test_hundred_thousand_keys(t):
    listed_within_memory(t, 100000)


@options(timeout=600, soak=True)
def test_million_keys(t):
    listed_within_memory(t, 1000000)


@options(timeout=120)
def test_attributes_of_a_hundred_thousand_keys(t):
    server = numbered_server(t, 100000, size=7)
    with t.mount(server, memory='32MiB') as m:
        with os.scandir(m.file('many')) as entries:
            check(all(e.stat().st_size == 7 for e in entries), 'sizes')
        requests = server.stats()['requests']
        total = sum(sum(by_status.values()) for by_status in requests.values())
        check(total < 2000, f'{total} requests to list 100,000 keys with their sizes: {requests}')


@options(servers=('versitygw', 'radosgw'), soak_servers=('minio',), timeout=120)
def test_pages_of_real_servers(t):
    bucket = f'pages-{t.transport.replace("_", "-")}'
    client = t.server.client()
    client.create_bucket(bucket)
    want = [f'flat/{n:04d}' for n in range(1100)]
    client.put_many(bucket, ((key, b'x') for key in want))
    client.put_many(bucket, ((f'deep/{n}/file', b'y' * n) for n in range(60)))
    m = t.mount(bucket=bucket)
    check_complete(os.listdir(m.file('flat')), [key[5:] for key in want], 'files')
    check_complete(os.listdir(m.file('deep')), [str(n) for n in range(60)], 'directories')
    check_complete(os.listdir(m.directory), ['flat', 'deep'], 'the root')
    for n in (0, 7, 59):
        with os.scandir(m.file('deep', str(n))) as entries:
            equal([(e.name, e.stat().st_size) for e in entries], [('file', n)], f'deep/{n}')


@options(san=True)
def test_directory_markers(t):
    server = t.s3d(memory=True)
    for key in ('marked/', 'marked/file', 'empty/', 'outer/inner/', 'full/', 'plain/x'):
        server.declare(BUCKET, key, body=b'content' if key in ('full/', 'marked/file', 'plain/x') else b'')
    m = t.mount(server)
    check_complete(os.listdir(m.directory), ['marked', 'empty', 'outer', 'full', 'plain'], 'the root')
    for name, want in (('marked', ['file']), ('empty', []), ('outer', ['inner']), ('outer/inner', []), ('full', [])):
        check(os.path.isdir(m.file(name)), f'{name} is no directory')
        equal(os.listdir(m.file(name)), want, f'names in {name}')
    with t.mount(server) as fresh:
        for name in ('empty', 'outer/inner', 'full', 'marked'):
            check(os.path.isdir(fresh.file(name)), f'{name} is no directory when looked up at once')


@options(san=True)
def test_directory_wins_over_object(t):
    server = t.s3d(memory=True)
    for key in ('a', 'a/b', 'c', 'c.d', 'c/d', 'c0', 'e', 'e!', 'e-x', 'e/'):
        server.declare(BUCKET, key, body=key.encode())
    want = ['a', 'c', 'c.d', 'c0', 'e', 'e!', 'e-x']
    m = t.mount(server)
    check_complete(os.listdir(m.directory), want, 'the root')
    for name in ('a', 'c', 'e'):
        check(os.path.isdir(m.file(name)), f'{name} is no directory')
        equal(m.log_text().count(f'key={name}: hidden'), 1, f'log lines for the object {name}')
    with open(m.file('a/b'), 'rb') as f:
        equal(f.read(), b'a/b', 'bytes')
    with t.mount(server) as fresh:
        check(os.path.isdir(fresh.file('a')) and os.path.isfile(fresh.file('c0')), 'types when looked up at once')
        fresh.log_wait('key=a: hidden')


@options(san=True)
def test_keys_that_no_path_can_express(t):
    server = t.s3d(memory=True)
    bad = ('x//y', 'x/./y', 'x/../y', 'x/.', 'x/..', '/leading', './dot', '../up', 'x/' + 'l' * 256, 'l' * 300 + '/y',
           'x/nul\0byte')
    for key in (*bad, 'x/good', 'good'):
        server.declare(BUCKET, key, body=b'1')
    m = t.mount(server)
    check_complete(os.listdir(m.directory), ['x', 'good'], 'the root')
    check_complete(os.listdir(m.file('x')), ['good'], 'x')
    lines = [line for line in m.log_text().splitlines() if 'not shown' in line]
    equal(len(lines), len(bad), f'log lines for {len(bad)} keys: {lines}')
    for part in ('key=x/', 'key=.', 'key=..', 'l' * 256, 'key=x/nul'):
        check(any(part in line for line in lines), f'no log line with {part[:40]!r} among {lines}')
    with open(m.file('x/good'), 'rb') as f:
        equal(f.read(), b'1', 'bytes')


@options(san=True)
def test_name_beyond_the_page_of_its_siblings(t):
    """Names asked for one by one are looked up by pages; 1,100 names sort between the start of such a page and the
    name."""
    server = t.s3d(memory=True)
    server.declare(BUCKET, 'd/ab', body=b'there')
    server.client().put_many(BUCKET, ((f'd/aa\u00e9{n:04d}', b'') for n in range(1100)))
    m = t.mount(server)
    for n in range(12):
        check(not os.path.exists(m.file(f'd/missing-{n}')), 'a missing name is there')
    equal(os.stat(m.file('d/ab')).st_size, 5, 'size')


@options(san=True)
def test_keys_of_full_length(t):
    """Nothing can be below a key of 1,024 bytes."""
    server = t.s3d(memory=True)
    stem = '/'.join('p' * 203 for _ in range(5)) + '/'
    keys = [stem + 'k' * (size - len(stem)) for size in (1023, 1024)]
    for key in keys:
        server.declare(BUCKET, key, body=key.encode())
    m = t.mount(server)
    for key in keys:
        with open(m.file(key), 'rb') as f:
            equal(f.read(), key.encode(), f'bytes of a key of {len(key)} bytes')
    with raises(errno.ENOENT, 'a missing key of full length'):
        os.stat(m.file(keys[1][:-1] + 'x'))
    check_complete(os.listdir(m.file(stem)), [key.removeprefix(stem) for key in keys], 'names')


@options(servers=('versitygw', 'radosgw', 's3d'), soak_servers=('minio',), timeout=120, san=True)
def test_odd_keys(t):
    client = t.server.client()
    bucket = f'odd-{t.transport.replace("_", "-")}'
    client.create_bucket(bucket)
    names = [*ODD, *(CONTROL if isinstance(t.server, S3d) else ())]
    client.put_many(bucket, ((f'odd/{name}', name.encode()) for name in names))
    client.put_many(bucket, ((f'odd/dir {name}/file', b'x') for name in names[:8]))
    names += [f'dir {name}' for name in names[:8]]
    files = [name for name in names if not name.startswith('dir ')]
    m = t.mount(bucket=bucket)
    check_complete(os.listdir(m.file('odd')), names, 'odd names')
    fresh = t.mount(bucket=bucket)
    for name in files:
        for way, mount in (('after listing', m), ('looked up at once', fresh)):
            with open(mount.file('odd', name), 'rb') as f:
                equal(f.read(), name.encode(), f'bytes of {name!r}, {way}')
    for name in names[-8:]:
        with t.mount(bucket=bucket, prefix=f'odd/{name}') as m:
            equal(os.listdir(m.directory), ['file'], f'names below the prefix {name!r}')
