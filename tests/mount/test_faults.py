# SPDX-License-Identifier: Apache-2.0
"""A server that misbehaves: no wrong byte ever, every read ends in time, and afterwards all is as before."""
import errno
import os
import signal
import subprocess
import sys
import threading
import time

from certs import make_certificate
from harness import BUCKET, MIB, check, equal, options, raises

DEADLINE_S = 8
SLACK_S = 3
# fault, the settings of its rule, at a rate that leaves each read a chance of being answered in time
ALONE = (
    ('status', dict(status=500), 0.3),
    ('status_503', dict(fault='status', status=503, code='SlowDown'), 0.3),
    ('status_429', dict(fault='status', status=429, code='TooManyRequests'), 0.3),
    ('redirect', dict(), 0.3),
    ('reset_before', dict(), 0.3),
    ('reset_mid', dict(), 0.3),
    ('stall', dict(), 0.1),
    ('stall_first_byte', dict(), 0.1),
    ('trickle', dict(bytes_per_s=20000), 0.1),
    ('truncate', dict(), 0.3),
    ('lie_length_long', dict(delta=1000), 0.1),
    ('lie_length_short', dict(delta=1000), 0.3),
    ('garbage', dict(), 0.3),
    ('no_reply', dict(), 0.1),
    ('wrong_range', dict(delta=4096), 0.3),
    ('whole_200', dict(), 0.3),
    ('no_etag', dict(), 0.3),
    ('drop_keepalive', dict(), 0.5),
    ('slow_headers', dict(ms=5), 0.3),
    ('ignore_if_match', dict(), 0.5),
)


def rule(name, settings, rate, **more):
    return dict({'fault': name, 'rate': rate}, **settings, **more)


def filled_server(t, **opts):
    server = t.s3d(memory=True, **opts)
    client = server.client()
    client.create_bucket(BUCKET)
    for name in ('middle', 'chunk+1'):
        client.put_file(BUCKET, name, t.reference(name))
    return server


def mounted(t, server, **opts):
    return t.mount(server, **dict(dict(memory='32MiB', read_deadline=f'{DEADLINE_S}s', metadata_ttl='0'), **opts))


def under_faults(t, m, seconds, share_failed=0.0):
    """Reads for some time: all bytes that come are right, and each read ends in time."""
    t.expect_log('s3: ')
    total = failed = 0
    for pattern, opts in (('seq', dict(drop=True, piece='256KiB')),
                          ('pread', dict(direct=True, piece='256KiB', processes=4)),
                          ('random4k-direct', dict(jobs=8))):
        limit = max(seconds / 3, 1)
        result = t.load(m.file('middle'), pattern=pattern, errors=True, seconds=f'{limit * 1000:.0f}ms', **opts)
        check(result['max_us'] < (DEADLINE_S + SLACK_S) * 1e6, lambda: f'{pattern}: a read took '
              f'{result["max_us"] / 1e6:.1f} s with a deadline of {DEADLINE_S} s')
        check(result['ops'] > 0, f'{pattern}: nothing was read')
        total, failed = total + result['ops'], failed + result['errors']
        text = result['first_error']
    check(failed <= total * share_failed, lambda: f'{failed} of {total} reads failed; the last first error: {text}')


def timed_read(t, m):
    started = time.monotonic()
    t.load(m.file('middle'), drop=True)
    return time.monotonic() - started


def with_rules(t, server, rules, share_failed=0.0):
    m = mounted(t, server)
    usual = timed_read(t, m)
    server.set_faults(rules, seed=3)
    under_faults(t, m, 60 if t.soak else 4, share_failed)
    fired = server.stats()['faults']
    for name in {r['fault'] for r in rules}:
        check(len(rules) > 1 or fired.get(name, 0) > 0, f'the fault {name} never fired')
    check(fired, 'no fault ever fired')
    server.set_faults([])
    equal(m.process.poll(), None, 'status of the daemon')
    first = timed_read(t, m)
    after = min(first, timed_read(t, m)) if first > usual * 4 + 1 else first
    check(after <= usual * 4 + 1, f'a read takes {after:.1f} s after the faults, {usual:.1f} s before them')


SILENT = ('no_reply', 'stall', 'stall_first_byte', 'trickle', 'slow_headers')


def alone(name, settings, rate):
    # Faults of silence are noticed by time-outs, which random small reads wait for; the others are retried at once.
    @options(timeout=90, san=name in ('reset_mid', 'truncate', 'garbage', 'stall', 'status_503', 'lie_length_short'))
    def test(t):
        fault = dict(settings)
        # A server that is silent to every try of a read until its deadline leaves nothing but EIO.
        share_failed = 0.05 if name in SILENT else 0.0
        rules = [rule(fault.pop('fault', name), fault, rate, match={'method': 'GET'})]
        with_rules(t, filled_server(t), rules, share_failed)
    test.__name__ = f'test_alone_{name}'
    return test


for _arguments in ALONE:
    globals()[f'test_alone_{_arguments[0]}'] = alone(*_arguments)


@options(timeout=120, san=True)
def test_all_mixed(t):
    share = 0.05 / len(ALONE) * 2
    rules = []
    for name, settings, _ in ALONE:
        fault = dict(settings)
        rules.append(rule(fault.pop('fault', name), fault, share))
    with_rules(t, filled_server(t), rules, 0.02)


@options(timeout=120, san=True)
def test_flipped_on_https(t):
    cert, key = make_certificate(t.directory)
    server = filled_server(t, cert=cert, key=key)
    with_rules(t, server, [rule('flip_tls', {}, 0.2, match={'op': 'get'})])


@options(timeout=120)
def test_all_mixed_on_https(t):
    cert, key = make_certificate(t.directory)
    rules = []
    for name, settings, _ in (*ALONE, ('flip_tls', {}, 0)):
        fault = dict(settings)
        rules.append(rule(fault.pop('fault', name), fault, 0.005))
    with_rules(t, filled_server(t, cert=cert, key=key), rules, 0.02)


@options(timeout=90, san=True)
def test_silence_ends_at_the_deadline(t):
    server = filled_server(t)
    m = mounted(t, server, read_deadline='2s')
    t.expect_log('s3: ')
    for n, fault in enumerate(('no_reply', 'stall', 'stall_first_byte')):
        at = (4 + n) * MIB
        server.set_faults([{'fault': fault, 'match': {'op': 'get'}}])
        fd = os.open(m.file('chunk+1'), os.O_RDONLY | os.O_DIRECT)
        started = time.monotonic()
        with raises(errno.EIO, f'a read with {fault}'):
            os.pread(fd, 4096, at)
        seconds = time.monotonic() - started
        check(1.5 < seconds < 2 + SLACK_S, f'{fault}: the read ended after {seconds:.1f} s with a deadline of 2 s')
        server.set_faults([])
        equal(len(os.pread(fd, 4096, at)), 4096, f'bytes read after {fault}')
        os.close(fd)


def outage(mode):
    @options(timeout=150)
    def test(t):
        server = filled_server(t)
        seconds = 30 if t.soak else 8
        m = mounted(t, server, read_deadline='60s')
        server.set_rate(4 * MIB)
        timer = threading.Timer(1, server.outage, (seconds * 1000, mode))
        timer.start()
        started = time.monotonic()
        result = t.load(m.file('middle'), m.file('chunk+1'), jobs=2)
        took = time.monotonic() - started
        timer.join()
        waited = result['max_us'] / 1e6
        check(waited > seconds - 3, f'no read waited for the end of the outage, only {waited:.1f} s')
        check(took < seconds * 2 + 30, f'the load took {took:.0f} s with an outage of {seconds} s')
    test.__name__ = f'test_outage_{mode}'
    return test


test_outage_refuse, test_outage_reset = outage('refuse'), outage('reset')


@options(san=True)
def test_errors_keep_their_meaning(t):
    server = filled_server(t)
    m = mounted(t, server)
    cases = ((errno.EACCES, dict(fault='status', status=403, code='AccessDenied'), 'HTTP 403, code AccessDenied'),
             (errno.ENOENT, dict(fault='status', status=404, code='NoSuchKey'), 'HTTP 404, code NoSuchKey'),
             (errno.EIO, dict(fault='status', status=403, code='InvalidObjectState'), 'code InvalidObjectState'))
    for number, fault, text in cases:
        server.set_faults([dict(fault, match={'op': 'get'})])
        with open(m.file('chunk+1'), 'rb', buffering=0) as f:
            with raises(number, text):
                f.read(100)
        t.expect_log(text)
        line = m.log_wait(text)
        for part in (f'bucket={BUCKET}', 'key=chunk+1', 'request id'):
            check(part in line, f'{part} is not in the log line {line!r}')
        check('request id none' not in line, f'no request id in {line!r}')
    server.set_faults([])
    t.load(m.file('chunk+1'))


@options(san=True)
def test_archived_object(t):
    server = filled_server(t)
    server.declare(BUCKET, 'cold', size=MIB, storage_class='GLACIER')
    server.declare(BUCKET, 'thawed', size=MIB, storage_class='GLACIER', restored=1)
    m = mounted(t, server)
    t.expect_log('key=cold')
    with open(m.file('cold'), 'rb', buffering=0) as f, raises(errno.EIO, 'an archived object'):
        f.read(100)
    line = m.log_wait('key=cold')
    check('archive' in line.lower() or 'GLACIER' in line, f'the log does not say that it is archived: {line!r}')
    with open(m.file('thawed'), 'rb') as f:
        equal(len(f.read()), MIB, 'bytes of a restored object')


@options()
def test_listing_under_faults(t):
    server = t.s3d(memory=True)
    server.synthetic_keys(BUCKET, 'd/', 2500)
    want = {item['key'].removeprefix('d/') for item in server.client().list(BUCKET, 'd/')}
    equal(len(want), 2500, 'keys at the server')
    m = mounted(t, server)
    t.expect_log('s3: ')
    for fault in ('bad_xml', 'truncate', 'reset_mid', 'garbage', 'status', 'lie_length_long', 'list_repeat', 'no_etag'):
        server.set_faults([{'fault': fault, 'rate': 0.3, 'match': {'op': 'list'}}], seed=5)
        whole = 0
        for _ in range(5):
            try:
                have = os.listdir(m.file('d'))
            except OSError as e:
                check(e.errno in (errno.EIO, errno.ESTALE), f'{fault}: {e}')
                continue
            equal(len(have), len(set(have)), f'{fault}: names without duplicates')
            check(set(have) == want, f'{fault}: {len(set(have) ^ want)} names wrong or missing without an error')
            whole += 1
        check(whole or fault == 'list_repeat', f'{fault}: no listing of 5 came through')


READER = '''
import os, signal, sys
signal.signal(signal.SIGUSR1, lambda *args: None)
fd = os.open(sys.argv[2], os.O_RDONLY) if sys.argv[1] == 'read' else -1
print('ready', flush=True)
sys.stdin.readline()
os.stat(sys.argv[2]) if fd < 0 else os.pread(fd, 4096, int(sys.argv[3]) << 20)
print('done', flush=True)
'''


@options(san=True)
def test_waiting_processes_can_be_killed(t):
    """In an outage: a fatal signal ends the process at once, any other leaves it waiting for its answer."""
    server = filled_server(t)
    m = mounted(t, server, read_deadline='60s')
    for verb, name in (('lookup', 'chunk+1'), ('read', 'middle')):
        for number, ends in ((signal.SIGKILL, True), (signal.SIGTERM, True), (signal.SIGUSR1, False)):
            reader = subprocess.Popen([sys.executable, '-c', READER, verb, m.file(name), str(number * 3)], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, text=True)
            equal(reader.stdout.readline(), 'ready\n', 'the reader')
            server.set_faults([rule('no_reply', {}, 1.0)])
            print(file=reader.stdin, flush=True)
            time.sleep(1)
            reader.send_signal(number)
            time.sleep(1)
            equal(reader.poll(), -number if ends else None, f'{verb}: status 1 s after {number.name}')
            server.set_faults([])
            equal(reader.stdout.read(), '' if ends else 'done\n', f'{verb}: output after {number.name}')
            reader.wait()
    t.load(m.file('chunk+1'))
