# SPDX-License-Identifier: Apache-2.0
"""The file system around the bytes: it is read-only, has owners, modes, attributes, locks, and asks the server little."""
import ctypes
import errno
import fcntl
import os
import stat
import subprocess
import time

from harness import BUCKET, MIB, check, equal, options, raises

FAST = ('versitygw',)
REAL = ('versitygw', 'radosgw', 's3d')
NONE = (None,)


def small_server(t, keys=('dir/file', 'dir/other', 'top'), **opts):
    server = t.s3d(memory=True, **opts)
    for key in keys:
        server.declare(BUCKET, key, body=key.encode() * 100)
    return server


def requests_during(server, action):
    before = server.stats()['requests_total']
    action()
    return server.stats()['requests_total'] - before


def refuse_writes(m):
    file, new = m.file('dir/file'), m.file('dir/new')
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND):
        with raises(errno.EROFS, f'open of a file with flags {flags:o}'):
            os.close(os.open(file, flags))
    actions = {
        'create': lambda: os.close(os.open(new, os.O_CREAT | os.O_WRONLY)),
        'create for reading': lambda: os.close(os.open(new, os.O_CREAT | os.O_RDONLY)),
        'unlink': lambda: os.unlink(file), 'rename': lambda: os.rename(file, new), 'link': lambda: os.link(file, new),
        'symlink': lambda: os.symlink('x', new), 'mkdir': lambda: os.mkdir(new), 'rmdir': lambda: os.rmdir(m.file('dir')),
        'mknod': lambda: os.mknod(new, stat.S_IFIFO | 0o600), 'chmod': lambda: os.chmod(file, 0o600),
        'chown': lambda: os.chown(file, 1, 1), 'utime': lambda: os.utime(file), 'truncate': lambda: os.truncate(file, 0),
        'setxattr': lambda: os.setxattr(file, 'user.x', b'1'),
        'removexattr': lambda: os.removexattr(file, 'user.s3.etag')}
    for what, action in actions.items():
        with raises(errno.EROFS, what):
            action()
    with open(file, 'rb') as f:
        for what, action in (('fchmod', lambda: os.fchmod(f.fileno(), 0o600)), ('ftruncate', lambda: os.ftruncate(f.fileno(), 0))):
            try:
                action()
            except OSError as e:
                check(e.errno in (errno.EROFS, errno.EINVAL), f'{what}: {e}')
            else:
                check(False, f'{what} of a read-only file succeeded')


@options(san=True)
def test_writing_is_refused(t):
    m = t.mount(small_server(t))
    refuse_writes(m)
    # Also by the daemon alone, when the kernel does not stand before it.
    libc = ctypes.CDLL(None, use_errno=True)
    MS_REMOUNT, MS_NODEV, MS_NOSUID = 32, 4, 2
    check(libc.mount(b'none', os.fsencode(m.directory), None, MS_REMOUNT | MS_NODEV | MS_NOSUID, None) == 0,
          lambda: f'remount: {os.strerror(ctypes.get_errno())}')
    with raises(errno.EROFS, 'open for writing after a remount'):
        os.close(os.open(m.file('top'), os.O_RDWR))
    for what, action in (('mkdir', lambda: os.mkdir(m.file('n'))), ('unlink', lambda: os.unlink(m.file('top'))),
                         ('create', lambda: os.close(os.open(m.file('n'), os.O_CREAT | os.O_WRONLY))),
                         ('chmod', lambda: os.chmod(m.file('top'), 0o600))):
        try:
            action()
        except OSError as e:
            check(e.errno in (errno.EROFS, errno.ENOSYS), f'{what} after a remount: {e}')
        else:
            check(False, f'{what} after a remount succeeded')
    with open(m.file('top'), 'rb') as f:
        equal(f.read(), b'top' * 100, 'bytes')


@options(san=True)
def test_owner_modes_and_times(t):
    server = small_server(t)
    server.declare(BUCKET, 'dated', body=b'x', mtime=1500000000)
    m = t.mount(server)
    file, directory = os.stat(m.file('dated')), os.stat(m.file('dir'))
    equal((file.st_uid, file.st_gid, stat.S_IMODE(file.st_mode)), (os.getuid(), os.getgid(), 0o644), 'file by default')
    equal((directory.st_uid, directory.st_gid, stat.S_IMODE(directory.st_mode)), (os.getuid(), os.getgid(), 0o755),
          'directory by default')
    equal(file.st_mtime, 1500000000, 'mtime')
    check(stat.S_ISREG(file.st_mode) and stat.S_ISDIR(directory.st_mode), 'types')
    equal(file.st_nlink, 1, 'links of a file')
    equal(file.st_blocks, 1, 'blocks of a file of one byte')
    m = t.mount(server, uid=1234, gid=5678, file_mode='0440', dir_mode='0550', allow_other=True)
    for path, mode in ((m.directory, 0o550), (m.file('dir'), 0o550), (m.file('dir/file'), 0o440)):
        st = os.stat(path)
        equal((st.st_uid, st.st_gid, stat.S_IMODE(st.st_mode)), (1234, 5678, mode), path)
    check(user_can_read(m, t, 1234), 'the owner cannot read with 0440')
    check(not user_can_read(m, t, 4321), 'somebody else can read with 0440')
    m = t.mount(server)
    check(not user_can_read(m, t, 4321), 'somebody else gets in without --allow-other')


def user_can_read(m, t, uid):
    """Modes are the kernel's to check: default_permissions."""
    fd = os.open(m.directory, os.O_RDONLY | os.O_DIRECTORY)
    done = subprocess.run(['setpriv', '--reuid', str(uid), '--regid', '9', '--clear-groups', 'cat', 'dir/file'],
                          preexec_fn=lambda: os.fchdir(fd), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    os.close(fd)
    return done.returncode == 0 and done.stdout == b'dir/file' * 100


@options(servers=REAL, san=True)
def test_attributes_of_the_object(t):
    m = t.mount()
    etag = t.server.client().head(BUCKET, 'chunk').etag
    for path in (m.file('chunk'), m.file('chunk')):
        equal(os.getxattr(path, 'user.s3.etag').decode().strip('"'), etag, 'user.s3.etag')
        equal(os.getxattr(path, 'user.s3.storage_class'), b'STANDARD', 'user.s3.storage_class')
    equal(sorted(os.listxattr(m.file('chunk'))), ['user.s3.etag', 'user.s3.storage_class'], 'names')
    with raises(errno.ENODATA, 'an attribute that is not there'):
        os.getxattr(m.file('chunk'), 'user.nothing')
    equal(os.listxattr(m.directory), [], 'names of a directory')
    with raises(errno.ENODATA, 'an attribute of a directory'):
        os.getxattr(m.directory, 'user.s3.etag')
    vfs = os.statvfs(m.directory)
    equal(vfs.f_namemax, 255, 'f_namemax')
    check(vfs.f_blocks > 0 and vfs.f_bavail > 0 and vfs.f_bsize > 0, f'statfs: {vfs}')


@options(san=True)
def test_storage_class_is_told(t):
    server = t.s3d(memory=True)
    server.declare(BUCKET, 'cold', size=10, storage_class='STANDARD_IA')
    m = t.mount(server)
    equal(os.getxattr(m.file('cold'), 'user.s3.storage_class'), b'STANDARD_IA', 'by lookup')
    os.listdir(m.directory)
    equal(os.getxattr(m.file('cold'), 'user.s3.storage_class'), b'STANDARD_IA', 'by listing')


def in_child(action):
    pid = os.fork()
    if pid == 0:
        try:
            action()
            os._exit(0)
        except OSError as e:
            os._exit(e.errno)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@options(servers=FAST, san=True)
def test_locks_are_local(t):
    m = t.mount()
    path = m.file('chunk')
    with open(path, 'rb') as holder:
        fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)

        def flock_other():
            with open(path, 'rb') as f:
                fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)

        equal(in_child(flock_other), errno.EWOULDBLOCK, 'flock() beside an exclusive one')
        fcntl.flock(holder, fcntl.LOCK_UN)
        equal(in_child(flock_other), 0, 'flock() after it is gone')
        fcntl.lockf(holder, fcntl.LOCK_SH | fcntl.LOCK_NB, 100, 0)

        def lockf_other():
            with open(path, 'rb') as f:
                fcntl.lockf(f, fcntl.LOCK_SH | fcntl.LOCK_NB, 100, 0)

        equal(in_child(lockf_other), 0, 'a second shared fcntl() lock')
        with raises(errno.EBADF, 'an exclusive fcntl() lock of a read-only descriptor'):
            fcntl.lockf(holder, fcntl.LOCK_EX | fcntl.LOCK_NB, 100, 0)


@options(san=True)
def test_inode_numbers_are_stable(t):
    server = small_server(t)

    def numbers():
        with t.mount(server) as m:
            found = {path: os.stat(m.file(path)).st_ino for path in ('dir', 'dir/file', 'dir/other', 'top')}
            with os.scandir(m.file('dir')) as entries:
                for e in entries:
                    equal(e.inode(), found['dir/' + e.name], f'd_ino of {e.name}')
            return found

    first = numbers()
    equal(len(set(first.values())), len(first), 'different numbers')
    equal(numbers(), first, 'after a remount')


@options(san=True)
def test_open_costs_no_request(t):
    server = small_server(t)
    m = t.mount(server)
    os.stat(m.file('dir/file'))

    def open_often():
        for _ in range(20):
            with open(m.file('dir/file'), 'rb') as f:
                os.fstat(f.fileno())

    equal(requests_during(server, open_often), 0, 'S3 requests of 20 opens')
    os.listdir(m.file('dir'))

    def open_listed():
        for name in ('file', 'other'):
            with open(m.file('dir', name), 'rb') as f:
                check(f.read(1), 'no byte')
            os.stat(m.file('dir', name))

    requests = requests_during(server, open_listed)
    check(requests <= 2, f'{requests} S3 requests to read two listed files of one chunk')


@options(san=True)
def test_names_that_are_missing_are_remembered(t):
    server = small_server(t)
    m = t.mount(server)

    def miss(name):
        with raises(errno.ENOENT, name):
            os.stat(m.file(name))

    check(requests_during(server, lambda: miss('nothing')) > 0, 'a first look costs a request')
    equal(requests_during(server, lambda: [miss('nothing') for _ in range(20)]), 0, 'requests of 20 more looks')
    with raises(errno.ENOTDIR, 'below a file'):
        os.stat(m.file('top/x'))
    with raises(errno.ENAMETOOLONG, 'a name of 256 bytes'):
        os.stat(m.file('n' * 256))
    miss('n' * 255)


@options(timeout=30, san=True)
def test_metadata_lives_as_long_as_said(t):
    server = small_server(t)
    always, second, minute = (t.mount(server, metadata_ttl=ttl) for ttl in ('0', '1s', '60s'))
    for m in (always, second, minute):
        equal(os.stat(m.file('top')).st_size, 300, 'size')
    equal(requests_during(server, lambda: [os.stat(minute.file('top')) for _ in range(20)]), 0, 'requests within the TTL')
    check(requests_during(server, lambda: os.stat(always.file('top'))) > 0, 'a TTL of 0 asks every time')
    server.declare(BUCKET, 'top', body=b'longer' * 100)
    equal(os.stat(always.file('top')).st_size, 600, 'size with a TTL of 0')
    time.sleep(1.2)
    equal(os.stat(second.file('top')).st_size, 600, 'size after a TTL of 1 s')
    equal(os.stat(minute.file('top')).st_size, 300, 'size within a TTL of 60 s')
    with open(second.file('top'), 'rb') as f:
        equal(f.read(), b'longer' * 100, 'bytes')


@options(san=True)
def test_prefix_is_the_root(t):
    server = small_server(t, ('a/b/c/file', 'a/b/other', 'a/bc/hidden', 'a/b2'))
    for prefix in ('a/b', 'a/b/'):
        with t.mount(server, prefix=prefix) as m:
            equal(sorted(os.listdir(m.directory)), ['c', 'other'], f'names below {prefix}')
            with open(m.file('c/file'), 'rb') as f:
                equal(f.read(), b'a/b/c/file' * 100, 'bytes')
    with t.mount(server, prefix='a/nothing') as m:
        equal(os.listdir(m.directory), [], 'names below a prefix without keys')


@options(servers=FAST)
def test_tools_work(t):
    m = t.mount()
    for command in (['cp', m.file('chunk+1'), t.directory + '/copy'], ['tar', '-cf', '/dev/null', '-C', m.directory, 'chunk'],
                    ['find', m.directory, '-size', '+1M'], ['ls', '-la', m.directory], ['du', '-s', m.directory],
                    ['cmp', m.file('chunk+1'), t.reference('chunk+1')], ['df', m.directory], ['stat', m.file('one')],
                    ['grep', '-c', 'x', m.file('chunk')]):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        check(done.returncode == 0, lambda: f'{" ".join(command)}: {done.stdout}')
    equal(os.path.getsize(t.directory + '/copy'), 8 * MIB + 1, 'size of the copy')
