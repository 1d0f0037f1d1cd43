# SPDX-License-Identifier: Apache-2.0
"""What a test left behind: mounts below its directory, and processes of its session or with its environment."""
import os
import signal
import subprocess
import time

from harness import TAG

CONNECTIONS = '/sys/fs/fuse/connections'


def _read(path):
    try:
        with open(path, 'rb') as f:
            return f.read().decode(errors='replace').strip()
    except OSError as e:
        return f'({e.strerror})'


def processes(directory, session=None):
    """Pids that still live: programs know the directory, children of fork() the session."""
    tag = os.fsencode(f'{TAG}={directory}')
    found = []
    for pid in filter(str.isdigit, os.listdir('/proc')):
        fields = _read(f'/proc/{pid}/stat').rpartition(')')[2].split()
        if not fields or fields[0] in 'ZX':
            continue
        try:
            with open(f'/proc/{pid}/environ', 'rb') as f:
                if int(fields[3]) == session or tag in f.read().split(b'\0'):
                    found.append(int(pid))
        except OSError:
            pass
    return found


def mounts(directory):
    """(mount point, device minor), the topmost last."""
    found = []
    with open('/proc/self/mountinfo') as f:
        for line in f:
            fields = line.split()
            point = fields[4].replace('\\040', ' ').replace('\\012', '\n')
            if point.startswith(directory + '/'):
                found.append((point, fields[2].split(':')[1]))
    return found


def command(pid):
    return _read(f'/proc/{pid}/cmdline').replace('\0', ' ')[:160]


def stacks(directory, session):
    """Where every thread of every process of the test is, as text."""
    lines = []
    for pid in processes(directory, session):
        lines.append(f'process {pid}: {command(pid)}')
        try:
            threads = sorted(os.listdir(f'/proc/{pid}/task'), key=int)
        except OSError:
            continue
        for tid in threads:
            base = f'/proc/{pid}/task/{tid}'
            state = _read(f'{base}/stat').rpartition(')')[2].split()[:1]
            lines.append(f'  thread {tid} {_read(base + "/comm")} {"".join(state)} wchan {_read(base + "/wchan")} '
                         f'syscall {_read(base + "/syscall").split(" ")[0]}')
            lines += [f'    {line}' for line in _read(base + '/stack').splitlines()[:8]]
    return '\n'.join(lines)


def wait_gone(directory, session, seconds):
    """Processes that still live after some time, as text."""
    deadline = time.monotonic() + seconds
    while True:
        alive = processes(directory, session)
        if not alive or time.monotonic() > deadline:
            return [f'{pid} ({command(pid)})' for pid in alive]
        time.sleep(0.02)


def remove(directory, session):
    """Kills and unmounts everything of the test; a request that hangs in the kernel is ended by force."""
    for point, minor in reversed(mounts(directory)):
        try:
            with open(f'{CONNECTIONS}/{minor}/abort', 'w') as f:
                f.write('1')
        except OSError:
            pass
        subprocess.run(['umount', '-l', point], stderr=subprocess.DEVNULL)
    for _ in range(100):
        pids = processes(directory, session)
        if not pids:
            return
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.02)
