# SPDX-License-Identifier: Apache-2.0
"""What a test left behind: processes, known by a variable in their environment, and mounts below its directory."""
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


def processes(directory):
    tag = os.fsencode(f'{TAG}={directory}')
    found = []
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{pid}/environ', 'rb') as f:
                if tag in f.read().split(b'\0'):
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


def is_alive(pid):
    text = _read(f'/proc/{pid}/stat')
    return not text.startswith('(') and text.rpartition(')')[2].split()[0] not in 'ZX'


def stacks(directory):
    """Where every thread of every process of the test is, as text."""
    lines = []
    for pid in processes(directory):
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


def wait_gone(directory, seconds):
    """Processes that still live after some time, as text."""
    deadline = time.monotonic() + seconds
    while True:
        alive = [pid for pid in processes(directory) if is_alive(pid)]
        if not alive or time.monotonic() > deadline:
            return [f'{pid} ({command(pid)})' for pid in alive]
        time.sleep(0.02)


def remove(directory):
    """Kills and unmounts everything of the test; a request that hangs in the kernel is ended by force."""
    for point, minor in reversed(mounts(directory)):
        try:
            with open(f'{CONNECTIONS}/{minor}/abort', 'w') as f:
                f.write('1')
        except OSError:
            pass
        subprocess.run(['umount', '-l', point], stderr=subprocess.DEVNULL)
    for _ in range(100):
        pids = [pid for pid in processes(directory) if is_alive(pid)]
        if not pids:
            return
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.02)
