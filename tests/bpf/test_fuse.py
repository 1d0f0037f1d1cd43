# SPDX-License-Identifier: Apache-2.0
"""A real mount: accesses that wait for READs, for how long, and how long requests take."""
import os
import time

from harness import MADV_POPULATE_READ, MIB, PAGE, check, covered, equal, in_child, json, mapped, opened, ROOT
from mnt import Mount, io_uring_switched_on
from servers.s3d import S3d
from test_life import broken_object, shape

LATENCY_MS = 60
READ, LOOKUP = 15, 1


def mount(bench, transport='dev', size=32 * MIB):
    server = bench.undo.enter_context(S3d(memory=True, latency_ms=LATENCY_MS))
    server.declare('data', 'file', size=size)
    if transport == 'io_uring':
        bench.undo.enter_context(io_uring_switched_on())
    return bench.undo.enter_context(Mount(server, 'data', transport=transport))


def timed(work):
    started = time.monotonic_ns()
    work()
    return time.monotonic_ns() - started


def test_misses_hits_and_stalls_over_dev(bench):
    misses_hits_and_stalls(bench, 'dev')


def test_misses_hits_and_stalls_over_io_uring(bench):
    misses_hits_and_stalls(bench, 'io_uring')


def misses_hits_and_stalls(bench, transport):
    m = mount(bench, transport)
    path = m.file('file')
    ino = os.stat(path).st_ino
    directory, group = bench.cgroup()
    t = bench.tracer(m.directory)
    times = {}

    def work():
        with opened(path) as fd:
            times['read'] = timed(lambda: os.pread(fd, PAGE, 0))
            os.pread(fd, PAGE, 0)
        with mapped(path) as mapping:
            times['fault'] = timed(lambda: mapping[16 * MIB])
            mapping[16 * MIB]
        with open(os.path.join(bench.directory, 'times'), 'w') as f:
            json.dump(times, f)

    pid = in_child(work, cgroup=directory)
    with open(os.path.join(bench.directory, 'times')) as f:
        times = json.load(f)
    counts = {entry['key']['ino']: entry['value'] for entry in bench.dump('files')}[ino]
    by_group = {entry['key']['cgroup']: entry['value'] for entry in bench.dump('cgroups')}[group]
    accesses = t.stop()

    equal({(a['dev'], a['ino'], a['pid'], a['cgroup']) for a in accesses}, {(t.dev, ino, pid, group)}, 'whose they are')
    told = [(a['kind'], a['miss'], a['offset']) for a in accesses]
    equal(told[:3], [('read', True, 0), ('read', False, 0), ('fault', True, 16 * MIB)], 'accesses')
    check(16 * MIB // PAGE in covered(accesses, kind='map'), lambda: f'the page was not seen mapped: {accesses}')
    equal((counts['misses'], counts['hits'], counts['faults']), (2, 1, 1), 'misses, hits, faults')
    check(counts['requests'] >= 2 and counts['request_bytes'] >= 2 * PAGE, lambda: f'requests: {counts}')
    waited = sum(times.values())
    check(2 * LATENCY_MS * 1000000 * 0.8 <= counts['stall_ns'] <= waited,
          lambda: f'stalled {counts["stall_ns"]} ns of {waited} ns: {counts}')
    equal([by_group[k] for k in ('misses', 'faults', 'stall_ns')],
          [counts[k] for k in ('misses', 'faults', 'stall_ns')], 'counters of the group')


def test_populate_over_fuse(bench):
    m = mount(bench)
    t = bench.tracer(m.directory)

    def populate():
        with mapped(m.file('file')) as mapping:
            mapping.madvise(MADV_POPULATE_READ, 8 * MIB, 2 * MIB)

    in_child(populate)
    accesses = t.stop()
    equal(covered(accesses, kind='map'), list(range(2048, 2560)), 'pages mapped')
    check(any(a['miss'] for a in accesses), 'no READ was waited for')


def test_latency_by_opcode(bench):
    m = mount(bench)
    t = bench.tracer(m.directory)
    with opened(m.file('file')) as fd:
        os.pread(fd, PAGE, 0)
    entries = bench.dump('latency')
    equal({entry['key']['dev'] for entry in entries}, {t.dev}, 'devices')
    by_opcode = {entry['key']['opcode']: entry['value'] for entry in entries}
    check(READ in by_opcode and LOOKUP in by_opcode, lambda: f'opcodes: {sorted(by_opcode)}')
    reads = by_opcode[READ]
    equal(sum(reads['bucket']), reads['count'], 'sum of the histogram')
    check(reads['max_ns'] >= LATENCY_MS * 1000000 * 0.8, lambda: f'{reads}')
    # 60 ms are in 32768 .. 65535 us or just above.
    check(sum(reads['bucket'][15:]) >= 1, lambda: f'{reads}')
    with open(os.path.join(ROOT, 'bpf', 'README.md')) as f:
        samples = [json.loads(part.partition('```')[0]) for part in f.read().split('```json\n')[1:]]
    sample, = [s['formatted'] for s in samples if s['map'] == 'latency']
    equal(shape(entries[0]), shape(sample), 'members of latency')


def test_kernels_with_other_requests_still_give_latency_and_stalls(bench):
    m = mount(bench)
    traced = '/sys/kernel/tracing'
    if not os.path.exists(os.path.join(traced, 'events')):
        from harness import run
        run('mount', '-t', 'tracefs', 'tracefs', traced)
        bench.undo.callback(run, 'umount', traced)
    options = broken_object(bench, b'tp_btf/fuse_request_send', b'tp_btf/fuse_request_end')
    t = bench.tracer(m.directory, options=options)
    ids = bench.pinned_ids()

    def read():
        with opened(m.file('file')) as fd:
            os.pread(fd, PAGE, 0)

    waited = timed(lambda: in_child(read))
    counts, = [entry['value'] for entry in bench.dump('files')]
    equal((counts['misses'], counts['hits'], counts['requests']), (1, 0, 0), 'misses, hits, requests')
    check(LATENCY_MS * 1000000 * 0.8 <= counts['stall_ns'] <= waited, lambda: f'{counts} of {waited}')
    reads, = [e['value'] for e in bench.dump('latency') if e['key']['opcode'] == READ]
    check(reads['count'] >= 1 and reads['max_ns'] >= LATENCY_MS * 1000000 * 0.8, lambda: f'{reads}')
    equal([a['miss'] for a in t.stop()], [True], 'accesses')
    bench.check_gone(ids)
