# SPDX-License-Identifier: Apache-2.0
"""Objects that change behind the mount: a descriptor never mixes versions, and a new one sees the new content."""
import errno
import os
import random
import threading
import time

from check_s3d import synthetic, synthetic_seed
from harness import BUCKET, CHUNK, MIB, check, equal, options

REAL = ('versitygw', 'radosgw')
SIZE = 3 * CHUNK + 4097
CHANGED = 'the object (changed|was replaced)'


def versions(count, size=SIZE):
    return [random.Random(n).randbytes(size) for n in range(count)]


def read_from(fd, offset, length):
    """(bytes, None) or (None, errno)."""
    try:
        return os.pread(fd, length, offset), None
    except OSError as e:
        return None, e.errno


def own_key(name):
    """Other tests of the same server run beside this one."""
    return f'{name}-{os.getpid()}'


@options(servers=('versitygw', 'radosgw', 's3d'), soak_servers=('minio',), timeout=60, san=True)
def test_replaced_while_open(t):
    client, key = t.server.client(), own_key('replaced')
    old, new, other = versions(3)
    client.put(BUCKET, key, old)
    t.expect_log(CHANGED)
    m = t.mount(metadata_ttl='60s', prefetch='off')
    fd = os.open(m.file(key), os.O_RDONLY | os.O_DIRECT)
    equal(os.pread(fd, 4096, 0), old[:4096], 'before')
    client.put(BUCKET, key, new)
    failed = 0
    for offset in (2 * CHUNK, 0, CHUNK, 3 * CHUNK):
        data, error = read_from(fd, offset, 4096)
        check(data == old[offset:offset + 4096] or error == errno.ESTALE,
              f'old handle at {offset}: {error}, or other bytes')
        failed += error is not None
    check(failed > 0, 'a replaced object was read to its end')
    deadline = time.monotonic() + 5
    while True:
        with open(m.file(key), 'rb') as f:
            try:
                data = f.read()
                break
            except OSError as e:
                check(e.errno == errno.ESTALE and time.monotonic() < deadline, f'new handle after ESTALE: {e}')
    check(data == new, 'a new handle after ESTALE has other bytes than the new ones')
    os.close(fd)
    client.put(BUCKET, key, other)
    fresh = t.mount(metadata_ttl='0')
    with open(fresh.file(key), 'rb') as f:
        check(f.read() == other, 'a TTL of 0 shows other bytes than the newest')


@options(servers=REAL, timeout=60, san=True)
def test_new_content_after_the_ttl(t):
    client, key = t.server.client(), own_key('ttl')
    old, new = versions(2, MIB + 1)
    client.put(BUCKET, key, old)
    m = t.mount(metadata_ttl='1s')
    with open(m.file(key), 'rb') as f:
        check(f.read() == old, 'bytes before')
    client.put(BUCKET, key, new)
    time.sleep(1.3)
    with open(m.file(key), 'rb') as f:
        check(f.read() == new, 'bytes after the TTL')


def changed_behind(t, change, allowed):
    """Reads an open file after change(client, key); what comes is the old bytes or an allowed error."""
    client, key = t.server.client(), own_key('changed')
    old, = versions(1)
    client.put(BUCKET, key, old)
    m = t.mount(metadata_ttl='1s', prefetch='off')
    t.expect_log(f'key={key}')
    fd = os.open(m.file(key), os.O_RDONLY)
    equal(os.pread(fd, 100, 0), old[:100], 'bytes before')
    change(client, key)
    errors = set()
    for offset in (len(old) - 100, 2 * CHUNK, CHUNK, 0):
        data, error = read_from(fd, offset, 100)
        check(error in allowed or data == old[offset:offset + 100],
              f'at {offset}: {error}, bytes {data and data[:20]!r}')
        errors.add(error)
    check(errors - {None}, 'reads of what is gone never failed')
    os.close(fd)
    time.sleep(1.3)
    return m, key


@options(servers=REAL, timeout=60, san=True)
def test_deleted_while_open(t):
    m, key = changed_behind(t, lambda client, key: client.delete(BUCKET, key), (errno.ENOENT, errno.ESTALE))
    check(not os.path.exists(m.file(key)), 'a deleted object is still there after the TTL')


@options(servers=REAL, timeout=60, san=True)
def test_shrunk_while_open(t):
    m, key = changed_behind(t, lambda client, key: client.put(BUCKET, key, b'short'), (errno.ESTALE,))
    equal(os.stat(m.file(key)).st_size, 5, 'size after the TTL')
    with open(m.file(key), 'rb') as f:
        equal(f.read(), b'short', 'bytes after the TTL')


@options(servers=REAL, timeout=60)
def test_grown_while_open(t):
    grown = versions(1)[0] * 2
    m, key = changed_behind(t, lambda client, key: client.put(BUCKET, key, b'x' + grown), (errno.ESTALE,))
    equal(os.stat(m.file(key)).st_size, len(grown) + 1, 'size after the TTL')
    with open(m.file(key), 'rb') as f:
        check(f.read() == b'x' + grown, 'bytes after the TTL')


def by_page(known, offset, data):
    """Which versions the pages are of, as (first offset, versions) where they change."""
    changes = []
    for at in range(0, len(data), 4096):
        page = data[at:at + 4096]
        fits = [n for n, content in enumerate(known) if content[offset + at:offset + at + len(page)] == page]
        if not changes or changes[-1][1] != fits:
            changes.append((offset + at, fits))
    return changes


def read_handle(path, pieces, known):
    """Reads one descriptor to its end; returns the number of its version, or an errno. A mix is an error."""
    fd = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size
        candidates = None
        for offset in pieces(size):
            data, error = read_from(fd, offset, 256 << 10)
            if error:
                check(error in (errno.ESTALE, errno.ENOENT), f'a replaced object: {os.strerror(error)}')
                return None
            check(data, f'no bytes at {offset} of {size}')
            fits = {n for n, content in enumerate(known) if content[offset:offset + len(data)] == data}
            check(fits, lambda: f'bytes at {offset} are of no version: {by_page(known, offset, data)}')
            candidates = fits if candidates is None else candidates & fits
            check(candidates, f'the bytes at {offset} are of another version than those before')
        return min(candidates)
    finally:
        os.close(fd)


def orders(rng):
    def in_order(size):
        return range(0, size, 256 << 10)

    def shuffled(size):
        offsets = list(in_order(size))
        rng.shuffle(offsets)
        return offsets

    return in_order, shuffled


def never_mixed(t, server, seconds):
    """A writer replaces an object over and over, readers look at every descriptor."""
    client, key = server.client(), own_key('rewritten')
    known = versions(5)
    client.put(BUCKET, key, known[0])
    t.expect_log(CHANGED)
    m = t.mount(server, metadata_ttl='0', memory='64MiB')
    stop = threading.Event()

    def rewrite():
        n = 0
        while not stop.wait(0.15):
            n += 1
            client.put(BUCKET, key, known[n % len(known)])

    writer = threading.Thread(target=rewrite)
    writer.start()
    rng, seen, stale = random.Random(5), set(), 0
    until = time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            for pieces in orders(rng):
                try:
                    version = read_handle(m.file(key), pieces, known)
                except OSError as e:
                    check(e.errno in (errno.ESTALE, errno.ENOENT), f'open: {e}')
                    version = None
                seen.add(version)
                stale += version is None
    finally:
        stop.set()
        writer.join()
    check(seen - {None}, f'no descriptor could be read to its end, {stale} were stale')
    with open(m.file(key), 'rb') as f:
        check(f.read() in known, 'the last content is of no version')


@options(servers=('versitygw', 'radosgw', 's3d'), soak_servers=('minio',), timeout=180, san=True)
def test_never_mixed_under_rewriting(t):
    never_mixed(t, t.server, 60 if t.soak else 4)


@options(servers=('gofakes3',), timeout=180)
def test_never_mixed_where_if_match_is_ignored(t):
    never_mixed(t, t.server, 30 if t.soak else 4)


@options(servers=('gofakes3',), timeout=60)
def test_server_that_is_wrong_is_survived(t):
    m = t.mount()
    for name in ('zero', 'one', 'chunk-1', 'chunk+1'):
        with open(m.file(name), 'rb') as have, open(t.reference(name), 'rb') as want:
            check(have.read() == want.read(), f'{name} differs')
    t.load(m.file('chunk+1'), m.file('middle'), pattern='pread')


def content_of(key, generation, size):
    """What s3d makes up for the object's replacement of this number."""
    seed = synthetic_seed(BUCKET, key, generation)
    return b''.join(synthetic(seed, at, min(MIB, size - at)) for at in range(0, size, MIB))


def replaced_by_server(t, other_fault):
    """The object is replaced before replies to GETs, at the server itself."""
    server, size, rounds = t.s3d(memory=True), CHUNK + 12345, 12
    server.declare(BUCKET, 'moving', size=size)
    known = [content_of('moving', n, size) for n in range(4 * rounds + 1)]
    check(server.client().get(BUCKET, 'moving').body == known[0], 'the first version is another one than computed')
    t.expect_log(CHANGED)
    m = t.mount(server, metadata_ttl='0', memory='32MiB')
    between = {'fault': 'replace_between', 'rate': 0.25, 'count': 2 * rounds, 'match': {'op': 'get'}}
    server.set_faults([between, other_fault])
    rng, ended = random.Random(6), 0
    for _ in range(rounds):
        for pieces in orders(rng):
            server.replace(BUCKET, 'moving')
            try:
                ended += read_handle(m.file('moving'), pieces, known) is not None
            except OSError as e:
                check(e.errno == errno.ESTALE, f'open: {e}')
    check(ended > 0, 'no descriptor was read to its end')
    check(server.stats()['faults'].get('replace_between', 0) > 0, 'the object was never replaced by a fault')
    server.set_faults([])
    with open(m.file('moving'), 'rb') as f:
        check(f.read() == server.client().get(BUCKET, 'moving').body, 'the content at the end')


@options(timeout=90, san=True)
def test_replaced_between_two_requests(t):
    replaced_by_server(t, {'fault': 'reset_mid', 'rate': 0.02, 'match': {'op': 'get'}})


@options(timeout=90, san=True)
def test_replaced_and_if_match_ignored(t):
    replaced_by_server(t, {'fault': 'ignore_if_match', 'rate': 1, 'match': {'op': 'get'}})
