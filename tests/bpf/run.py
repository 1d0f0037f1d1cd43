#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the BPF tests in the running kernel, one after the other.

usage: run.py [--json-summary FILE] [--only REGEX]

A test is a function test_*(bench) in test_*.py beside this file and fails by an exception. It gets file systems, a BPF
file system and a run directory of its own, and leaves nothing. None is ever skipped.
"""
import argparse
import importlib
import json
import os
import pathlib
import re
import signal
import sys
import tempfile
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
LIMIT_S = 60


def overdue(*_):
    raise TimeoutError(f'no end after {LIMIT_S} s')


def run_one(name, function):
    from harness import Bench
    bench = Bench(tempfile.mkdtemp(prefix='penstock-bpf-'))
    started = time.monotonic()
    signal.alarm(LIMIT_S)
    try:
        try:
            function(bench)
        finally:
            signal.alarm(LIMIT_S)
            bench.finish()
    except Exception as e:
        print(f'not ok {name}: {type(e).__name__}: {e}', flush=True)
        traceback.print_exc()
        return False
    finally:
        signal.alarm(0)
    print(f'ok {name} ({time.monotonic() - started:.1f} s)', flush=True)
    return True


def main():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument('--json-summary', type=pathlib.Path)
    parser.add_argument('--only', default='')
    args = parser.parse_args()
    signal.signal(signal.SIGALRM, overdue)

    counts = {'passed': 0, 'failed': 0, 'skipped': 0}
    for path in sorted(pathlib.Path(HERE).glob('test_*.py')):
        module = importlib.import_module(path.stem)
        for function_name, function in vars(module).items():
            name = f'{path.stem.removeprefix("test_")}.{function_name.removeprefix("test_")}'
            if function_name.startswith('test_') and re.search(args.only, name):
                counts['passed' if run_one(name, function) else 'failed'] += 1
    if args.json_summary:
        args.json_summary.parent.mkdir(parents=True, exist_ok=True)
        args.json_summary.write_text(json.dumps(counts))
    print('{passed} passed, {failed} failed, {skipped} skipped'.format(**counts))
    return 1 if counts['failed'] else 0


if __name__ == '__main__':
    sys.exit(main())
