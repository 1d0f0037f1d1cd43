#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How fast models load: the ways of real loaders, replayed on penstock without and with prefetch and on other mounts.

Each cell is a fresh mount of one model, so cold for the client; the objects stay in the server's memory. The clock
starts with the loader, right after the mount is ready, and stops with its last byte. The second start is another
mount after the first one, with what that one recorded. The bare receiver fetches the same model before each row and
round, without the slow requests of the shaped server.
One cell in seconds: load.py --rows P1 --columns first --shapes unshaped --rounds 1 --size 64MiB
"""
import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(os.path.dirname(HERE), 'lib'), HERE]

import bench  # noqa: E402
import load_report  # noqa: E402
import mnt  # noqa: E402
import peers  # noqa: E402
import proc  # noqa: E402
import rows  # noqa: E402
from build import build_path  # noqa: E402
from servers import Unavailable  # noqa: E402
from servers.s3d import S3d  # noqa: E402

BUCKET, SEED = 'load', 1
LATENCY_MS, MIB_PER_S = 30, 90
SLOW_RATE, SLOW_MS = 0.01, 2000
RAW_TRIES = 2  # of the bare receiver, the faster counts
SHAPES = {'unshaped': 'Unshaped: the server at full speed',
          'shaped': f'Shaped: {LATENCY_MS} ms before each reply, {MIB_PER_S} MiB/s for each connection, '
                    f'{SLOW_RATE:.0%} of the requests {SLOW_MS / 1000:.0f} s late'}

MODELS = {'dense': ('--shards', '4'),
          'mixed': ('--shards', '4', '--mixed'),
          'shards': ('--shards', '160'),
          'experts': ('--shards', '8', '--mixed', '--experts', '18867'),
          'gguf': ('--kind', 'gguf'),
          'torch': ('--kind', 'torch', '--shards', '4')}


class Row:
    def __init__(self, name, model, title):
        self.name, self.model, self.title = name, model, title
        self.pattern = name.partition('-')[0]


ROWS = (Row('P1', 'dense', 'mmap, forward'),
        Row('P2', 'dense', 'mmap, copied backward'),
        Row('P3', 'mixed', 'mmap, name order, mixed dtypes'),
        Row('P4', 'shards', 'mmap, shuffled, 16 threads, 160 files'),
        Row('P5', 'dense', 'mmap, 8 ranks, columns'),
        Row('P6', 'dense', 'mmap, 8 ranks, rows'),
        Row('P7', 'experts', 'mmap, 8 ranks, 18,867 experts'),
        Row('P8', 'shards', '8 reading threads beside mmap, 160 files'),
        Row('P9', 'dense', 'whole files, one read()'),
        Row('P10', 'dense', '16 threads of 2 MiB reads'),
        Row('P11', 'dense', 'O_DIRECT, 32 reads of 8 MiB'),
        Row('P12', 'dense', 'populate in 64 MiB windows'),
        Row('P12-gguf', 'gguf', 'GGUF, populated by mmap()'),
        Row('P13', 'torch', 'torch archives'),
        Row('P14', 'dense', '4 processes on one descriptor'))


# -- columns: each mounts one model and says where it lies -------------------------------------------------------------


class Penstock:
    def __init__(self, name, title, recorded=False, **options):
        self.name, self.title, self.recorded, self.options = name, title, recorded, options

    def mount(self, server, model, profiles):
        options = dict(self.options)
        if profiles and self.recorded:
            options['profile-dir'] = profiles
        return mnt.Mount(server, BUCKET, model + '/', options=options)

    @staticmethod
    def model_directory(mount, _):
        return mount.directory


class Peer:
    def __init__(self, peer):
        self.name = self.title = peer.name
        self.peer = peer

    def mount(self, server, _model, _profiles):
        return self.peer(server, BUCKET)

    @staticmethod
    def model_directory(mount, model):
        return mount.file(model)


def columns_here():
    columns = [Penstock('off', 'no prefetch', prefetch='off'),
               Penstock('first', 'first start', recorded=True, prefetch='auto'),
               Penstock('second', 'second start', recorded=True, prefetch='auto')]
    columns += [Peer(peer) for peer in peers.available() if peer in (peers.S3fs, peers.Rclone)]
    return {column.name: column for column in columns}


def has_profiles():
    done = subprocess.run([build_path('bin', 'penstock'), 'mount', '--help'], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, text=True)
    return '--profile-dir' in done.stdout


# -- measuring -----------------------------------------------------------------------------------------------------


def replay(pattern, directory, cut_s, verify):
    """The tool's own figures; None when the time was up. Its processes are ended however deep they wait."""
    argv = [rows.LOAD, 'replay', pattern, directory, '--json', '--seconds', str(cut_s)]
    argv += ['--verify', str(SEED)] if verify else []
    process = proc.spawn(argv, stdout=subprocess.PIPE, text=True)
    try:
        out = process.communicate(timeout=cut_s + 15)[0]
    except subprocess.TimeoutExpired:
        return None
    finally:
        proc.stop(process, timeout=0.1)
        process.stdout.close()
    if process.returncode:
        raise RuntimeError(f'replay ended with status {process.returncode}: {out.strip()}')
    got = json.loads(out)
    return None if got['cut'] else got


class Bench:
    def __init__(self, options):
        self.options = options
        self.rows = [r for r in ROWS if r.name in options.rows]
        self.columns = {n: c for n, c in columns_here().items() if n in options.columns}
        self.profiles = has_profiles()
        self.cells, self.limits, self.alone = {}, {}, {}
        self.done = 0
        self.total = options.rounds * len(options.shapes) * len(self.rows) * len(self.columns)

    def run(self):
        for model in MODELS:
            if any(row.model == model for row in self.rows):
                with S3d(memory=True) as server:
                    self.run_model(server, model)

    def run_model(self, server, model):
        client = server.client(timeout=600)
        client.create_bucket(BUCKET)
        with tempfile.TemporaryDirectory(prefix='penstock-load-') as private:
            directory = os.path.join(private, model)
            subprocess.run([rows.LOAD, 'generate', directory, '--size', self.options.size, '--seed', str(SEED),
                            *MODELS[model]], check=True)
            names = sorted(os.listdir(directory))
            client.put_tree(BUCKET, model + '/', directory)
            for row in self.rows:
                if row.model == model:
                    self.alone[row.name] = replay(row.pattern, directory, 600, False)['seconds']
        keys = [f'{model}/{name}' for name in names]
        for number in range(self.options.rounds):
            for shape in self.options.shapes:
                for row in self.rows:
                    if row.model == model:
                        self.run_row(server, keys, number, shape, row)

    def run_row(self, server, keys, number, shape, row):
        server.reset()
        if shape == 'shaped':
            server.set_latency(LATENCY_MS)
            server.set_rate(MIB_PER_S << 20)
        limit = min(rows.rawget(server, BUCKET, keys)['seconds'] for _ in range(RAW_TRIES))
        self.limits.setdefault((shape, row.name), []).append(limit)
        with tempfile.TemporaryDirectory(prefix='penstock-profiles-') as profiles:
            for column in self.columns.values():
                if shape == 'shaped':
                    server.set_faults([{'fault': 'stall_first_byte', 'ms': SLOW_MS, 'rate': SLOW_RATE,
                                        'match': {'op': 'get'}}], seed=number + 1)
                self.run_cell(server, number, shape, row, column, profiles if self.profiles else None)

    def run_cell(self, server, number, shape, row, column, profiles):
        cell = self.cells.setdefault((shape, row.name, column.name), {'runs': [], 'error': None})
        self.done += 1
        what = f'{self.done}/{self.total} round {number + 1} {shape} {row.name} {column.name}'
        try:
            run = self.measure(server, row, column, profiles)
        except (RuntimeError, TimeoutError, OSError, subprocess.SubprocessError, mnt.MountError) as e:
            cell['error'] = str(e)
            print(f'{what}: {e}', flush=True)
            return
        cell['runs'].append(run)
        if run['cut']:
            print(f'{what}: given up after {self.options.cut} s', flush=True)
            return
        run['share'] = self.limits[shape, row.name][-1] / run['seconds']
        print(f'{what}: {run["seconds"]:.3f} s, {run["share"]:.2f} of the limit', flush=True)

    def measure(self, server, row, column, profiles):
        before = server.stats()
        with column.mount(server, row.model, profiles) as mount:
            cpu = mount.cpu_seconds()
            got = replay(row.pattern, column.model_directory(mount, row.model), self.options.cut, self.options.verify)
            cpu = mount.cpu_seconds() - cpu
            peak = mount.peak_rss_bytes()
        after = server.stats()
        if not got:
            return {'cut': True}
        gets = sum(after['requests'].get('get', {}).values()) - sum(before['requests'].get('get', {}).values())
        return {'cut': False, 'seconds': got['seconds'], 'first_tensor_s': got['first_tensor_s'],
                'p50_ms': got['p50_us'] / 1e3, 'p99_ms': got['p99_us'] / 1e3, 'max_ms': got['max_us'] / 1e3,
                'major_faults': got['major_faults'], 'reader_cpu_s': got['cpu_s'],
                'wanted_bytes': got['wanted_bytes'], 'gets': gets,
                'fetched': (after['body_bytes_sent'] - before['body_bytes_sent']) / got['wanted_bytes'],
                'cpu_s_per_gib': cpu / (got['wanted_bytes'] / (1 << 30)), 'peak_mib': peak / (1 << 20)}


def median_cell(cell):
    """Medians; a cell counts as cut when most of its runs were."""
    if not cell['runs']:
        return None
    whole = [run for run in cell['runs'] if not run['cut']]
    if 2 * len(whole) <= len(cell['runs']):
        return {'cut': True}
    return {name: statistics.median(run[name] for run in whole) for name in whole[0]}


def options_get():
    names, columns = [r.name for r in ROWS], list(columns_here())
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--rows', type=bench.choice_list(names), default=names, help=','.join(names))
    p.add_argument('--columns', type=bench.choice_list(columns), default=columns, help=','.join(columns))
    p.add_argument('--shapes', type=bench.choice_list(list(SHAPES)), default=list(SHAPES), help=','.join(SHAPES))
    p.add_argument('--rounds', type=int, default=3)
    p.add_argument('--size', default='512MiB', help='of each model')
    p.add_argument('--cut', type=int, default=60, help='seconds after which a load is given up')
    p.add_argument('--verify', action='store_true', help='compare every byte, which takes CPU time from the load')
    p.add_argument('--quick', action='store_true', help='one round, 96MiB, cut at 15 s: a look, not a figure to quote')
    p.add_argument('--out', default=build_path('bench'))
    options = p.parse_args()
    if options.quick:
        options.rounds, options.size, options.cut = 1, '96MiB', 15
    if 'second' in options.columns and 'first' not in options.columns:
        p.error('a second start needs the first one: --columns first,second')
    return options


def main():
    options = options_get()
    if os.geteuid():
        sys.exit('load.py: mounting needs root')
    proc.exit_on_signals()
    os.makedirs(options.out, exist_ok=True)
    measured = Bench(options)
    with contextlib.ExitStack() as stack:
        stack.enter_context(mnt.io_uring_switched_on())
        try:
            measured.run()
        except Unavailable as e:
            sys.exit(f'load.py: {e}')
    results = load_report.Results(options, SHAPES, measured.rows, list(measured.columns.values()), measured.profiles,
                                  measured.alone,
                                  {key: statistics.median(values) for key, values in measured.limits.items()},
                                  {key: (median_cell(cell), cell['error']) for key, cell in measured.cells.items()})
    with open(os.path.join(options.out, 'load.json'), 'w') as f:
        json.dump([dict(shape=k[0], row=k[1], column=k[2], **v) for k, v in measured.cells.items()], f, indent=1)
    results.write_markdown(os.path.join(options.out, 'load.md'))
    results.write_plot(options.out)
    print(open(os.path.join(options.out, 'load.md')).read())


if __name__ == '__main__':
    main()
