# SPDX-License-Identifier: Apache-2.0
"""Birth and death: signals, crashes, unmounts at any moment, fstab's way of mounting, memory given back."""
import concurrent.futures
import errno
import mmap
import os
import signal
import subprocess
import time

import proc
from build import build_path
from fixtures import BIG
from harness import BUCKET, MIB, check, equal, options, raises, run_program
from mnt import MountError, is_mounted

FAST = ('versitygw',)
NONE = (None,)


def penstock_of(m, *argv, timeout=30):
    return run_program([m.binary, *argv], m.environment(), timeout)


class Readers:
    """Processes that read a file over and over until they fail, or are told to stop."""

    def __init__(self, path, count=4):
        self.results = os.pipe()
        self.pids = []
        for n in range(count):
            pid = os.fork()
            if pid == 0:
                os._exit(self.read(path, n))
            self.pids.append(pid)
        os.close(self.results[1])

    def read(self, path, n):
        number = 0
        try:
            fd = os.open(path, os.O_RDONLY | (os.O_DIRECT if n % 2 else 0))
            size, buffer, at = os.fstat(fd).st_size, mmap.mmap(-1, MIB), n * 7 * MIB
            while True:
                os.preadv(fd, [buffer], at % (size - MIB) & ~4095)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                at += 3 * MIB
        except OSError as e:
            number = e.errno
        return number

    def wait(self, seconds):
        """The errno that ended each reader; one that does not end is an error."""
        deadline = time.monotonic() + seconds
        ended = {}
        while len(ended) < len(self.pids):
            for pid in self.pids:
                if pid not in ended and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                    ended[pid] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            check(time.monotonic() < deadline, lambda: f'{len(self.pids) - len(ended)} readers hang after {seconds} s')
            time.sleep(0.01)
        self.pids = []
        return set(ended.values())

    def stop(self):
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)
        for pid in self.pids:
            os.waitpid(pid, 0)
        self.pids = []


# The kernel ends what is on an io_uring queue of a dead daemon with ECANCELED.
ENDED = {errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.ECANCELED}


@options(servers=FAST, timeout=60, san=True)
def test_killed_daemon(t):
    m = t.mount(memory='64MiB')
    readers = Readers(m.file(BIG))
    held = os.open(m.file('chunk'), os.O_RDONLY)
    time.sleep(0.5)
    m.kill()
    errors = readers.wait(1 if not t.san else 5)
    check(errors <= ENDED, f'errors of the readers: {errors}')
    with raises(errno.ENOTCONN, 'stat() of a dead mount'):
        os.stat(m.file('one'))
    m.process.wait(5)
    check(is_mounted(m.directory), 'the mount went away by itself')
    equal(penstock_of(m, 'unmount', m.directory), (0, ''), 'penstock unmount of a dead mount')
    check(not is_mounted(m.directory), 'the dead mount is still there')
    os.close(held)
    again = t.mount(start=False)
    again.directory = m.directory
    again.start()
    t.load(again.file('chunk+1'))
    again.stop()


@options(servers=FAST, timeout=60, san=True)
def test_terminated_under_load(t):
    m = t.mount(memory='64MiB')
    readers = Readers(m.file(BIG))
    time.sleep(0.5)
    started = time.monotonic()
    m.process.send_signal(signal.SIGTERM)
    status = m.process.wait(20)
    seconds = time.monotonic() - started
    errors = readers.wait(2)
    equal(status, 0, 'exit status')
    check(errors <= ENDED, f'errors of the readers: {errors}')
    check(not is_mounted(m.directory), 'still mounted')
    check(seconds < 10, f'the daemon took {seconds:.1f} s to end')


@options(servers=FAST, timeout=60, san=True)
def test_readers_finish_after_sigterm(t):
    m = t.mount()
    with open(m.file('middle'), 'rb') as f, open(t.reference('middle'), 'rb') as want:
        check(f.read(MIB) == want.read(MIB), 'bytes before')
        m.process.send_signal(signal.SIGTERM)
        proc.wait_for(lambda: not is_mounted(m.directory), 5, 'detached')
        check(f.read() == want.read(), 'an open file cannot be read to its end after SIGTERM')
    equal(m.process.wait(10), 0, 'exit status')


@options(servers=FAST, timeout=60, san=True)
def test_unmount_idle_and_busy(t):
    m = t.mount()
    held = os.open(m.file('chunk'), os.O_RDONLY)
    status, text = penstock_of(m, 'unmount', m.directory)
    check(status != 0 and 'in use' in text and str(os.getpid()) in text, f'unmount of a busy mount: {status}: {text!r}')
    equal(text.count('\n'), 1, f'lines of {text!r}')
    equal(len(os.pread(held, 100, 0)), 100, 'bytes read after it')
    os.close(held)
    equal(penstock_of(m, 'unmount', m.directory), (0, ''), 'unmount of an idle mount')
    equal(m.process.wait(5), 0, 'exit status')
    status, text = penstock_of(m, 'unmount', m.directory)
    check(status != 0 and 'nothing is mounted' in text, f'a second unmount: {status}: {text!r}')


@options(servers=FAST, timeout=60, san=True)
def test_lazy_unmount(t):
    m = t.mount()
    with open(m.file('middle'), 'rb') as f, open(t.reference('middle'), 'rb') as want:
        equal(penstock_of(m, 'unmount', '--lazy', m.directory), (0, ''), 'lazy unmount')
        check(not is_mounted(m.directory), 'still mounted')
        check(f.read() == want.read(), 'the open file has other bytes')
    equal(m.process.wait(10), 0, 'exit status')


@options(servers=FAST, timeout=60, san=True)
def test_umount_under_load(t):
    m = t.mount(memory='64MiB')
    readers = Readers(m.file(BIG))
    time.sleep(0.3)
    equal(subprocess.run(['umount', '-l', m.directory]).returncode, 0, 'umount -l')
    time.sleep(0.3)
    equal(m.process.poll(), None, 'the daemon serves open files')
    readers.stop()
    equal(m.process.wait(10), 0, 'exit status')


@options(servers=FAST, timeout=60, san=True)
def test_in_the_background(t):
    m = t.mount(background=True)
    t.load(m.file('chunk+1'))
    check(m.stats()['reads'] > 0, 'stats')
    with open(f'{m.run_directory}/volumes/{m.volume_id}.pid') as f:
        equal(f.read(), f'{m.process.pid}\n{m.directory}\n', 'pid file')
    equal(os.readlink(f'/proc/{m.process.pid}/cwd'), '/', 'working directory')
    m.stop()
    check(not os.path.exists(f'{m.run_directory}/volumes/{m.volume_id}.pid'), 'the pid file is left')


def mount_helper(t, m, *extra, words=''):
    """As mount(8) calls it for a line of fstab."""
    options_text = (f'rw,nosuid,_netdev,endpoint_url={t.server.endpoint},region=us-east-1,transport={t.transport},'
                    f'volume-id={m.volume_id},log-file={m.path("log")}{words}')
    return run_program([build_path('bin', 'mount.penstock'), f's3://{BUCKET}', m.directory, *extra, '-o', options_text],
                       m.environment())


@options(servers=FAST, timeout=60, san=True)
def test_mount_helper_of_fstab(t):
    m = t.mount(start=False)
    equal((*mount_helper(t, m, '-f'), is_mounted(m.directory)), (0, '', False), 'only checked with -f')
    status, text = mount_helper(t, m, words=',no_such_option')
    check(status != 0 and 'no_such_option' in text, f'an unknown option: {status} {text!r}')
    status, text = mount_helper(t, m, '-s', words=',no_such_option')
    equal(status, 0, f'an unknown option with -s: {text!r}')
    t.load(m.file('chunk+1'))
    with open('/proc/self/mountinfo') as f:
        line = next(line for line in f if m.directory in line)
    check(f'penstock s3://{BUCKET} ' in line and ' ro,' in line and 'nosuid' in line, f'mountinfo: {line!r}')
    equal(penstock_of(m, 'unmount', m.directory), (0, ''), 'unmount')
    status, text = mount_helper(t, m)
    equal(status, 0, f'mounted: {text!r}')
    check(is_mounted(m.directory), 'a status of 0, and nothing is mounted')
    equal(subprocess.run(['umount', m.directory]).returncode, 0, 'umount')


@options(servers=FAST, transports=NONE, timeout=60)
def test_mount_command_finds_the_helper(t):
    """mount(8) looks in /sbin alone: a private mount namespace has the helper there."""
    m = t.mount(start=False, transport='auto')
    script = ('set -e; mkdir -p "$1/upper" "$1/work"; mount -t tmpfs none "$1"; mkdir "$1/upper" "$1/work"; '
              'mount -t overlay overlay -o lowerdir=/usr/sbin,upperdir="$1/upper",workdir="$1/work" /usr/sbin; '
              'ln -s "$2" /usr/sbin/mount.penstock; mount -t penstock -o "$3" "$4" "$5" >/dev/null; '
              'cat "$5/one" >/dev/null; '
              'grep -c " $5 " /proc/self/mountinfo; umount "$5"')
    words = f'endpoint_url={t.server.endpoint},region=us-east-1,volume-id={m.volume_id},log-file={m.path("log")}'
    os.mkdir(os.path.join(t.directory, 'layers'))
    done = run_program(['unshare', '-m', '--propagation', 'private', 'sh', '-c', script, 'sh',
                        os.path.join(t.directory, 'layers'), build_path('bin', 'penstock'), words, f's3://{BUCKET}',
                        m.directory], m.environment())
    equal(done, (0, '1\n'), 'mount -t penstock')


@options(servers=FAST, timeout=90)
def test_mounts_beside_each_other(t):
    mounts = [t.mount(memory='64MiB') for _ in range(4)]
    with concurrent.futures.ThreadPoolExecutor(len(mounts)) as pool:
        for load in [pool.submit(t.load, m.file('middle'), pattern='pread', jobs=2) for m in mounts]:
            load.result()
    mounts[1].kill()
    mounts[1].process.wait(5)
    for m in (mounts[0], mounts[2], mounts[3]):
        t.load(m.file('chunk+1'))


@options(servers=FAST, timeout=120, san=True)
def test_mounted_and_unmounted_over_and_over(t):
    for n in range(60 if t.soak else 12):
        with t.mount(memory='32MiB') as m:
            equal(m.transport, t.transport, f'transport of mount {n}')
            if n % 3:
                with open(m.file('one'), 'rb') as f:
                    f.read()


@options(servers=FAST, timeout=150)
def test_idle_memory_is_given_back(t):
    m = t.mount(memory='256MiB')
    t.load(m.file(BIG), pattern='io_uring-direct')
    busy = m.rss_bytes()
    check(busy > 96 * MIB, f'only {busy >> 20} MiB are in use after reading 256 MiB with O_DIRECT')
    proc.wait_for(lambda: m.rss_bytes() < 64 * MIB, 90, f'less than 64 of {busy >> 20} MiB in use when idle', m.process)
    t.load(m.file('chunk+1'), m.file('middle'))


@options(servers=FAST, timeout=60)
def test_starting_twice_at_once(t):
    """Two starts on one place at the same moment: one mounts, the other is refused."""
    first, second = t.mount(start=False, background=True), t.mount(start=False, background=True)
    second.directory = first.directory
    second.options['volume-id'] = first.options['volume-id']
    second.volume_id, second.run_directory = first.volume_id, first.run_directory
    started = [subprocess.Popen(m.command(), env=m.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True) for m in (first, second)]
    texts = [process.communicate(timeout=20)[0] for process in started]
    equal(sorted(process.returncode for process in started), [0, 1], f'statuses; {texts}')
    check(sum('used by' in text or 'in use' in text or 'already' in text for text in texts) == 1, f'sentences: {texts}')
    with open('/proc/self/mountinfo') as f:
        equal(sum(line.split()[4] == first.directory for line in f), 1, 'mounts')
    equal(penstock_of(first, 'unmount', first.directory), (0, ''), 'unmount')


@options(servers=FAST, timeout=60, san=True)
def test_killed_while_starting(t):
    """A start that is killed at any moment leaves nothing that a new start cannot put away."""
    for delay_ms in (1, 5, 20, 60):
        m = t.mount(start=False, background=True)
        null = subprocess.DEVNULL
        process = subprocess.Popen(m.command(), env=m.environment(), stdin=null, stdout=null, stderr=null,
                                   start_new_session=True)
        time.sleep(delay_ms / 1000)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        try:
            proc.wait_for(lambda: is_mounted(m.directory), 1, 'a mount by the daemon alone')
        except TimeoutError:
            pass
        if is_mounted(m.directory):
            equal(penstock_of(m, 'unmount', m.directory)[0], 0, f'unmount after a start killed at {delay_ms} ms')
        with t.mount() as again:
            t.load(again.file('one'))


def test_wrong_mount_is_an_error(t):
    """The harness itself: a mount that does not come up is told, not taken as one."""
    server = t.s3d(memory=True)
    try:
        t.mount(server, bucket='nothing-there')
    except MountError as e:
        check('NoSuchBucket' in str(e), str(e))
    else:
        check(False, 'a mount of a missing bucket came up')
