# SPDX-License-Identifier: Apache-2.0
"""Mounts under test: start, wait until mounted, cost from /proc, unmount, and a check that nothing stays behind.

    with Mount(server, 'bucket', transport='io_uring') as m:
        open(os.path.join(m.directory, 'file'), 'rb').read()
        m.stats()['requests_io_uring']
"""
import atexit
import contextlib
import glob
import json
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile

import proc
from build import build_path

SWITCH = '/sys/module/fuse/parameters/enable_uring'
READY = re.compile(r'ready: .*\btransport (io_uring|dev)\b')
SANITIZERS = ('ASAN_OPTIONS', 'UBSAN_OPTIONS', 'TSAN_OPTIONS', 'LSAN_OPTIONS')


class MountError(Exception):
    """The mount did not come up, or did not go away cleanly."""


def is_mounted(directory):
    """Reads the mount table alone: a dead mount must not be touched."""
    escaped = directory.replace('\\', '\\134').replace(' ', '\\040').replace('\t', '\\011').replace('\n', '\\012')
    with open('/proc/self/mountinfo') as f:
        return any(line.split()[4] == escaped for line in f)


@contextlib.contextmanager
def io_uring_switched_on():
    """fuse.enable_uring on for a while, where the kernel has it; as it was before afterwards. Says what it changes."""
    try:
        with open(SWITCH) as f:
            before = f.read().strip()
    except FileNotFoundError:
        before = 'Y'
    if before == 'N':
        _switch('Y')
        print('fuse.enable_uring was off: it is on for this run', flush=True)
    try:
        yield
    finally:
        if before == 'N':
            _switch('N')


def _switch(value):
    with open(SWITCH, 'w') as f:
        f.write(value)


class FuseProcess:
    """A FUSE daemon in the foreground and its mount point. Subclasses give name, command() and environment()."""
    name = 'fuse'
    start_timeout = 20
    stop_timeout = 20

    def __init__(self, server, bucket, prefix=''):
        self.server, self.bucket, self.prefix = server, bucket, prefix
        self.process = None
        self.private = tempfile.mkdtemp(prefix=f'penstock-mnt-{self.name}-')
        self.directory = os.path.join(self.private, 'mnt')
        os.mkdir(self.directory)
        atexit.register(self.clean)

    def command(self):
        raise NotImplementedError

    def environment(self):
        return self.server.full_environment()

    def ready(self):
        return is_mounted(self.directory)

    def start(self):
        try:
            with open(self.path('log'), 'ab') as log:
                self.process = proc.spawn(self.command(), stdout=log, stderr=subprocess.STDOUT, env=self.environment())
            proc.wait_for(self.ready, self.start_timeout, f'{self.name}: mount', self.process)
        except (RuntimeError, TimeoutError) as e:
            text = self.log_text()[-1000:]
            self.clean()
            raise MountError(f'{e}; its log ends: {text}') from None
        except BaseException:
            self.clean()
            raise
        return self

    def path(self, *names):
        return os.path.join(self.private, *names)

    def file(self, *names):
        return os.path.join(self.directory, *names)

    def log_text(self):
        try:
            with open(self.path('log'), errors='replace') as f:
                return f.read()
        except FileNotFoundError:
            return ''

    # -- cost ---------------------------------------------------------------------------------------------------

    def pids(self):
        return proc.tree(self.process.pid)

    def cpu_seconds(self):
        return proc.cpu_seconds(self.pids())

    def rss_bytes(self):
        return proc.status_bytes(self.pids(), 'VmRSS')

    def peak_rss_bytes(self):
        return proc.status_bytes(self.pids(), 'VmHWM')

    # -- end ----------------------------------------------------------------------------------------------------

    def unmount_command(self):
        return ['umount', self.directory]

    def stop(self):
        """A clean unmount: the command succeeds, the daemon ends with status 0 and no mount is left."""
        try:
            done = subprocess.run(self.unmount_command(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                  timeout=self.stop_timeout)
            if done.returncode:
                raise MountError(f'{self.name}: unmount: status {done.returncode}: {done.stdout}')
            try:
                status = self.process.wait(self.stop_timeout)
            except subprocess.TimeoutExpired:
                raise MountError(f'{self.name}: the daemon lives on {self.stop_timeout} s after the unmount') from None
            if is_mounted(self.directory):
                raise MountError(f'{self.name}: {self.directory} is still mounted')
            self.check_end(status)
        finally:
            self.clean()

    def check_end(self, status):
        """Peers are not under test: how they end is their own affair."""

    def clean(self):
        """Leaves nothing, whatever happened before."""
        atexit.unregister(self.clean)
        if self.process:
            proc.stop(self.process, timeout=2)
        while is_mounted(self.directory):
            if subprocess.run(['umount', '-l', self.directory], stderr=subprocess.DEVNULL).returncode:
                break
        shutil.rmtree(self.private, ignore_errors=True)

    def __enter__(self):
        return self if self.process else self.start()

    def __exit__(self, kind, *rest):
        if kind is None:
            self.stop()
        else:
            self.clean()


class Mount(FuseProcess):
    """`penstock mount`. options are long options without dashes: {'memory': '64MiB', 'no-sign-request': True}."""
    name = 'penstock'

    def __init__(self, server, bucket, prefix='', transport=None, background=False, options=None, env=None):
        super().__init__(server, bucket, prefix)
        self.binary = build_path('bin', 'penstock')
        self.transport_wanted, self.background = transport, background
        self.options, self.env = dict(options or {}), dict(env or {})
        self.volume_id = self.options.setdefault('volume-id', os.path.basename(self.private))
        self.run_directory = self.path('run')
        os.mkdir(self.run_directory)

    def tree(self, *names):
        """A file of the tuning tree."""
        return os.path.join(self.run_directory, 'volumes', self.volume_id, *names)

    def get(self, name):
        with open(self.tree(name)) as f:
            return f.read().rstrip('\n')

    def set(self, name, value):
        with open(self.tree(name), 'wb', buffering=0) as f:
            f.write(value if isinstance(value, bytes) else f'{value}\n'.encode())

    def clean(self):
        if is_mounted(self.tree()):
            self._clean_tree()
        super().clean()

    def _clean_tree(self):
        if self.process:
            proc.stop(self.process, timeout=2)
        subprocess.run(['umount', '-l', self.tree()], stderr=subprocess.DEVNULL)

    def command(self):
        argv = [self.binary, 'mount', f's3://{self.bucket}/{self.prefix}'.rstrip('/'), self.directory,
                '--endpoint-url', self.server.endpoint, '--region', self.server.region]
        if self.server.ca:
            argv += ['--ca-bundle', os.path.abspath(self.server.ca)]
        if self.transport_wanted:
            argv += ['--transport', self.transport_wanted]
        if self.background:
            argv += ['--log-file', self.path('log')]
        else:
            argv += ['--foreground']
        for name, value in self.options.items():
            argv += [f'--{name}'] if value is True else [f'--{name}', str(value)]
        return argv

    def environment(self):
        env = dict(super().environment(), PENSTOCK_RUN_DIR=self.run_directory)
        for name in SANITIZERS:
            options = f'log_path={self.path("sanitizer." + name.split("_")[0].lower())}'
            env[name] = ':'.join(filter(None, (os.environ.get(name), options)))
        env.update(self.env)
        return {k: v for k, v in env.items() if v is not None}

    def ready(self):
        return is_mounted(self.directory) and READY.search(self.log_text()) is not None

    def start(self):
        if not self.background:
            return super().start()
        try:
            done = subprocess.run(self.command(), env=self.environment(), stdin=subprocess.DEVNULL, text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=self.start_timeout)
            if done.returncode:
                raise MountError(f'penstock mount: status {done.returncode}: {done.stdout}')
            if not is_mounted(self.directory):
                raise MountError('penstock mount returned 0 and nothing is mounted')
            self.process = _Foreign(self._find_daemon())
        except BaseException:
            self.clean()
            raise
        return self

    def _find_daemon(self):
        for pid in filter(str.isdigit, os.listdir('/proc')):
            try:
                with open(f'/proc/{pid}/cmdline', 'rb') as f:
                    if os.fsencode(self.directory) in f.read().split(b'\0'):
                        return int(pid)
            except (FileNotFoundError, ProcessLookupError):
                pass
        raise MountError('penstock mount returned 0 and no daemon serves the mount')

    @property
    def transport(self):
        """The transport really used, as the daemon's log says."""
        return READY.search(self.log_text()).group(1)

    @property
    def stats_path(self):
        return os.path.join(self.run_directory, 'volumes', self.volume_id + '.stats')

    def stats(self, timeout=5):
        """The daemon's counters of this moment."""
        before = self._stats_stamp()
        os.kill(self.process.pid, signal.SIGUSR1)
        proc.wait_for(lambda: self._stats_stamp() not in (None, before), timeout, 'penstock: stats', self.process,
                      interval=0.005)
        with open(self.stats_path) as f:
            return json.load(f)

    def _stats_stamp(self):
        try:
            st = os.stat(self.stats_path)
            return st.st_ino, st.st_mtime_ns
        except FileNotFoundError:
            return None

    def sanitizer_reports(self):
        text = []
        for path in sorted(glob.glob(glob.escape(self.path('sanitizer.')) + '*')):
            with open(path, errors='replace') as f:
                text.append(f.read())
        return '\n'.join(filter(None, text))

    def unmount_command(self):
        return [self.binary, 'unmount', self.directory]

    def check_end(self, status):
        reports = self.sanitizer_reports()
        if reports:
            raise MountError(f'penstock: sanitizer reports:\n{reports}')
        if status:
            raise MountError(f'penstock: the daemon ended with status {status}: {self.log_text()[-1000:]}')

    def kill(self):
        """SIGKILL, as a crash would look to the readers."""
        os.kill(self.process.pid, signal.SIGKILL)


class _Foreign:
    """A daemon that is no child of ours, behind as much of Popen as stopping it needs."""
    returncode = None

    def __init__(self, pid):
        self.pid = pid
        self.fd = os.pidfd_open(pid)

    def __del__(self):
        os.close(self.fd)

    def poll(self):
        if select.select([self.fd], [], [], 0)[0]:
            self.returncode = 0
        return self.returncode

    def terminate(self):
        signal.pidfd_send_signal(self.fd, signal.SIGTERM)

    def wait(self, timeout=None):
        if not select.select([self.fd], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired('penstock', timeout)
        self.returncode = 0
        return 0
