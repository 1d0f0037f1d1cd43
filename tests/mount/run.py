#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the mount tests: tests/mount/test_*.py, each for its servers and transports.

usage: run.py [--soak] [--san [KINDS]] [--only REGEX] [--jobs N] [--list] [--keep] [--json-summary FILE]

Needs root, /dev/fuse and what "make fixtures" builds. Every test is a process with a directory of its own and a time
limit; afterwards nothing of it may be left: no process, no mount, no sanitizer report, no unexpected error in a log.
fuse.enable_uring is switched on for the run where it is off, and restored. The last line is the sum.
"""
import argparse
import ctypes
import fcntl
import glob
import importlib.util
import json
import os
import re
import shutil
import sys
import tempfile
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), 'lib')]
SLOWER_UNDER_SANITIZERS = 3
# What a busy machine can do to a test; nothing else gets a second try.
LATE = r'took [\d.]+ s|takes [\d.]+ s|ended after [\d.]+ s|hang after [\d.]+ s|not within|reads failed|TimeoutExpired'


def parse_arguments():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument('--soak', action='store_true', help='the long tests and full counts')
    parser.add_argument('--san', nargs='?', const='address,undefined', help='test a sanitizer build, fewer tests')
    parser.add_argument('--only', default='', help='names that match this regular expression')
    parser.add_argument('--jobs', type=int, default=4, help='tests at a time')
    parser.add_argument('--list', action='store_true')
    parser.add_argument('--keep', action='store_true', help="keep failed tests' directories")
    parser.add_argument('--json-summary', '--summary')
    return parser.parse_args()


class Case:
    """One test for one server and one transport."""

    def __init__(self, module, function, server, transport, opts):
        self.function, self.server, self.transport, self.options = function, server, transport, opts
        variant = ','.join(filter(None, (server, transport)))
        self.name = f'{module}.{function.__name__[5:]}' + (f'[{variant}]' if variant else '')
        self.timeout = opts['timeout']
        self.pid = None


def discover(args):
    from harness import options
    cases = []
    defaults = options()(lambda: None).options
    for path in sorted(glob.glob(os.path.join(HERE, 'test_*.py'))):
        name = os.path.basename(path)[5:-3]
        spec = importlib.util.spec_from_file_location('test_' + name, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for function in vars(module).values():
            if not callable(function) or not getattr(function, '__name__', '').startswith('test_'):
                continue
            opts = getattr(function, 'options', defaults)
            if opts['soak'] and not args.soak or args.san and not opts['san']:
                continue
            servers = opts['servers'] + (opts['soak_servers'] if args.soak else ())
            cases += [Case(name, function, server, transport, opts) for server in servers
                      for transport in opts['transports']]
    return [case for case in cases if re.search(args.only, case.name)]


class Runner:
    def __init__(self, args, base):
        from fixtures import Fixtures
        self.args, self.base = args, base
        os.mkdir(os.path.join(base, 'data'))
        self.fixtures = Fixtures(os.path.join(base, 'data'), args.soak, bool(args.san))
        self.running = {}
        self.counts = {'passed': 0, 'failed': 0, 'skipped': 0}
        self.failed = []
        self.again = []

    # -- one test -----------------------------------------------------------------------------------------------

    def start(self, case):
        from servers import Unavailable
        try:
            server = case.server and self.fixtures.server(case.server, case.options['needs'])
        except Unavailable as e:
            self.report(case, 'skipped', f'skip {case.name} # {e}')
            return
        case.directory = tempfile.mkdtemp(prefix='t-', dir=self.base)
        os.mkdir(os.path.join(case.directory, 'logs'))
        case.started = time.monotonic()
        limit = case.timeout * (SLOWER_UNDER_SANITIZERS if self.args.san else 1)
        case.deadline = case.started + limit
        sys.stdout.flush()
        case.pid = os.fork()
        if case.pid == 0:
            self.child(case, server)
        self.running[case.pid] = case

    def child(self, case, server):
        from harness import Context, prepare_child
        result = {'why': 'the test ended early'}
        try:
            ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG
            os.setsid()
            tempfile.tempdir = case.directory
            prepare_child(case.directory)
            t = Context(case.directory, self.fixtures.directory, server, case.transport, self.args.soak,
                        bool(self.args.san))
            try:
                case.function(t)
                t.finish()
                result = {'why': None}
            except BaseException as e:
                result = {'why': f'{type(e).__name__}: {e}'.removeprefix('Failed: '),
                          'trace': traceback.format_exc()}
            finally:
                result['expected'] = t.expected_log
                with open(os.path.join(case.directory, 'result'), 'w') as f:
                    json.dump(result, f)
                t.drop()
        finally:
            sys.stdout.flush()
            os._exit(0)

    def finish(self, case, stacks=None):
        """The test's process has ended, or is out of time: judge and remove everything."""
        import leftovers
        from harness import log_findings
        findings = []
        try:
            with open(os.path.join(case.directory, 'result')) as f:
                result = json.load(f)
        except (FileNotFoundError, ValueError):
            result = {'why': 'the test process died without a result', 'expected': []}
        if stacks is not None:
            findings.append(f'no end after {case.deadline - case.started:.0f} s')
            if result['why'] is None:
                findings[0] += ' (while putting away)'
        elif result['why']:
            findings.append(result['why'])
        if not findings:
            left = leftovers.wait_gone(case.directory, case.pid, 3)
            findings += [f'left behind: process {p}' for p in left]
            findings += [f'left behind: mount {p}' for p, _ in leftovers.mounts(case.directory)]
        leftovers.remove(case.directory, case.pid)
        findings += log_findings(case.directory, result['expected'])
        seconds = time.monotonic() - case.started
        if not findings:
            second = ' # at the second try, alone' if case in self.again else ''
            self.report(case, 'passed', f'ok {case.name} ({seconds:.1f} s){second}')
        elif case not in self.again and all(re.search(LATE, f) for f in findings):
            # A deadline that the tests beside it may have broken: once more, alone.
            self.again.append(case)
            print(f'again {case.name}: {"; ".join(findings)} ({seconds:.1f} s)')
            self.explain(case, result, stacks)
        else:
            self.report(case, 'failed', f'not ok {case.name}: {"; ".join(findings)} ({seconds:.1f} s)')
            self.explain(case, result, stacks)
        if findings and self.args.keep:
            print(f'    kept: {case.directory}', flush=True)
        else:
            shutil.rmtree(case.directory, ignore_errors=True)

    def explain(self, case, result, stacks):
        text = [result.get('trace') or '', stacks or '']
        for path in sorted(glob.glob(os.path.join(glob.escape(case.directory), 'logs', '*'))):
            with open(path, errors='replace') as f:
                lines = f.read().splitlines()
            head = lines[:60] if '.sanitizer.' in path else lines[-12:]
            text.append('\n'.join([f'log {os.path.basename(path)}:', *head]))
        for line in '\n'.join(filter(None, text)).splitlines():
            print('    ' + line[:400])
        sys.stdout.flush()

    def report(self, case, verdict, line):
        self.counts[verdict] += 1
        if verdict == 'failed':
            self.failed.append(case.name)
        print(line, flush=True)

    # -- all of them --------------------------------------------------------------------------------------------

    def reap(self):
        """One look at what runs; true when something ended."""
        import leftovers
        ended = False
        for case in list(self.running.values()):
            if os.waitpid(case.pid, os.WNOHANG)[0]:
                del self.running[case.pid]
                self.finish(case)
                ended = True
        for case in [c for c in self.running.values() if time.monotonic() > c.deadline]:
            del self.running[case.pid]
            self.finish(case, leftovers.stacks(case.directory, case.pid))
            os.waitpid(case.pid, 0)
            ended = True
        return ended

    def drain(self, limit):
        while len(self.running) > limit:
            if not self.reap():
                time.sleep(0.02)

    def run(self, cases):
        alone = [case for case in cases if case.options['alone']]
        for case in [case for case in cases if not case.options['alone']]:
            self.drain(max(self.args.jobs, 1) - 1)
            self.start(case)
        self.drain(0)
        for case in alone:
            self.start(case)
            self.drain(0)
        for case in list(self.again):
            self.start(case)
            self.drain(0)


def one_run_at_a_time():
    """The kernel's switch is the machine's: a second run waits. Returns what holds the lock."""
    f = open('/dev/fuse', 'rb')
    try:
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print('another run is under way: waiting for its end', flush=True)
        fcntl.flock(f, fcntl.LOCK_EX)
    return f


def complain_unless_possible():
    if os.geteuid() != 0:
        return 'mounting needs root'
    if not os.path.exists('/dev/fuse'):
        return 'there is no /dev/fuse'
    from build import build_path
    missing = [p for p in (build_path('bin', 'penstock'), build_path('bin', 'penstock-load'),
                           build_path('tests', 's3d')) if not os.path.exists(p)]
    return f'{", ".join(missing)} missing: run "make fixtures"' if missing else None


def main():
    args = parse_arguments()
    if args.san:
        os.environ['PENSTOCK_BUILD'] = os.path.join(os.path.dirname(os.path.dirname(HERE)), 'build',
                                                    'san-' + args.san.replace(',', '-'))
    import leftovers
    import proc
    from harness import log_findings, prepare_child
    from mnt import io_uring_switched_on
    cases = discover(args)
    if args.list:
        print('\n'.join(case.name for case in cases))
        return 0
    why = complain_unless_possible()
    if why:
        sys.exit(f'run.py: {why}')
    proc.exit_on_signals()
    lock = one_run_at_a_time()
    base = tempfile.mkdtemp(prefix='penstock-tests-')
    os.mkdir(os.path.join(base, 'logs'))
    prepare_child(base)
    tempfile.tempdir = base
    runner = Runner(args, base)
    try:
        with io_uring_switched_on():
            try:
                runner.run(cases)
            finally:
                for case in runner.running.values():
                    leftovers.remove(case.directory, case.pid)
                runner.fixtures.stop()
        for finding in log_findings(base, []):
            runner.counts['failed'] += 1
            print(f'not ok shared servers: {finding}', flush=True)
    finally:
        lock.close()
        if not (args.keep and runner.failed):
            shutil.rmtree(base, ignore_errors=True)
    if args.json_summary:
        os.makedirs(os.path.dirname(args.json_summary) or '.', exist_ok=True)
        with open(args.json_summary, 'w') as f:
            json.dump(runner.counts, f)
    for name in runner.failed:
        print(f'failed: {name}')
    print('{passed} passed, {failed} failed, {skipped} skipped'.format(**runner.counts))
    return 1 if runner.counts['failed'] else 0


if __name__ == '__main__':
    sys.exit(main())
