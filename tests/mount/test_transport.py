# SPDX-License-Identifier: Apache-2.0
"""Which transport is used, what decides it, and that each stays within its memory."""
import contextlib
import os
import re
import subprocess

from fixtures import BIG
from harness import MIB, TRANSPORTS, check, equal, options
from mnt import SWITCH
from test_badinput import Attempt

FAST = ('versitygw',)
NONE = (None,)


@contextlib.contextmanager
def switch_off():
    """The kernel's own switch for FUSE over io_uring; the runner's io_uring_switched_on() restores it in the end."""
    with open(SWITCH, 'w') as f:
        f.write('N')
    try:
        yield
    finally:
        with open(SWITCH, 'w') as f:
            f.write('Y')


def counts(m):
    stats = m.stats()
    return stats['requests_io_uring'], stats['requests_dev']


@options(servers=FAST, san=True)
def test_requests_go_the_way_that_is_named(t):
    m = t.mount()
    before = counts(m)
    t.load(m.file('middle'), jobs=4)
    t.load(m.file('middle'), pattern='random4k-direct', count=500)
    uring, dev = (after - first for after, first in zip(counts(m), before))
    equal(m.stats()['transport'], t.transport, 'transport in the stats')
    used, unused = (uring, dev) if t.transport == 'io_uring' else (dev, uring)
    check(used > 500, f'only {used} requests over {t.transport}')
    check(unused <= 2, f'{unused} requests did not go over {t.transport}')


@options(servers=FAST, transports=NONE)
def test_auto_takes_io_uring(t):
    for transport in (None, 'auto'):
        with t.mount(transport=transport) as m:
            equal(m.transport, 'io_uring', 'transport')
            t.load(m.file('chunk+1'))
            check(counts(m)[0] > 5, 'no requests over io_uring')


@options(servers=FAST, transports=NONE, alone=True, san=True)
def test_io_uring_switched_off(t):
    with switch_off():
        text = Attempt(t).refused('io_uring', '--transport=io_uring')
        check(f'echo Y > {SWITCH}' in text, f'the command is not named: {text!r}')
        with t.mount(transport='auto') as m:
            equal(m.transport, 'dev', 'transport')
            check(re.search(r'transport dev \(.*\S.*\)', m.log_text()), 'the log does not say why')
            check(f'echo Y > {SWITCH}' in m.log_text(), 'the log does not name the command')
            t.load(m.file('chunk+1'))
            equal(counts(m)[0], 0, 'requests over io_uring')


@options(servers=FAST, transports=NONE, alone=True)
def test_version_tells_what_is_missing(t):
    for state in ('Y', 'N'):
        with switch_off() if state == 'N' else contextlib.nullcontext():
            m = t.mount(start=False)
            done = subprocess.run([m.binary, '--version', '-v'], stdout=subprocess.PIPE, text=True, check=True)
        equal(f'echo Y > {SWITCH}' in done.stdout, state == 'N', f'advice with enable_uring {state}')
        equal('transport auto       ' + ('io_uring' if state == 'Y' else 'dev') in done.stdout, True, done.stdout)


@options(servers=FAST, san=True)
def test_smallest_memory_works(t):
    m = t.mount(memory='32MiB')
    t.load(m.file('middle'), pattern='pread', jobs=4, direct=True)
    t.load(m.file('middle'), pattern='mmap-shuffled')
    t.load(m.file('middle'), m.file('chunk+1'), m.file('chunk-1'), jobs=3, drop=True)


@options(servers=FAST, timeout=120)
def test_memory_stays_within_its_budget(t):
    for budget in (32, 128):
        with t.mount(memory=f'{budget}MiB') as m:
            t.load(m.file(BIG), pattern='pread', processes=16, direct=True, piece='1MiB', seconds=20 if t.soak else 4,
                   errors=False)
            t.load(m.file('middle'), pattern='seq', processes=16)
            t.load(m.file('middle'), pattern='mmap-shuffled', processes=8, drop=True)
            peak = m.peak_rss_bytes()
            check(peak <= (budget + 32) * MIB, f'{peak >> 20} MiB at the peak with a budget of {budget} MiB')


@options(servers=FAST, transports=NONE)
def test_both_at_once(t):
    mounts = [t.mount(transport=name) for name in TRANSPORTS]
    for m in mounts:
        t.load(m.file('middle'), jobs=2)
    for m, name in zip(mounts, TRANSPORTS):
        equal(m.transport, name, 'transport')
        os.stat(m.file('one'))
