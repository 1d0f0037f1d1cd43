# SPDX-License-Identifier: Apache-2.0
"""What a mount test gets: its transport, its server, a private directory, and helpers that put everything away.

    @options(servers=('versitygw',), timeout=60)
    def test_something(t):
        m = t.mount()
        t.load(m.file('big'), pattern='mmap')

A test is a function test_* in tests/mount/test_*.py. It runs once for each of its servers and transports, in a process
of its own, and fails by an exception. What it starts through t is stopped, and its clean end checked, by the runner.
"""
import contextlib
import ctypes
import glob
import json
import os
import re
import subprocess
import time

import proc
from build import build_path
from mnt import Mount, is_mounted
from servers.s3d import S3d

TRANSPORTS = ('io_uring', 'dev')
BUCKET = 'data'
SEED = 7
MIB = 1 << 20
CHUNK = 8 * MIB
TAG = 'PENSTOCK_TEST_DIRECTORY'


class Failed(Exception):
    """The test saw something wrong."""


def check(condition, what):
    if not condition:
        raise Failed(what() if callable(what) else what)


def equal(have, want, what):
    check(have == want, lambda: f'{what}: {have!r}, not {want!r}')


@contextlib.contextmanager
def raises(number, what):
    """The block fails with this errno."""
    try:
        yield
    except OSError as e:
        check(e.errno == number, lambda: f'{what}: {e}, not {os.strerror(number)}')
    else:
        raise Failed(f'{what}: succeeded instead of failing with {os.strerror(number)}')


def options(servers=(None,), soak_servers=(), transports=TRANSPORTS, timeout=60, san=False, soak=False, alone=False,
            needs=()):
    """How a test runs: for each of its shared servers (None = it starts its own) and transports; under sanitizers
    too with san; in long runs only with soak; with nothing beside it with alone. needs: objects beyond the usual."""
    settings = dict(locals())

    def mark(function):
        function.options = settings
        return function
    return mark


def run_program(argv, env=None, timeout=40, **kwargs):
    """(status, standard output and error together) of a program."""
    done = subprocess.run(argv, env=env, timeout=timeout, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, **kwargs)
    return done.returncode, done.stdout


class TestMount(Mount):
    """A mount whose logs outlive it, for the checks after the test."""

    def __init__(self, logs, *args, **kwargs):
        self.logs = logs
        super().__init__(*args, **kwargs)

    def path(self, *names):
        if names[0] == 'log' or names[0].startswith('sanitizer.'):
            return os.path.join(self.logs, f'{os.path.basename(self.private)}.{names[0]}')
        return super().path(*names)

    def log_wait(self, pattern, timeout=5):
        """Waits for a line that matches and returns it."""
        found = []

        def seen():
            found[:] = [line for line in self.log_text().splitlines() if re.search(pattern, line)]
            return bool(found)

        try:
            proc.wait_for(seen, timeout, f'log line /{pattern}/', None)
        except TimeoutError as e:
            raise Failed(f'{e}; the log ends: {self.log_text()[-1500:]}') from None
        return found[0]


class Context:
    def __init__(self, directory, data, server, transport, soak, san):
        self.directory, self.data, self.server, self.transport = directory, data, server, transport
        self.soak, self.san = soak, san
        self.logs = os.path.join(directory, 'logs')
        self.expected_log = []
        self._mounts, self._servers = [], []

    # -- mounts and servers -------------------------------------------------------------------------------------

    def mount(self, server=None, bucket=BUCKET, prefix='', transport=None, background=False, env=None, start=True,
              **opts):
        """A started mount; opts are penstock's long options, with _ for -."""
        named = {name.replace('_', '-'): value for name, value in opts.items()}
        m = TestMount(self.logs, server or self.server, bucket, prefix, transport=transport or self.transport,
                      background=background, options=named, env=env)
        self._mounts.append(m)
        return m.start() if start else m

    def s3d(self, **opts):
        """A server of this test alone."""
        server = S3d(**opts)
        self._servers.append(server)
        return server.start()

    def own(self, server):
        """Starts another server and stops it with the test."""
        self._servers.append(server)
        return server.start()

    def finish(self):
        """Ends what still runs: mounts cleanly, each one must agree."""
        for m in self._mounts:
            if m.process and m.process.poll() is None and is_mounted(m.directory):
                m.stop()
        self.drop()

    def drop(self):
        for m in self._mounts:
            m.clean()
        for server in self._servers:
            server.stop()

    def expect_log(self, pattern):
        """Error lines of the daemon that match are part of the test."""
        self.expected_log.append(pattern)

    # -- programs -----------------------------------------------------------------------------------------------

    def reference(self, name):
        """The local file with the same bytes as the object of this name."""
        return os.path.join(self.data, name)

    def load(self, *files, pattern='seq', errors=False, timeout=None, **opts):
        """penstock-load read: every byte compared; returns its counters. errors: a failed read is allowed."""
        argv = [build_path('bin', 'penstock-load'), 'read', *files, '--pattern', pattern, '--json']
        opts.setdefault('verify', SEED)
        for name, value in opts.items():
            name = '--' + name.replace('_', '-')
            argv += [name] if value is True else [name, str(value)]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=timeout)
        check(done.returncode in (0, 1) and done.stdout, lambda: f'{" ".join(argv)}: status {done.returncode}: '
              f'{done.stderr.strip()}')
        result = json.loads(done.stdout)
        check(not result['wrong_bytes'], lambda: f'{pattern}: WRONG BYTES: {done.stdout.strip()}')
        check(errors or not result['errors'], lambda: f'{pattern}: {result["errors"]} failed: {result["first_error"]}')
        check(errors or result['verified_bytes'] >= result['wanted_bytes'],
              lambda: f'{pattern}: only {result["verified_bytes"]} bytes of {result["wanted_bytes"]} were compared')
        return result

    def penstock(self, *argv, env=None, timeout=30, wrap=()):
        """Runs the program; returns (status, stderr, seconds)."""
        started = time.monotonic()
        done = subprocess.run([*wrap, build_path('bin', 'penstock'), *argv], env=env, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout)
        return done.returncode, done.stderr, time.monotonic() - started


def prepare_child(directory):
    """In the test's process: orphans come to it, its temporary files lie below <directory>."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    os.environ['TMPDIR'] = os.environ[TAG] = directory
    for name in ('ASAN', 'UBSAN', 'LSAN', 'TSAN'):
        path = os.path.join(directory, 'logs', f'program.sanitizer.{name.lower()}')
        os.environ[name + '_OPTIONS'] = f'log_path={path}'


LOG_ERROR = re.compile(r'^\S+Z error ')
REPORT = re.compile(r'ERROR: \w+Sanitizer|WARNING: ThreadSanitizer|runtime error:')


def log_findings(directory, expected):
    """What the logs below <directory>/logs hold that should not be there."""
    findings = []
    for path in sorted(glob.glob(os.path.join(glob.escape(directory), 'logs', '*'))):
        with open(path, errors='replace') as f:
            lines = f.read().splitlines()
        reports = [line for line in lines if REPORT.search(line)]
        if reports or '.sanitizer.' in path and lines:
            findings.append(f'sanitizer report {(reports or lines)[0]}')
        bad = [line for line in lines if LOG_ERROR.match(line) and not any(re.search(e, line) for e in expected)]
        if bad:
            findings.append(f'{len(bad)} unexpected error lines in the log, the first: {bad[0]}')
    return findings
