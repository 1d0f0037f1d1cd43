# SPDX-License-Identifier: Apache-2.0
"""The tuning tree of a real mount: what it tells, what it takes, and that it answers whatever S3 does."""
import errno
import os
import random
import socket
import threading
import time

from harness import BUCKET, MIB, check, equal, options, raises

WRITABLE = {'prefetch/mode': 'eager', 'prefetch/window_bytes': str(64 * MIB), 'prefetch/max_inflight': '7',
            'prefetch/record': '0', 'cache/memory_bytes': str(128 * MIB), 's3/max_connections': '9',
            's3/hedge_percent': '3', 'fuse/read_ahead_kb': '2048', 'trace/enabled': '0'}
GARBAGE = (b'\n', b'', b' ', b'-1', b'x', b'1 2', b'99999999999999999999999', b'\xff\xfe', b'1\n1\n', b'a' * 5000, b'0x10',
           b'1.5', b'1e3', b'\0')


def names(m):
    found = []
    for parent, _, files in os.walk(m.tree()):
        found += [os.path.relpath(os.path.join(parent, name), m.tree()) for name in files]
    return sorted(found)


@options(servers=('versitygw',), san=True)
def test_every_value_can_be_read(t):
    m = t.mount()
    t.load(m.file('middle'))
    values = {name: m.get(name) for name in names(m)}
    check(len(values) >= 35, f'only {len(values)} values: {sorted(values)}')
    equal(values['state'], 'ready', 'state')
    equal(values['transport'], t.transport, 'transport')
    equal(values['source'], f's3://{BUCKET}', 'source')
    equal(values['prefetch/chunk_bytes'], str(8 * MIB), 'chunk_bytes')
    for name in ('s3/requests', 's3/bytes', 'fuse/requests', 'load/started', 'load/bytes_wanted', 'load/bytes_fetched',
                 'load/last_read_us', 'cache/miss_bytes'):
        check(int(values[name]) > 0, f'{name} is {values[name]} after a load')
    for name in values:
        writable = name in WRITABLE or name in ('cache/disk_bytes', 'trace/gpu')
        equal(os.stat(m.tree(name)).st_mode & 0o777, 0o644 if writable else 0o444, f'mode of {name}')
        if not writable:
            with raises(errno.EACCES, f'opening {name} for writing'):
                os.close(os.open(m.tree(name), os.O_WRONLY))


@options(servers=('versitygw',), san=True)
def test_values_take_effect_and_garbage_does_not(t):
    m = t.mount(memory='256MiB')
    for name, value in WRITABLE.items():
        m.set(name, m.get(name))
        m.set(name, value)
        equal(m.get(name), value, name)
        for bad in GARBAGE:
            with raises(errno.EINVAL, f'{bad[:20]!r} to {name}'):
                fd = os.open(m.tree(name), os.O_WRONLY)
                try:
                    if os.write(fd, bad) == 0:
                        raise OSError(errno.EINVAL, 'nothing was written')
                finally:
                    os.close(fd)
        equal(m.get(name), value, f'{name} after garbage')
    device = os.stat(m.directory).st_dev
    with open(f'/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb') as f:
        equal(f.read().strip(), '2048', 'read-ahead of the kernel')
    m.set('prefetch/window_bytes', '32MiB')
    equal(m.get('prefetch/window_bytes'), str(32 * MIB), 'a size with a unit')
    t.load(m.file('middle'), drop=True)


@options(servers=('versitygw',), timeout=120, san=True)
def test_random_writes_while_loading(t):
    m = t.mount(memory='256MiB')
    t.load(m.file('middle'), drop=True)
    failed = []

    def writer():
        rng = random.Random(8)
        for _ in range(1000):
            name = rng.choice(sorted(WRITABLE))
            value = rng.choice((WRITABLE[name], '0', '1', 'off', 'auto', str(rng.randrange(1 << 40)), '40MiB', 'x'))
            try:
                m.set(name, value)
            except OSError as e:
                if e.errno != errno.EINVAL:
                    failed.append(f'{value} to {name}: {e}')

    thread = threading.Thread(target=writer)
    thread.start()
    while thread.is_alive():
        t.load(m.file('middle'), drop=True, pattern='mmap-shuffled', timeout=60)
    thread.join()
    check(not failed, lambda: f'{len(failed)} writes failed, the first: {failed[0]}')
    t.load(m.file('middle'), drop=True)


@options(san=True)
def test_the_tree_answers_while_s3_does_not(t):
    server = t.s3d(memory=True)
    server.declare(BUCKET, 'file', size=64 * MIB)
    m = t.mount(server, read_deadline='3s')
    t.expect_log('s3: ')
    server.set_faults([{'fault': 'no_reply', 'rate': 1.0}])
    reader = threading.Thread(target=lambda: read_quietly(m.file('file')))
    reader.start()
    time.sleep(0.5)
    started = time.monotonic()
    for name in names(m):
        m.get(name)
    m.set('s3/max_connections', '5')
    seconds = time.monotonic() - started
    check(reader.is_alive(), 'the read did not hang')
    check(seconds < 2, f'reading all values took {seconds:.1f} s')
    reader.join()


def read_quietly(path):
    try:
        with open(path, 'rb') as f:
            f.read(1)
    except OSError:
        pass


@options(servers=('versitygw',))
def test_metrics_on_the_socket_and_on_an_address(t):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    m = t.mount(metrics_listen=f'127.0.0.1:{port}', volume_id='m')
    for family, address in ((socket.AF_UNIX, m.tree() + '.metrics.sock'), (socket.AF_INET, ('127.0.0.1', port))):
        with socket.socket(family) as s:
            s.connect(address)
            s.sendall(b'GET /metrics HTTP/1.0\r\n\r\n')
            text = b''.join(iter(lambda: s.recv(65536), b'')).decode()
        check(text.startswith('HTTP/1.') and ' 200 ' in text.splitlines()[0], f'{address}: {text[:100]!r}')
        check(f'penstock_s3_requests_total{{volume="{m.volume_id}"}}' in text, f'{address}: no s3 requests in {text!r}')


@options(servers=('versitygw',), timeout=60)
def test_nothing_is_left_of_a_killed_daemon(t):
    m = t.mount()
    tree = m.tree()
    check(os.path.ismount(tree), 'no tree')
    m.process.kill()
    m.process.wait()
    status, text, _ = t.penstock('unmount', m.directory, env=dict(os.environ, PENSTOCK_RUN_DIR=m.run_directory))
    equal(status, 0, f'penstock unmount: {text}')
    check(not os.path.lexists(tree), 'the tree is still there')
    check(not os.path.lexists(tree + '.metrics.sock'), 'the socket is still there')
