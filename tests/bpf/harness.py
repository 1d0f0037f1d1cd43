# SPDX-License-Identifier: Apache-2.0
"""What a BPF test gets: file systems to read, tracers that run beside it, and a look at what is pinned and loaded."""
import contextlib
import json
import mmap
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'lib'))

from build import ROOT, build_path  # noqa: E402

PAGE = 4096
MIB = 1 << 20
MADV_POPULATE_READ = 22
DIRECTORIES = ('links', 'progs', 'maps')


class Failed(Exception):
    """The test saw something wrong."""


def check(condition, what):
    if not condition:
        raise Failed(what() if callable(what) else what)


def equal(have, want, what):
    check(have == want, lambda: f'{what}: {have!r}, not {want!r}')


def eventually(condition, what, timeout=5):
    deadline = time.monotonic() + timeout
    while not condition():
        check(time.monotonic() < deadline, what)
        time.sleep(0.02)


def run(*argv, **kwargs):
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=30, **kwargs)
    check(done.returncode == 0, lambda: f'{" ".join(argv)}: status {done.returncode}: {done.stdout.strip()}')
    return done.stdout


def bpftool(*argv):
    return json.loads(run('bpftool', '-j', *argv))


def in_kernel(kind, name=None):
    """Ids of all programs, links or maps, or of those with a name; bpftool gives up when one ends while it looks."""
    for _ in range(20):
        with contextlib.suppress(Failed):
            return {entry['id'] for entry in bpftool(kind, 'list') if name in (None, entry.get('name'))}
    raise Failed(f'bpftool {kind} list fails time and again')


class Tracer:
    """A volume's process: tests/bpf/tracer.c."""

    def __init__(self, bench, path, name, ring_bytes=0, options=()):
        self.lines, self.accesses = queue.Queue(), []
        self.log = []
        # It ends with its standard input, and so with this process.
        self.process = subprocess.Popen([*bench.tracer_command(options), 'start', path, name, str(ring_bytes)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True, bufsize=1)
        for stream in (self._answers, self._errors):
            threading.Thread(target=stream, daemon=True).start()
        first = self.answer()
        check('ready' in first, lambda: f'tracer: {first} {"".join(self.log)}')
        self.dev = first['ready']

    def _answers(self):
        for line in self.process.stdout:
            entry = json.loads(line)
            if 'kind' in entry:
                self.accesses.append(entry)
            else:
                self.lines.put(entry)
        self.lines.put({'ended': True})

    def _errors(self):
        for line in self.process.stderr:
            self.log.append(line)

    def answer(self, timeout=20):
        return self.lines.get(timeout=timeout)

    def tell(self, text):
        self.process.stdin.write(text + '\n')
        self.process.stdin.flush()

    def ask(self, text):
        self.tell(text)
        return self.answer()

    def drops(self):
        return self.ask('drops')

    def seen(self, condition, what, timeout=5):
        """Waits until the accesses so far fulfil the condition, and returns them."""
        def now():
            return condition(list(self.accesses))
        eventually(now, lambda: f'{what}; seen: {self.accesses[-20:]}', timeout)
        return list(self.accesses)

    def stop(self):
        """Says goodbye; all that was read before has been told after this."""
        self.tell('stop')
        status = self.process.wait(20)
        equal(status, 0, 'status of the tracer')
        eventually(lambda: not self.lines.empty() and self.lines.queue[-1] == {'ended': True}, 'end of its output')
        return self.accesses

    def kill(self):
        self.process.kill()
        self.process.wait()


class Bench:
    """The directories of one test. The BPF file system is its own, mounted by whoever needs it first."""

    def __init__(self, directory):
        self.directory = directory
        self.bpffs, self.run_dir = os.path.join(directory, 'bpf'), os.path.join(directory, 'run')
        os.mkdir(self.bpffs)
        self.tracers, self.undo = [], contextlib.ExitStack()

    # -- tracers ------------------------------------------------------------------------------------------------

    def tracer_command(self, options=(), run_dir=None):
        return [build_path('tests', 'bpf', 'tracer'), '--run-dir', run_dir or self.run_dir, '--bpffs', self.bpffs, *options]

    def tracer(self, path, name='volume', **kwargs):
        t = Tracer(self, path, name, **kwargs)
        self.tracers.append(t)
        return t

    def command(self, *argv, wrap=(), options=()):
        """clean, unload, programs, probe; returns the lines, the last is {'rc': …, 'message': …}."""
        done = subprocess.run([*wrap, *self.tracer_command(options), *argv], stdin=subprocess.DEVNULL, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
        check(done.stdout, lambda: f'tracer {argv}: status {done.returncode}: {done.stderr}')
        return [json.loads(line) for line in done.stdout.splitlines()]

    # -- file systems -------------------------------------------------------------------------------------------

    def disk(self, name):
        """A file system of its own with "file" on it, 8 MiB, all of it in the page cache as single pages."""
        image, directory = os.path.join(self.directory, name + '.img'), os.path.join(self.directory, name)
        with open(image, 'wb') as f:
            f.truncate(48 * MIB)
        os.mkdir(directory)
        run('mkfs.ext4', '-q', '-F', image)
        # With data in its journal, ext4 has no large folios: FUSE has none either.
        run('mount', '-o', 'loop,data=journal', image, directory)
        self.undo.callback(run, 'umount', '-l', directory)
        with open(os.path.join(directory, 'file'), 'wb') as f:
            f.write(os.urandom(8 * MIB))
        run('sync', '-f', directory)
        with open(os.path.join(directory, 'file'), 'rb') as f:
            check(len(f.read()) == 8 * MIB, 'cannot read the disk')
        return directory

    def cgroup(self):
        """(directory, id) of a fresh group of the version 2 hierarchy."""
        with open('/proc/mounts') as f:
            root = next(line.split()[1] for line in f if line.split()[2] == 'cgroup2')
        directory = tempfile.mkdtemp(prefix='penstock-test-', dir=root)
        self.undo.callback(os.rmdir, directory)
        return directory, os.stat(directory).st_ino

    # -- what is there ------------------------------------------------------------------------------------------

    def pin(self, *names):
        return os.path.join(self.bpffs, 'penstock', *names)

    def dump(self, name):
        """A pinned map as bpftool shows it: [{'key': …, 'value': …}]."""
        return [entry['formatted'] for entry in bpftool('map', 'dump', 'pinned', self.pin('maps', name))]

    def program_ids(self):
        return {name: bpftool('prog', 'show', 'pinned', self.pin('progs', name))['id']
                for name in os.listdir(self.pin('progs'))}

    def pinned_ids(self):
        """{'prog': ids, 'link': ids, 'map': ids} of all that is pinned."""
        kinds = {'prog': 'progs', 'link': 'links', 'map': 'maps'}
        return {kind: {bpftool(kind, 'show', 'pinned', self.pin(directory, name))['id']
                       for name in os.listdir(self.pin(directory))} for kind, directory in kinds.items()}

    def check_gone(self, ids):
        """None of these is in the kernel any more, and nothing is pinned."""
        def left():
            return {kind: found for kind, wanted in ids.items()
                    if (found := wanted & in_kernel(kind))}
        eventually(lambda: not left(), lambda: f'still in the kernel: {left()}')
        check(not os.path.exists(self.pin()), 'pins are left')

    def finish(self):
        for t in self.tracers:
            if t.process.poll() is None:
                t.kill()
        self.tracers = []
        if os.path.ismount(self.bpffs):
            with contextlib.suppress(Failed):
                self.command('unload')
            if os.path.ismount(self.bpffs):
                run('umount', self.bpffs)
        self.undo.close()
        shutil.rmtree(self.directory)


def in_child(work, cgroup=None):
    """Runs work(*) in a process of its own, in a control group if one is given; returns its pid."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            if cgroup:
                with open(os.path.join(cgroup, 'cgroup.procs'), 'w') as f:
                    f.write(str(os.getpid()))
            work()
            status = 0
        finally:
            os._exit(status)
    equal(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0, 'status of the reading process')
    return pid


@contextlib.contextmanager
def opened(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def mapped(path):
    with opened(path) as fd, mmap.mmap(fd, 0, prot=mmap.PROT_READ) as m:
        yield m


def covered(accesses, **want):
    """The pages that accesses with these members cover, as a sorted list of numbers."""
    pages = set()
    for a in accesses:
        if all(a[k] == v for k, v in want.items()):
            pages |= set(range(a['offset'] // PAGE, -(-(a['offset'] + a['len']) // PAGE)))
    return sorted(pages)


__all__ = [name for name in globals() if not name.startswith('_')]
