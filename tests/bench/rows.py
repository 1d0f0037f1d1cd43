# SPDX-License-Identifier: Apache-2.0
"""The rows of the benchmark: what is read, how, and what the bare receiver does for the same."""
import json
import os
import subprocess
import time

from build import build_path

LOAD = build_path('bin', 'penstock-load')
READ = [LOAD, 'read', '--json']
RAWGET = build_path('tests', 'rawget')
CONNECTIONS = 16
CUT_S = 30


def run_json(argv, env=None, timeout=600):
    done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=timeout)
    if done.returncode:
        raise RuntimeError(f'{os.path.basename(argv[0])} ended with status {done.returncode}: {done.stdout.strip()}')
    return json.loads(done.stdout)


def rawget(server, bucket, keys, *options):
    return run_json([RAWGET, '--endpoint-url', server.endpoint, '--bucket', bucket, '--region', server.region,
                     '--connections', str(CONNECTIONS), *options, *keys],
                    env=server.full_environment())


class Row:
    """unit, better ('more' or 'less'): of the figure; objects: reads objects, not lists; cost_unit: of the daemon's
    CPU time. limit() returns the figure, read() figure, work (what the CPU time is divided by) and wanted (bytes)."""
    unit, better, objects = 'MB/s', 'more', True
    cost_unit = 's/GB'

    def __init__(self, name, title):
        self.name, self.title = name, title


class Bandwidth(Row):
    def __init__(self, name, title, files, *pattern):
        super().__init__(name, title)
        self.files, self.pattern = files, pattern

    def limit(self, server, bench):
        return rawget(server, bench.bucket, bench.keys[:self.files])['mb_per_s']

    def read(self, mount, bench):
        paths = [mount.file(key) for key in bench.keys[:self.files]]
        got = run_json(READ + paths + ['--seconds', str(CUT_S), *self.pattern])
        return {'figure': got['mb_per_s'], 'work': got['bytes'] / 1e9, 'wanted': got['wanted_bytes']}


class Random(Row):
    unit, cost_unit = 'IOPS', 'us/op'

    def limit(self, server, bench):
        got = rawget(server, bench.bucket, bench.keys[:1], '--block', '4KiB', '--shuffle', '7', '--count', '2000')
        return got['requests'] / got['seconds']

    def read(self, mount, bench):
        got = run_json(READ + [mount.file(bench.keys[0]), '--pattern', 'random4k-direct', '--jobs', '16',
                               '--seconds', '2' if bench.quick else '6'])
        return {'figure': got['iops'], 'work': got['ops'] / 1e6, 'wanted': got['wanted_bytes']}


class Head(Row):
    unit, better, cost_unit = 'ms', 'less', 'ms'

    def limit(self, server, bench):
        got = rawget(server, bench.bucket, bench.keys[:1], '--block', '64KiB', '--count', '1', '--connections', '1')
        return got['seconds'] * 1000

    def read(self, mount, bench):
        got = run_json(READ + [mount.file(bench.keys[0]), '--pattern', 'head'])
        return {'figure': got['seconds'] * 1000, 'work': 1e-3, 'wanted': got['wanted_bytes']}


class Listing(Row):
    unit, better, objects, cost_unit = 's', 'less', False, 's'
    cut_s = 60

    def __init__(self, name, title, directory, keys, *options):
        super().__init__(name, title)
        self.directory, self.keys, self.options = directory, keys, options

    def limit(self, server, bench):
        client, started = server.client(), time.monotonic()
        found = sum(1 for _ in client.list(bench.list_bucket, self.directory + '/'))
        if found != self.keys:
            raise RuntimeError(f'the server lists {found} keys, not {self.keys}')
        return time.monotonic() - started

    def read(self, mount, bench):
        started = time.monotonic()
        try:
            done = subprocess.run(['ls', *self.options, mount.file(self.directory)], stdin=subprocess.DEVNULL,
                                  env=dict(os.environ, LC_ALL='C'), stdout=subprocess.PIPE, timeout=self.cut_s)
        except subprocess.TimeoutExpired:
            return {'figure': float('inf'), 'work': 1, 'wanted': 0}
        seconds = time.monotonic() - started
        lines = done.stdout.count(b'\n') - (1 if '-l' in self.options else 0)
        if done.returncode or lines != self.keys:
            raise RuntimeError(f'ls ended with status {done.returncode} and {lines} names, not {self.keys}')
        return {'figure': seconds, 'work': 1, 'wanted': 0}


ROWS = (
    Bandwidth('seq', 'sequential, 1 file', 1, '--pattern', 'seq'),
    Bandwidth('four', 'sequential, 4 files at once', 4, '--pattern', 'seq', '--jobs', '4'),
    Bandwidth('mmap', 'mmap, forward', 1, '--pattern', 'mmap'),
    Bandwidth('shuffled', 'mmap, 4 MiB pieces shuffled', 1, '--pattern', 'mmap-shuffled', '--piece', '4MiB'),
    Bandwidth('streams', 'four interleaved 1 MiB streams, one descriptor', 1, '--pattern', 'streams'),
    Random('random4k', '4 KiB random, O_DIRECT, 16 jobs'),
    Head('head', 'first 64 KiB of a file'),
    Listing('ls5k', '`ls -l`, 5,000 keys', 'five-thousand', 5000, '-l'),
    Listing('ls100k', '`ls -U`, 100,000 keys', 'hundred-thousand', 100000, '-U'),
)
