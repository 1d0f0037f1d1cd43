# SPDX-License-Identifier: Apache-2.0
"""What is read is seen: the file, the range, the process, the group; and nothing else is."""
import os
import random

from harness import MADV_POPULATE_READ, MIB, PAGE, check, covered, equal, in_child, mapped, opened, run


def scattered(count, seed=1, pages=2048):
    """Page numbers of which no two are neighbours."""
    return random.Random(seed).sample(range(0, pages, 2), count)


def read_pages(path, pages, cgroup=None):
    """Reads in a process of its own, whose end hands on all that it read; returns its pid."""
    def work():
        with opened(path) as fd:
            for page in pages:
                equal(len(os.pread(fd, PAGE, page * PAGE)), PAGE, 'bytes read')
    return in_child(work, cgroup)


def test_cache_hit_has_file_range_process_and_group(bench):
    disk = bench.disk('disk')
    path, (directory, group) = os.path.join(disk, 'file'), bench.cgroup()
    t = bench.tracer(disk)
    pages = scattered(40)
    pid = read_pages(path, pages, directory)
    accesses = t.stop()
    equal([a['offset'] // PAGE for a in accesses], pages, 'the pages, in order')
    for a in accesses:
        equal((a['kind'], a['miss'], a['dev'], a['ino'], a['len'], a['pid'], a['tid'], a['cgroup']),
              ('read', False, t.dev, os.stat(path).st_ino, PAGE, pid, pid, group), 'an access')


def test_fault_is_seen(bench):
    disk = bench.disk('disk')
    path, (directory, group) = os.path.join(disk, 'file'), bench.cgroup()
    with opened(path) as fd:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    t = bench.tracer(disk)

    def fault():
        with mapped(path) as m:
            m[100 * PAGE + 17]

    pid = in_child(fault, cgroup=directory)
    accesses = t.stop()
    equal([(a['kind'], a['offset'], a['len']) for a in accesses][:1], [('fault', 100 * PAGE, PAGE)], 'the fault')
    check(100 in covered(accesses, kind='map'), lambda: f'the page was not seen mapped: {accesses}')
    equal({(a['dev'], a['ino'], a['pid'], a['cgroup']) for a in accesses},
          {(t.dev, os.stat(path).st_ino, pid, group)}, 'whose they are')


def test_populate_is_seen_as_the_range_it_maps(bench):
    disk = bench.disk('disk')
    path, (directory, group) = os.path.join(disk, 'file'), bench.cgroup()
    t = bench.tracer(disk)

    def populate():
        with mapped(path) as m:
            m.madvise(MADV_POPULATE_READ, 2 * MIB, MIB)

    pid = in_child(populate, cgroup=directory)
    accesses = t.stop()
    equal(covered(accesses, kind='map', pid=pid, cgroup=group, dev=t.dev, ino=os.stat(path).st_ino),
          list(range(512, 768)), 'the pages')
    check(len(accesses) <= 4, lambda: f'neighbours were not merged: {accesses}')


def test_other_file_systems_are_silent(bench):
    disk, other = bench.disk('disk'), bench.disk('other')
    t = bench.tracer(disk)
    read_pages(os.path.join(other, 'file'), scattered(100))

    def touch():
        with mapped(os.path.join(other, 'file')) as m:
            sum(m[::PAGE])

    in_child(touch)
    read_pages(os.path.join(bench.directory, 'disk.img'), scattered(100))
    equal(bench.dump('files'), [], 'counted files')
    equal(t.stop(), [], 'accesses')


def test_two_volumes_do_not_see_each_other(bench):
    disks = [bench.disk('one'), bench.disk('two')]
    tracers = [bench.tracer(disk, f'volume-{i}') for i, disk in enumerate(disks)]
    pages = [scattered(60, seed) for seed in (3, 4)]
    for pair in zip(*pages):
        for disk, page in zip(disks, pair):
            read_pages(os.path.join(disk, 'file'), [page])
    for t, want in zip(tracers, pages):
        accesses = t.stop()
        equal({a['dev'] for a in accesses}, {t.dev}, 'devices')
        equal(sorted(a['offset'] // PAGE for a in accesses), sorted(want), 'pages')


def test_overload_is_counted_to_the_last_range(bench):
    disk = bench.disk('disk')
    t = bench.tracer(disk, ring_bytes=PAGE)
    t.ask('hold')
    total = 0
    for seed in range(5):
        read_pages(os.path.join(disk, 'file'), scattered(1000, seed))
        total += 1000
    drops = t.drops()
    check(drops['dropped'] > 0, lambda: f'nothing was dropped: {drops}')
    t.tell('release')
    drops = t.drops()
    equal(drops['events'] + drops['dropped'], total, 'ranges')
    # What the reader is told is what the kernel says that it handed on; and its records confess the rest.
    read_pages(os.path.join(disk, 'file'), scattered(1, 77))
    equal(len(t.seen(lambda seen: len(seen) == drops['events'] + 1, 'the rest')), drops['events'] + 1, 'told')
    equal(t.drops()['seen_dropped'], drops['dropped'], 'drops that the reader knows of')


def test_sequential_reads_become_few_ranges(bench):
    disk = bench.disk('disk')
    t = bench.tracer(disk)
    read_pages(os.path.join(disk, 'file'), range(1024))
    accesses = t.stop()
    equal(covered(accesses), list(range(1024)), 'pages')
    check(len(accesses) <= 64, lambda: f'{len(accesses)} ranges for 4 MiB')


def test_large_read_is_told_once_and_in_order(bench):
    disk = bench.disk('disk')
    t = bench.tracer(disk)

    def read():
        with opened(os.path.join(disk, 'file')) as fd:
            equal(len(os.pread(fd, 5 * MIB + 100, MIB + 10)), 5 * MIB + 100, 'bytes')

    in_child(read)
    counts, = file_counts(bench)
    accesses = t.stop()
    position = MIB
    for a in accesses:
        equal(a['offset'], position, 'offset of the next range')
        position += a['len']
    equal(position, 6 * MIB + PAGE, 'end, in whole pages')
    equal((counts['bytes'], counts['hits'], counts['misses']), (5 * MIB + PAGE, 1, 0), 'counters')


def file_counts(bench):
    return [entry['value'] for entry in bench.dump('files')]


def test_the_same_page_again_and_again_is_counted_each_time(bench):
    disk = bench.disk('disk')
    t = bench.tracer(disk)
    read_pages(os.path.join(disk, 'file'), [7] * 500)
    counts, = file_counts(bench)
    equal((counts['bytes'], counts['hits'], counts['misses'], counts['faults']), (500 * PAGE, 500, 0, 0), 'counters')
    check(len(t.stop()) <= 8, 'one page was told over and over')


def test_ranges_end_with_the_file(bench):
    disk = bench.disk('disk')
    path = os.path.join(disk, 'short')
    with open(path, 'wb') as f:
        f.write(b'x' * 5000)
    # The kernel reports no page before one that is only half valid, as after a write.
    run('sync', '-f', disk)
    with opened(path) as fd:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.read(fd, MIB)
    t = bench.tracer(disk)

    def read():
        with opened(path) as fd:
            equal(len(os.read(fd, MIB)), 5000, 'bytes')
            equal(len(os.read(fd, MIB)), 0, 'bytes at the end')

    in_child(read)
    equal([(a['offset'], a['len']) for a in t.stop()], [(0, 5000)], 'ranges')


def test_a_thread_that_rests_is_told_soon(bench):
    disk = bench.disk('disk')
    t = bench.tracer(disk)
    with opened(os.path.join(disk, 'file')) as fd:
        for page in scattered(5):
            os.pread(fd, PAGE, page * PAGE)
        # Neither closed nor read any more: the reader has it handed on.
        t.seen(lambda seen: len(seen) == 5, 'five pages')
        os.pread(fd, PAGE, PAGE)
        t.seen(lambda seen: len(seen) == 6, 'one more, later')


def test_counters_run_without_recording(bench):
    disk = bench.disk('disk')
    t = bench.tracer(disk)
    equal(t.ask('record 0'), {'record': 0}, 'switching off')
    read_pages(os.path.join(disk, 'file'), scattered(100))
    counts, = file_counts(bench)
    equal(counts['bytes'], 100 * PAGE, 'bytes')
    equal(t.drops()['events'], 0, 'events')
    equal(t.ask('record 1'), {'record': 0}, 'switching on')
    read_pages(os.path.join(disk, 'file'), [1])
    equal(len(t.stop()), 1, 'accesses')


def test_groups_are_counted_apart(bench):
    disk = bench.disk('disk')
    groups = [bench.cgroup() for _ in range(2)]
    t = bench.tracer(disk)
    for i, (directory, _) in enumerate(groups, 1):
        read_pages(os.path.join(disk, 'file'), scattered(100 * i), directory)
    counted = {e['key']['cgroup']: e['value']['bytes'] for e in bench.dump('cgroups') if e['key']['dev'] == t.dev}
    equal([counted.get(group) for _, group in groups], [100 * PAGE, 200 * PAGE], 'bytes')
