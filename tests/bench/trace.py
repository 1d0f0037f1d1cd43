#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the tracer costs readers of the page cache: build/bench/trace.md.

usage: trace.py [--rounds N] [--milliseconds N]

Each round measures every cell once, in alternating order: without tracer; with the tracer loaded, a file of no volume; a
file of a volume whose accesses are counted; one whose accesses are recorded too. The readers' CPU time is compared
within a round, and the median over the rounds is kept.
"""
import argparse
import os
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), 'bpf'))

from harness import Bench, build_path  # noqa: E402

CELLS = (('4 KiB, sequential', 4096, 'seq'), ('4 KiB, random', 4096, 'random'), ('1 MiB, sequential', 1 << 20, 'seq'))
STATES = ('no tracer', 'of no volume', 'counted', 'recorded')
AIMS = {4096: {'of no volume': '≤ 5 %', 'recorded': '≤ 20 %'}, 1 << 20: {'of no volume': '0', 'recorded': '0'}}


class Reader:
    """A process that reads the first disk's file, again and again."""

    def __init__(self, path, block, pattern):
        self.process = subprocess.Popen([build_path('tests', 'hotread'), path, str(block), pattern], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def measure(self, milliseconds):
        """Nanoseconds of CPU time per read."""
        self.process.stdin.write(f'{milliseconds}\n')
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def measure(bench, state, disks, reader, milliseconds):
    tracer = bench.tracer(disks[state == 'of no volume'])
    tracer.tell('quiet')
    if state == 'counted':
        tracer.ask('record 0')
    if state == 'no tracer':
        # Started as in all cells, which leaves the machine's caches as in all cells.
        tracer.stop()
        tracer = None
    try:
        return reader.measure(milliseconds)
    finally:
        if tracer:
            tracer.stop()


def table(results):
    lines = ['| hot reads of | ' + ' | '.join(STATES) + ' | aims |', '|---' * (len(STATES) + 2) + '|']
    for name, block, _ in CELLS:
        rows = results[name]
        base = rows[STATES[0]]
        cells = [f'{statistics.median(base):,.0f} ns']
        for state in STATES[1:]:
            ratio = statistics.median(value / before for value, before in zip(rows[state], base))
            cells.append(f'{statistics.median(rows[state]):,.0f} ns, {100 * (ratio - 1):+.1f} %')
        aims = ', '.join(f'{state} {aim}' for state, aim in AIMS[block].items())
        lines.append(f'| {name} | ' + ' | '.join(cells) + f' | {aims} |')
    return '\n'.join(lines) + '\n'


def main():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument('--rounds', type=int, default=40)
    parser.add_argument('--milliseconds', type=int, default=60)
    args = parser.parse_args()
    results = {name: {state: [] for state in STATES} for name, _, _ in CELLS}
    bench = Bench(tempfile.mkdtemp(prefix='penstock-bench-trace-'))
    try:
        disks = [bench.disk('one'), bench.disk('two')]
        readers = {name: Reader(os.path.join(disks[0], 'file'), block, pattern) for name, block, pattern in CELLS}
        for number in range(args.rounds):
            for name, reader in readers.items():
                for state in STATES if number % 2 == 0 else reversed(STATES):
                    results[name][state].append(measure(bench, state, disks, reader, args.milliseconds))
            print(f'round {number + 1} of {args.rounds}', file=sys.stderr, flush=True)
        for reader in readers.values():
            reader.end()
    finally:
        bench.finish()
    text = table(results)
    os.makedirs(build_path('bench'), exist_ok=True)
    with open(build_path('bench', 'trace.md'), 'w') as f:
        f.write(text)
    print(text, end='')


if __name__ == '__main__':
    main()
