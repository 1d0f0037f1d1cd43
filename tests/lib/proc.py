# SPDX-License-Identifier: Apache-2.0
"""Child processes of a test: they die with the test, and their cost is read from /proc.

A child gets SIGKILL when the thread that started it ends (PR_SET_PDEATHSIG), so start children from the main thread.
"""
import ctypes
import os
import signal
import subprocess
import sys
import time

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_CPUCLOCK_SCHED = 2


def exit_on_signals():
    """SIGINT, SIGTERM and SIGHUP end this program as sys.exit() does, so that everything is put away."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda n, _: sys.exit(128 + n))


def spawn(argv, nice=0, **kwargs):
    """subprocess.Popen in a group of its own that cannot outlive this process."""
    parent = os.getpid()

    def child():
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(127)
        if nice:
            os.nice(nice)

    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, preexec_fn=child, start_new_session=True, **kwargs)


def stop(process, timeout=10):
    """SIGTERM, then SIGKILL to the whole group; returns the exit status."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    return process.wait()


def wait_for(condition, timeout, what, process=None, interval=0.02):
    """Polls until condition() is true; a dead process or the deadline is an error naming <what>."""
    deadline = time.monotonic() + timeout
    while not condition():
        if process is not None and process.poll() is not None:
            raise RuntimeError(f'{what}: the process ended with status {process.returncode}')
        if time.monotonic() > deadline:
            raise TimeoutError(f'{what}: not within {timeout} s')
        time.sleep(interval)


def tree(pid):
    """The process and all its living descendants."""
    pids = [pid]
    for p in pids:
        try:
            for task in os.listdir(f'/proc/{p}/task'):
                with open(f'/proc/{p}/task/{task}/children') as f:
                    pids.extend(int(c) for c in f.read().split())
        except FileNotFoundError:
            pass
    return pids


def cpu_seconds(pids):
    """User and system time of all threads, those that ended too, by the processes' own CPU clocks."""
    total = 0.0
    for pid in pids:
        try:
            total += time.clock_gettime(~pid << 3 | _CPUCLOCK_SCHED)
        except OSError:
            pass
    return total


def status_bytes(pids, field):
    """The sum of a kB field of /proc/PID/status: VmHWM (peak) or VmRSS (now)."""
    total = 0
    for pid in pids:
        try:
            with open(f'/proc/{pid}/status') as f:
                total += sum(int(line.split()[1]) << 10 for line in f if line.startswith(field + ':'))
        except (FileNotFoundError, ProcessLookupError):
            pass
    return total


def peak_rss_reset(pids):
    """Starts VmHWM afresh."""
    for pid in pids:
        with open(f'/proc/{pid}/clear_refs', 'w') as f:
            f.write('5')


def io_counters(pids):
    """(rchar, wchar) summed: every byte that read() and write() moved, sockets and sendfile included."""
    rchar = wchar = 0
    for pid in pids:
        try:
            with open(f'/proc/{pid}/io') as f:
                values = dict(line.split(': ') for line in f.read().splitlines())
        except (FileNotFoundError, ProcessLookupError):
            continue
        rchar += int(values['rchar'])
        wchar += int(values['wchar'])
    return rchar, wchar
