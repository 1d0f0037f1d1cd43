#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The benchmark: penstock on both transports beside other S3 mounts, against what a bare receiver gets.

Every cell is a fresh mount, so cold for the client; the object stays in the server's memory. The bare receiver runs
immediately before each cell, and columns alternate within a round; figures are medians over the rounds.
One cell in seconds: bench.py --rows seq --columns penstock-io_uring --rounds 1 --size 64MiB --shapes unshaped
"""
import argparse
import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(os.path.dirname(HERE), 'lib'), HERE]

import mnt  # noqa: E402
import peers  # noqa: E402
import proc  # noqa: E402
import report  # noqa: E402
import rows  # noqa: E402
from build import build_path  # noqa: E402
from servers import Unavailable  # noqa: E402
from servers.front import NginxFront  # noqa: E402
from servers.s3d import S3d  # noqa: E402
from servers.versitygw import VersityGw  # noqa: E402

DELAY_MS, MIB_PER_S = 20, 90
SHAPES = ('unshaped', 'shaped')
TRANSPORTS = ('io_uring', 'dev')


def penstock_column(transport):
    def make(server, bucket):
        return mnt.Mount(server, bucket, transport=transport)
    return make


def columns_here():
    columns = {f'penstock-{t}': penstock_column(t) for t in TRANSPORTS}
    columns.update((peer.name, peer) for peer in peers.available())
    return columns


class Bench:
    bucket, list_bucket = 'bench', 'keys'
    keys = [f'file-{i}.bin' for i in range(4)]

    def __init__(self, options, stack):
        self.quick, self.size = options.quick, options.size
        self.rows = [r for r in rows.ROWS if r.name in options.rows]
        self.columns = {n: c for n, c in columns_here().items() if n in options.columns}
        self.shapes, self.rounds = options.shapes, options.rounds
        self.cells = {}
        self.servers = {}
        if any(r.objects for r in self.rows) or options.transports:
            self.start_objects(stack)
        if any(not r.objects for r in self.rows):
            self.start_lists(stack)

    def start_objects(self, stack):
        base = stack.enter_context(VersityGw())
        client = base.client(timeout=600)
        client.create_bucket(self.bucket)
        with tempfile.TemporaryDirectory(prefix='penstock-bench-') as directory:
            for key in self.keys:
                path = os.path.join(directory, key)
                subprocess.run([rows.LOAD, 'generate', path, '--plain', '--size', self.size], check=True)
                client.put_file(self.bucket, key, path)
                os.unlink(path)
        self.servers['unshaped', True] = base
        if 'shaped' in self.shapes:
            front = stack.enter_context(NginxFront(base, DELAY_MS, MIB_PER_S))
            front.warm(self.bucket, self.keys)
            self.servers['shaped', True] = front

    def start_lists(self, stack):
        for shape in self.shapes:
            server = stack.enter_context(S3d(latency_ms=DELAY_MS if shape == 'shaped' else 0))
            for row in rows.ROWS:
                if not row.objects:
                    server.synthetic_keys(self.list_bucket, row.directory + '/', row.keys)
            self.servers[shape, False] = server

    # -- one cell -----------------------------------------------------------------------------------------------

    def measure(self, shape, row, column):
        server = self.servers[shape, row.objects]
        bucket = self.bucket if row.objects else self.list_bucket
        limit = row.limit(server, self)
        sent = proc.io_counters(server.pids())[1]
        with self.columns[column](server, bucket) as mount:
            cpu = mount.cpu_seconds()
            got = row.read(mount, self)
            cpu = mount.cpu_seconds() - cpu
            peak = mount.peak_rss_bytes()
        sent = proc.io_counters(server.pids())[1] - sent
        figure = got['figure']
        return {'limit': limit, 'figure': figure, 'share': figure / limit if row.better == 'more' else limit / figure,
                'cost': cpu / got['work'] if got['work'] else None,
                'fetched': sent / got['wanted'] if got['wanted'] else None, 'peak_mib': peak / (1 << 20)}

    def run(self):
        total = self.rounds * len(self.shapes) * len(self.rows) * len(self.columns)
        done = 0
        for number in range(self.rounds):
            for shape in self.shapes:
                for row in self.rows:
                    for column in self.columns:
                        done += 1
                        self.run_cell(number, shape, row, column, f'{done}/{total}')

    def run_cell(self, number, shape, row, column, where):
        cell = self.cells.setdefault((shape, row.name, column), {'runs': [], 'error': None})
        try:
            run = self.measure(shape, row, column)
        except (RuntimeError, TimeoutError, OSError, subprocess.SubprocessError, mnt.MountError) as e:
            cell['error'] = str(e)
            print(f'{where} round {number + 1} {shape} {row.name} {column}: {e}', flush=True)
            return
        cell['runs'].append(run)
        print(f'{where} round {number + 1} {shape} {row.name} {column}: {run["figure"]:.4g} {row.unit}, '
              f'{run["share"]:.2f} of the limit', flush=True)

    # -- transports side by side, on bytes the daemon holds already -----------------------------------------------

    def run_transports(self):
        results = {}
        for _ in range(self.rounds):
            for transport in TRANSPORTS:
                for name, value in self.measure_transport(transport).items():
                    results.setdefault(name, {}).setdefault(transport, []).append(value)
        for values in results.values():
            for transport in TRANSPORTS:
                values[transport] = statistics.median(values[transport])
        return results

    def measure_transport(self, transport):
        with mnt.Mount(self.servers['unshaped', True], self.bucket, transport=transport) as mount:
            used = mount.transport
            if used != transport:
                raise RuntimeError(f'transport {transport} was asked for and {used} is used')
            path = mount.file(self.keys[0])
            self.hold(path)
            small = rows.run_json(rows.READ + [path, '--pattern', 'random4k-direct', '--jobs', '16', '--seconds', '3'])
            bulk = []
            for _ in range(3):
                self.hold(path)
                bulk.append(rows.run_json(rows.READ + [path, '--pattern', 'seq', '--drop'])['mb_per_s'])
        return {'4 KiB, 16 jobs, IOPS': small['iops'], 'bulk, MB/s': statistics.median(bulk)}

    @staticmethod
    def hold(path):
        """Brings a file into the daemon's memory and not into the kernel's."""
        rows.run_json(rows.READ + [path, '--pattern', 'seq', '--direct'])


def median_cell(cell):
    """Medians of what was measured; a run that was stopped (infinite figure) keeps its meaning."""
    if not cell['runs']:
        return None
    out = {}
    for name in cell['runs'][0]:
        values = [run[name] for run in cell['runs'] if run[name] is not None]
        out[name] = statistics.median(values) if values else None
    out['stopped'] = math.isinf(out['figure'])
    return out


def choice_list(known):
    def parse(text):
        names = text.split(',')
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f'"{name}" is not one of {", ".join(known)}')
        return names
    return parse


def options_get():
    row_names, columns = [r.name for r in rows.ROWS], list(columns_here())
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--rows', type=choice_list(row_names), default=row_names, help=','.join(row_names))
    p.add_argument('--columns', type=choice_list(columns), default=columns, help=','.join(columns))
    p.add_argument('--shapes', type=choice_list(SHAPES), default=list(SHAPES), help=','.join(SHAPES))
    p.add_argument('--rounds', type=int, default=3)
    p.add_argument('--size', default='512MiB', help='of each of the four files')
    p.add_argument('--quick', action='store_true', help='one round, 96MiB, unshaped: a look, not a figure to quote')
    p.add_argument('--no-transports', dest='transports', action='store_false',
                   help='leave out the comparison of the transports on cached bytes')
    p.add_argument('--out', default=build_path('bench'))
    options = p.parse_args()
    if options.quick:
        options.rounds, options.size, options.shapes = 1, '96MiB', ['unshaped']
    return options


def main():
    options = options_get()
    if os.geteuid():
        sys.exit('bench.py: mounting needs root')
    proc.exit_on_signals()
    os.makedirs(options.out, exist_ok=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(mnt.io_uring_switched_on())
        try:
            bench = Bench(options, stack)
        except Unavailable as e:
            sys.exit(f'bench.py: {e}')
        bench.run()
        transports = bench.run_transports() if options.transports else {}
    results = report.Results(options, bench.rows, list(bench.columns), transports,
                             {key: (median_cell(cell), cell['error']) for key, cell in bench.cells.items()})
    with open(os.path.join(options.out, 'bench.json'), 'w') as f:
        json.dump([dict(shape=k[0], row=k[1], column=k[2], **v) for k, v in bench.cells.items()], f, indent=1)
    results.write_markdown(os.path.join(options.out, 'bench.md'))
    results.write_plot(options.out)
    print(open(os.path.join(options.out, 'bench.md')).read())


if __name__ == '__main__':
    main()
