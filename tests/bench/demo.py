#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What tools/demo.sh shows: generate a model, upload, mount, load, compare, and one table."""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(os.path.dirname(HERE), 'lib'), HERE]

import mnt  # noqa: E402
import proc  # noqa: E402
import rows  # noqa: E402
from servers.s3d import S3d  # noqa: E402

BUCKET, PREFIX = 'demo', 'model/'
CONNECTIONS = 16
COLOUR = sys.stdout.isatty() and not os.environ.get('NO_COLOR')


def paint(code, text):
    return f'\033[{code}m{text}\033[0m' if COLOUR else text


def step(name, text):
    print(f'{paint("1;34", f"{name:<9}")} {text}', flush=True)


def bar(total):
    """A line that grows while bytes are sent; nothing where nobody watches."""
    sent = 0

    def progress(count):
        nonlocal sent
        sent += count
        if sys.stderr.isatty():
            end = '\n' if sent >= total else ''
            text = f'\r[{"#" * (30 * sent // total):.<30}] {100 * sent // total:3d} %  '
            print(text, end=end, file=sys.stderr, flush=True)
    return progress


def generate(options, directory):
    started = time.monotonic()
    subprocess.run([rows.LOAD, 'generate', directory, '--size', options.size, '--shards', str(options.shards)],
                   check=True)
    files = sorted(os.listdir(directory))
    total = sum(os.path.getsize(os.path.join(directory, name)) for name in files)
    step('model', f'{total / (1 << 30):.2f} GiB of safetensors in {options.shards} shards, made in '
                  f'{time.monotonic() - started:.1f} s')
    return files, total


def load(mount, *options):
    """Through the mount, as a loader would; the tool's own progress bar goes to the terminal."""
    done = subprocess.run([rows.LOAD, 'model', mount.directory, '--progress', '--json', *options],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    if not done.stdout:
        sys.exit('demo: the load failed')
    return json.loads(done.stdout), done.returncode


def timed_load(server):
    with mnt.Mount(server, BUCKET, PREFIX) as mount:
        step('mount', f's3://{BUCKET}/{PREFIX} on {mount.directory}, transport {paint(1, mount.transport)}')
        cpu = mount.cpu_seconds()
        result, status = load(mount)
        if status:
            sys.exit(f'demo: {result["errors"]} reads failed; the first: {result["first_error"]}')
        cpu = mount.cpu_seconds() - cpu
        counters = mount.stats()
        used, other = mount.transport, 'dev' if mount.transport == 'io_uring' else 'io_uring'
        if not counters[f'requests_{used}']:
            sys.exit(f'demo: the log says transport {used}, and no request came through it')
        step('load', f'{result["bytes"] / (1 << 30):.2f} GiB in {result["seconds"]:.2f} s; '
                     f'{counters[f"requests_{used}"]:,} requests over {used}, '
                     f'{counters[f"requests_{other}"]:,} over {other}')
        return result, cpu, used


def verified_load(server, directory):
    """On a mount of its own, so that every byte comes from the server once more."""
    with mnt.Mount(server, BUCKET, PREFIX) as mount:
        result, status = load(mount, '--verify', directory)
    if status:
        sys.exit(f'demo: {result["wrong_bytes"]} WRONG bytes, {result["errors"]} errors; {result["first_error"]}')
    step('compare', paint('1;32', f'{result["verified_bytes"]:,} bytes, every one right'))
    return result['verified_bytes']


def table(loaded, cpu, transport, verified, raw):
    rate, gigabytes = loaded['mb_per_s'], loaded['bytes'] / 1e9
    lines = [('', 'transport', 'MB/s', 'of raw GET', 'CPU-s/GB', 'bytes compared'),
             ('penstock mount', transport, f'{rate:,.0f}', f'{rate / raw["mb_per_s"]:.2f}', f'{cpu / gigabytes:.2f}',
              f'{verified:,}'),
             (f'raw GET, {CONNECTIONS} connections', '-', f'{raw["mb_per_s"]:,.0f}', '1.00',
              f'{raw["cpu_s"] / (raw["bytes"] / 1e9):.2f}', '-')]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    print()
    for i, line in enumerate(lines):
        text = '  '.join(c.ljust(w) if n < 2 else c.rjust(w) for n, (c, w) in enumerate(zip(line, widths)))
        print(paint(1, text) if i == 1 else text)
    print()


def demo(options):
    step('machine', f'kernel {os.uname().release}, {os.cpu_count()} cores')
    with tempfile.TemporaryDirectory(prefix='penstock-demo-') as private, S3d() as server:
        directory = os.path.join(private, 'model')
        files, total = generate(options, directory)
        step('server', f's3d at {server.endpoint}, signatures checked')
        client = server.client(timeout=600)
        client.create_bucket(BUCKET)
        started = time.monotonic()
        client.put_tree(BUCKET, PREFIX, directory, progress=bar(total))
        step('upload', f'{len(files)} objects in {time.monotonic() - started:.1f} s, large ones in parallel parts')
        shards = [PREFIX + name for name in files if name.endswith('.safetensors')]
        raw = rows.rawget(server, BUCKET, shards)
        loaded, cpu, transport = timed_load(server)
        verified = verified_load(server, directory)
        table(loaded, cpu, transport, verified, raw)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--size', default='1GiB')
    p.add_argument('--shards', type=int, default=8)
    proc.exit_on_signals()
    try:
        demo(p.parse_args())
    except (mnt.MountError, RuntimeError, TimeoutError, OSError, subprocess.SubprocessError) as e:
        sys.exit(f'demo: {e}')


if __name__ == '__main__':
    main()
