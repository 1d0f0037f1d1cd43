# SPDX-License-Identifier: Apache-2.0
"""The Python environment of the loaders: built once in the cache, in groups that succeed or fail on their own.

    environment = Environment()
    environment.provide()
    environment.missing('transformers')     # None, or why it cannot be had

A group is requirements/NAME.txt: exact versions, wheels only, each package in one group. A group that is complete has
a stamp, so a build that was cut off goes on where it stopped. What pip is to ask, and how, is pip's own configuration.
"""
import fcntl
import glob
import hashlib
import os
import platform
import subprocess
import sys

import proc
from servers import cache_path

HERE = os.path.dirname(os.path.abspath(__file__))
NEEDS = {
    'base': (),
    'gguf': ('base',),
    'llama': ('gguf',),
    'onnx': ('base',),
    'torch': ('base',),
    'hub': ('base',),
    'transformers': ('torch', 'hub'),
    'accelerate': ('transformers',),
    'runai': ('torch',),
    'fastsafetensors': ('torch', 'hub'),
    'tensorizer': ('torch',),
}
STUBS = os.path.join(HERE, 'torch_stubs.py')
GROUP_TIMEOUT_S = 900
MAX_CHARACTERS = 240


class Broken(Exception):
    """A step of the build failed; the text is its last complaint."""


def run(*argv):
    """Runs a step at low priority."""
    process = proc.spawn(argv, nice=10, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        output = process.communicate(timeout=GROUP_TIMEOUT_S)[0]
    except subprocess.TimeoutExpired:
        raise Broken(f'no end after {GROUP_TIMEOUT_S} s') from None
    finally:
        status = proc.stop(process)
    if status:
        lines = output.strip().splitlines() or [f'exit status {status}']
        # pip's first warning says what kept it from the index, its last error what it did not find.
        said = [line for line in lines if line.startswith(('WARNING', 'ERROR'))] or lines[-1:]
        raise Broken('; '.join(line[:MAX_CHARACTERS] for line in dict.fromkeys((said[0], said[-1]))))


class Environment:
    def __init__(self):
        digest = hashlib.sha256(f'{sys.version} {platform.machine()} {sys.base_prefix}'.encode())
        for path in (*sorted(glob.glob(os.path.join(HERE, 'requirements', '*.txt'))), STUBS, __file__):
            with open(path, 'rb') as f:
                digest.update(f.read())
        self.directory = cache_path(f'loaders-{digest.hexdigest()[:12]}')
        self.python = os.path.join(self.directory, 'venv', 'bin', 'python')
        self.reasons = {}

    def missing(self, group):
        return self.reasons.get(group)

    def provide(self):
        """Builds what is not there yet; a second run that wants the same waits."""
        os.makedirs(self.directory, exist_ok=True)
        with open(os.path.join(self.directory, 'lock'), 'w') as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                self._once('venv', run, sys.executable, '-m', 'venv', '--clear', os.path.join(self.directory, 'venv'))
            except Broken as e:
                self.reasons = dict.fromkeys(NEEDS, f'python3 -m venv: {e}')
                return
            for group, needs in NEEDS.items():
                lacking = [self.reasons[need] for need in needs if need in self.reasons]
                try:
                    if lacking:
                        raise Broken(lacking[0])
                    self._once(group, self._install, group)
                except Broken as e:
                    self.reasons[group] = str(e) if lacking else f'{group}: {e}'

    def _once(self, name, step, *arguments):
        stamp = os.path.join(self.directory, name + '.done')
        if os.path.exists(stamp):
            return
        print(f'loaders: installing {name}, once', flush=True)
        step(*arguments)
        with open(stamp, 'w'):
            pass

    def _install(self, group):
        # --ignore-installed: pip takes what an earlier, cut-off run left half unpacked for whole.
        run(self.python, '-m', 'pip', 'install', '--quiet', '--no-deps', '--ignore-installed', '--only-binary', ':all:',
            '--retries', '1', '-r', os.path.join(HERE, 'requirements', group + '.txt'))
        if group == 'torch':
            run(self.python, STUBS)
