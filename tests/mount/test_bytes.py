# SPDX-License-Identifier: Apache-2.0
"""Every byte, read in the ways that loaders read. Contents are known; each read is compared in full."""
import errno
import mmap
import os
import random
import zlib

from fixtures import BIG, EDGES, HUGE, SIZES
from harness import CHUNK, MIB, check, equal, options, raises

FAST = ('versitygw',)
MOST = ('versitygw', 's3d')
ALL = ('versitygw', 's3d', 'radosgw')
PAGE = os.sysconf('SC_PAGESIZE')


class Reference:
    """The right bytes of an object, and one descriptor of its file in the mount."""

    def __init__(self, t, m, name, flags=0):
        with open(t.reference(name), 'rb') as f:
            self.size = os.fstat(f.fileno()).st_size
            self.bytes = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) if self.size else b''
        self.name = name
        self.fd = os.open(m.file(name), os.O_RDONLY | flags)

    def compare(self, have, offset, wanted):
        want = self.bytes[offset:offset + wanted]
        if have != want:
            wrong = next((i for i, pair in enumerate(zip(have, want)) if pair[0] != pair[1]), min(len(have), len(want)))
            check(False, f'{self.name}: {wanted} bytes at {offset}: got {len(have)}, the first wrong one at '
                         f'{offset + wrong}')

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        os.close(self.fd)


def pread_all(fd, length, offset):
    """pread() may end early at any place but the end of the file."""
    parts = []
    while length:
        part = os.pread(fd, length, offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
        length -= len(part)
    return b''.join(parts)


@options(servers=ALL, soak_servers=('minio',), san=True)
def test_sizes_and_whole_files(t):
    m = t.mount()
    with os.scandir(m.directory) as entries:
        sizes = {e.name: e.stat().st_size for e in entries}
    for name, size in SIZES.items():
        equal(sizes.get(name), size, f'size of {name} in the listing')
        equal(os.stat(m.file(name)).st_size, size, f'size of {name}')
    with open(m.file('zero'), 'rb') as f:
        equal(f.read(), b'', 'the empty file')
        equal(os.pread(f.fileno(), 100, 5), b'', 'beyond the end of the empty file')
    for name in EDGES:
        with open(m.file(name), 'rb') as f, open(t.reference(name), 'rb') as want:
            check(f.read() == want.read(), f'{name} differs')
    t.load(*(m.file(name) for name in (*EDGES, 'middle')))


@options(servers=ALL, soak_servers=('minio',), timeout=180, san=True)
def test_big_file_in_order(t):
    with t.mount() as m:
        t.load(m.file(BIG))
        equal(m.transport, t.transport, 'the transport of the log')


@options(servers=FAST, timeout=180, needs=(HUGE,))
def test_huge_file_in_order(t):
    t.load(t.mount(memory='256MiB').file(HUGE))


@options(servers=MOST, soak_servers=('radosgw', 'minio'), timeout=120, san=True)
def test_pread_at_random(t):
    m = t.mount(memory='64MiB')
    rng = random.Random(1)
    for name, count in (*((edge, 30) for edge in EDGES), ('middle', 100), (BIG, 300 if t.soak else 100)):
        with Reference(t, m, name) as ref:
            for _ in range(count):
                offset = rng.randrange(ref.size + 2)
                length = rng.choice((1, 7, 511, PAGE, PAGE + 1, 128 << 10, 1 * MIB, 3 * MIB + 5))
                ref.compare(pread_all(ref.fd, length, offset), offset, length)
            for edge in (ref.size - 1, ref.size, ref.size + 1, ref.size + PAGE, 1 << 40):
                ref.compare(os.pread(ref.fd, 10, edge), edge, 10)


def direct_read(fd, buffer, length, offset):
    """One O_DIRECT read of <length> at <offset>, in as many calls as it takes."""
    view = memoryview(buffer)
    done = 0
    while done < length:
        n = os.preadv(fd, [view[done:length]], offset + done)
        done += n
        if n % 512 or n == 0:
            break
    return bytes(view[:done])


@options(servers=MOST, soak_servers=('radosgw', 'minio'), timeout=120, san=True)
def test_direct_at_512_byte_offsets(t):
    m = t.mount(memory='64MiB')
    rng = random.Random(2)
    buffer = mmap.mmap(-1, 4 * MIB)
    for flags in (os.O_DIRECT, os.O_DIRECT | os.O_NONBLOCK):
        for name, count in ((*((edge, 20) for edge in EDGES), (BIG, 200 if t.soak else 60))):
            with Reference(t, m, name, flags) as ref:
                sectors = ref.size // 512 + 1
                places = [rng.randrange(sectors) * 512 for _ in range(count)]
                places += [max(ref.size // 512 - n, 0) * 512 for n in (0, 1, 8)] + [CHUNK - 512, CHUNK]
                for offset in places:
                    length = rng.choice((512, 1024, 3 * 512, PAGE, PAGE + 512, MIB, MIB + 512, 4 * MIB))
                    ref.compare(direct_read(ref.fd, buffer, length, offset), offset, length)


@options(servers=FAST, timeout=120, san=True)
def test_nonblocking_reads(t):
    m = t.mount()
    for name in EDGES:
        with Reference(t, m, name, os.O_NONBLOCK) as ref:
            ref.compare(pread_all(ref.fd, ref.size + 1, 0), 0, ref.size + 1)


@options(servers=MOST, soak_servers=('radosgw', 'minio'), timeout=120, san=True)
def test_through_io_uring(t):
    with t.mount(memory='128MiB') as m:
        t.load(m.file(BIG), pattern='io_uring-direct')
        t.load(m.file('middle'), m.file('chunk+1'), pattern='io_uring-direct', piece='132KiB', depth=16, jobs=2)


@options(servers=ALL, soak_servers=('minio',), timeout=180, san=True)
def test_mmap_forward_and_shuffled(t):
    m = t.mount(memory='128MiB')
    t.load(m.file(BIG), pattern='mmap', drop=True)
    t.load(m.file(BIG), pattern='mmap-shuffled', drop=True)


@options(servers=FAST, timeout=120, san=True)
def test_mmap_as_loaders_map(t):
    m = t.mount(memory='128MiB')
    files = [m.file('middle'), m.file('chunk-1'), m.file('one')]
    t.load(*files, pattern='mmap', private_write=True, drop=True)
    t.load(*files, pattern='populate', drop=True)
    t.load(*files, pattern='populate', private_write=True, drop=True)
    t.load(*files, pattern='backward', drop=True)
    t.load(*files, pattern='mmap-shuffled', private_write=True, drop=True, jobs=3)


@options(servers=FAST, san=True)
def test_private_mapping_can_be_written(t):
    m = t.mount()
    with Reference(t, m, 'chunk+1') as ref:
        mapped = mmap.mmap(ref.fd, ref.size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        mapped[5] = mapped[5] ^ 255
        mapped[ref.size - 1] = mapped[ref.size - 1] ^ 255
        check(mapped[5] == ref.bytes[5] ^ 255, 'a private write is lost')
        ref.compare(pread_all(ref.fd, ref.size, 0), 0, ref.size)
        mapped.close()
        with raises(errno.EACCES, 'a shared writable mapping of a read-only descriptor'):
            mmap.mmap(ref.fd, ref.size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE)


@options(servers=FAST, timeout=120)
def test_hints(t):
    m = t.mount(memory='128MiB')
    for advice in ('sequential', 'random', 'willneed'):
        for pattern in ('mmap', 'mmap-shuffled', 'seq', 'pread'):
            t.load(m.file('middle'), pattern=pattern, advise=advice, drop=True)
    with Reference(t, m, 'middle') as ref:
        os.posix_fadvise(ref.fd, 3 * MIB, 20 * MIB, os.POSIX_FADV_WILLNEED)
        os.posix_fadvise(ref.fd, 0, 0, os.POSIX_FADV_NOREUSE)
        ref.compare(pread_all(ref.fd, ref.size, 0), 0, ref.size)
        os.posix_fadvise(ref.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        mapped = mmap.mmap(ref.fd, ref.size, prot=mmap.PROT_READ)
        for advice in (mmap.MADV_WILLNEED, mmap.MADV_DONTNEED, mmap.MADV_HUGEPAGE,
                       mmap.MADV_RANDOM, mmap.MADV_SEQUENTIAL):
            try:
                mapped.madvise(advice, 0, 16 * MIB)
            except OSError as e:
                check(e.errno == errno.EINVAL, f'madvise({advice}): {e}')
            ref.compare(mapped[:], 0, ref.size)
        mapped.close()


@options(servers=FAST, timeout=120, san=True)
def test_sendfile(t):
    m = t.mount(memory='64MiB')
    t.load(m.file('middle'), m.file('chunk-1'), m.file('one'), pattern='sendfile')
    with Reference(t, m, 'chunk+1') as ref:
        out = os.memfd_create('copy')
        at = 0
        while n := os.sendfile(out, ref.fd, at, 3 * MIB + 1):
            at += n
        ref.compare(pread_all(out, ref.size + 1, 0), 0, ref.size + 1)
        os.close(out)


@options(servers=FAST, timeout=120, san=True)
def test_small_random_reads(t):
    m = t.mount(memory='64MiB')
    count = 2000 if t.soak else 200
    t.load(m.file('middle'), m.file('chunk'), pattern='random4k', jobs=4, count=count)
    t.load(m.file('middle'), m.file('chunk'), pattern='random4k-direct', jobs=16, count=count // 4)


@options(servers=FAST, timeout=120, san=True)
def test_interleaved_streams(t):
    with t.mount(memory='256MiB') as m:
        t.load(m.file(BIG), pattern='streams', streams=4)
        t.load(m.file('middle'), pattern='streams', streams=16, piece='128KiB', drop=True)


@options(servers=MOST, soak_servers=('radosgw', 'minio'), timeout=180, san=True)
def test_sixteen_processes(t):
    m = t.mount(memory='128MiB')
    t.load(m.file('middle'), m.file('chunk+1'), m.file('chunk-1'), processes=16)
    t.load(m.file('middle'), pattern='pread', processes=16, direct=True, piece='64KiB')


@options(servers=FAST, timeout=120, san=True)
def test_processes_share_a_descriptor(t):
    m = t.mount(memory='128MiB')
    t.load(m.file('middle'), pattern='pread', processes=8, share_fd=True)
    t.load(m.file('middle'), pattern='mmap', processes=8, share_fd=True, drop=True)
    shared_offset(t, m)


def shared_offset(t, m):
    """Children of fork() that read() from one file offset get every byte once, whoever gets which."""
    with Reference(t, m, 'chunk+1') as ref:
        sums, children = os.pipe(), []
        for _ in range(8):
            pid = os.fork()
            if pid == 0:
                while data := os.read(ref.fd, 64 << 10):
                    end = os.lseek(ref.fd, 0, os.SEEK_CUR)
                    os.write(sums[1], b'%d %d %d\n' % (end, len(data), zlib.crc32(data)))
                os._exit(0)
            children.append(pid)
        os.close(sums[1])
        with os.fdopen(sums[0]) as f:
            pieces = [tuple(map(int, line.split())) for line in f]
        for pid in children:
            equal(os.waitpid(pid, 0)[1], 0, 'status of a child')
        equal(sum(length for _, length, _ in pieces), ref.size, 'bytes read by all children together')
        known = {zlib.crc32(ref.bytes[at:at + (64 << 10)]) for at in range(0, ref.size, 64 << 10)}
        check(all(crc in known for _, _, crc in pieces), 'a child got bytes that are not in the file')
