#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Reads small models through a mount with the real loaders, and compares every tensor with the local files.

usage: check_loaders.py [--only REGEX] [--jobs N] [--list] [--keep] [--json-summary FILE]

Needs root, /dev/fuse and what "make fixtures" builds. The loaders' Python environment is built once (environment.py);
a loader that cannot be installed is skipped and pip's words say why. Each test is a process, as in tests/mount: it
mounts one model, and a Python of its own loads it from the local directory and from the mount. The last line is the
sum.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.dirname(HERE)
sys.path[:0] = [os.path.join(TESTS, 'mount'), os.path.join(TESTS, 'lib'), HERE]

import leftovers  # noqa: E402
import proc  # noqa: E402
import run as mount_run  # noqa: E402  (tests/mount/run.py)
from environment import Environment  # noqa: E402
from harness import BUCKET, TRANSPORTS, Failed, check, equal, log_findings, options, prepare_child  # noqa: E402
from mnt import io_uring_switched_on  # noqa: E402
from servers import Unavailable  # noqa: E402
from servers.s3d import S3d  # noqa: E402
from servers.versitygw import VersityGw  # noqa: E402

SERVERS = {'s3d': S3d, 'versitygw': VersityGw}
WRITE_TIMEOUT_S, READ_TIMEOUT_S = 120, 90
# Model -> the group of the environment that writes it (models.py).
WRITERS = {'arrays': 'base', 'gguf': 'gguf', 'onnx': 'onnx', 'tensors': 'torch', 'pickled': 'torch',
           'transformer': 'transformers', 'serialized': 'tensorizer'}
# Name of the test: program, its function, the model, the group of the environment.
LOADERS = {
    'numpy_load_gives_equal_arrays': ('read_arrays.py', 'numpy_load', 'arrays', 'base'),
    'numpy_load_of_a_zip_gives_equal_arrays': ('read_arrays.py', 'numpy_load_zip', 'arrays', 'base'),
    'numpy_memmap_gives_equal_arrays': ('read_arrays.py', 'numpy_memmap', 'arrays', 'base'),
    'safetensors_numpy_in_keys_order_is_equal': ('read_arrays.py', 'safe_open_keys', 'arrays', 'base'),
    'safetensors_numpy_in_offset_order_is_equal': ('read_arrays.py', 'safe_open_offset_keys', 'arrays', 'base'),
    'safetensors_numpy_load_file_is_equal': ('read_arrays.py', 'safetensors_load_file', 'arrays', 'base'),
    'gguf_reader_gives_equal_tensors': ('read_arrays.py', 'gguf_reader', 'gguf', 'gguf'),
    'llama_cpp_mapped_gives_equal_logits': ('read_llama.py', 'mapped', 'gguf', 'llama'),
    'llama_cpp_copied_gives_equal_logits': ('read_llama.py', 'copied', 'gguf', 'llama'),
    'onnxruntime_external_data_is_equal': ('read_arrays.py', 'onnx_run', 'onnx', 'onnx'),
    'safetensors_torch_in_keys_order_is_equal': ('read_torch.py', 'safe_open_keys', 'tensors', 'torch'),
    'safetensors_torch_in_offset_order_is_equal': ('read_torch.py', 'safe_open_offset_keys', 'tensors', 'torch'),
    'safetensors_torch_load_file_is_equal': ('read_torch.py', 'safetensors_load_file', 'tensors', 'torch'),
    'torch_load_gives_equal_tensors': ('read_torch.py', 'torch_load', 'pickled', 'torch'),
    'torch_load_mapped_gives_equal_tensors': ('read_torch.py', 'torch_load_mmap', 'pickled', 'torch'),
    'runai_streamer_gives_equal_tensors': ('read_torch.py', 'runai_stream_files', 'tensors', 'runai'),
    'fastsafetensors_gives_equal_tensors': ('read_torch.py', 'fastsafetensors_load', 'tensors', 'fastsafetensors'),
    'tensorizer_gives_equal_tensors': ('read_torch.py', 'tensorizer_load', 'serialized', 'tensorizer'),
    'transformers_forward_is_equal_bit_by_bit':
        ('read_transformer.py', 'from_pretrained', 'transformer', 'transformers'),
    'accelerate_dispatch_forward_is_equal_bit_by_bit':
        ('read_transformer.py', 'accelerate_dispatch', 'transformer', 'accelerate'),
}


def parse_arguments():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument('--only', default='', help='names that match this regular expression')
    parser.add_argument('--jobs', type=int, default=2, help='tests at a time')
    parser.add_argument('--list', action='store_true')
    parser.add_argument('--keep', action='store_true', help="keep failed tests' directories")
    parser.add_argument('--json-summary')
    args = parser.parse_args()
    args.san = args.soak = False
    return args


def run_python(python, program, *arguments, timeout):
    """Runs one of the programs beside this file in the loaders' environment; returns the last line it printed."""
    env = {name: value for name, value in os.environ.items() if not name.startswith('PYTHON')}
    env.update(PYTHONDONTWRITEBYTECODE='1', HF_HUB_OFFLINE='1', CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='1')
    done = subprocess.run([python, os.path.join(HERE, program), *arguments], env=env, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors='replace', timeout=timeout)
    check(done.returncode == 0, lambda: f'{program} {arguments[0]}: status {done.returncode}: {done.stderr[-1500:]}')
    return done.stdout.rstrip().rpartition('\n')[2]


def loads_equal(t, models, loader):
    """The test: one process loads the model from both places."""
    program, function, model, _ = loader
    check(models.written[model] is None, lambda: f'the model could not be written: {models.written[model]}')
    m = t.mount(prefix=f'{model}/', memory='64MiB')
    want, have = json.loads(run_python(models.python, program, function, os.path.join(t.data, model), m.directory,
                                       timeout=READ_TIMEOUT_S))
    check(want['tensors'], f'{function} found no tensor')
    equal(sorted(have['tensors']), sorted(want['tensors']), 'names of the tensors')
    wrong = [name for name, digest in want['tensors'].items() if have['tensors'][name] != digest]
    check(not wrong, lambda: f'{len(wrong)} of {len(want["tensors"])} tensors differ: {", ".join(wrong[:5])}')
    equal(m.transport, t.transport, 'transport')
    # Not all: logits are no bytes of the file, and two tensors may share theirs.
    received = m.stats()['s3_bytes']
    check(received > have['bytes'] * 0.9, f'{have["bytes"]} bytes of tensors, but {received} came from the server')


class Case(mount_run.Case):
    """One loader on one server and transport."""

    def __init__(self, name, loader, models, server, transport):
        def function(t):
            loads_equal(t, models, loader)
        function.__name__ = 'test_' + name
        opts = dict(options()(lambda: None).options, timeout=READ_TIMEOUT_S + 30, needs=(loader[2], loader[3]))
        super().__init__('loaders', function, server, transport, opts)


class Models:
    """The models, each written when a test first wants it, on servers that the tests share."""

    def __init__(self, environment, directory):
        self.environment, self.python, self.directory = environment, environment.python, directory
        self.written, self.started, self.missing = {}, {}, {}

    def server(self, name, needs):
        """The server, with the model on it; raises Unavailable when loader, writer or server cannot be had."""
        model, group = needs
        for needed in (group, WRITERS[model]):
            why = self.environment.missing(needed)
            if why:
                raise Unavailable(why)
        self.write(model)
        server, have = self.start(name)
        if model not in have and self.written[model] is None:
            server.client(timeout=300).put_tree(BUCKET, f'{model}/', os.path.join(self.directory, model))
            have.add(model)
        return server

    def write(self, model):
        if model in self.written:
            return
        directory = os.path.join(self.directory, model)
        os.mkdir(directory)
        try:
            run_python(self.python, 'models.py', model, directory, timeout=WRITE_TIMEOUT_S)
            self.written[model] = None
        except (Failed, subprocess.TimeoutExpired) as e:
            self.written[model] = str(e)

    def start(self, name):
        if name in self.missing:
            raise Unavailable(self.missing[name])
        if name not in self.started:
            try:
                server = SERVERS[name]().start()
            except Unavailable as e:
                self.missing[name] = str(e)
                raise
            self.started[name] = server, set()
            server.client().create_bucket(BUCKET)
        return self.started[name]

    def stop(self):
        for server, _ in self.started.values():
            server.stop()


class Runner(mount_run.Runner):
    """The mount tests' runner, with models for fixtures."""

    def __init__(self, args, base, models):
        self.args, self.base, self.fixtures = args, base, models
        self.running, self.failed, self.again = {}, [], []
        self.counts = {'passed': 0, 'failed': 0, 'skipped': 0}


def find_cases(args, models):
    cases = [Case(name, loader, models, server, transport) for name, loader in LOADERS.items() for server in SERVERS
             for transport in TRANSPORTS]
    return [case for case in cases if re.search(args.only, case.name)]


def run_all(args, base):
    environment = Environment()
    environment.provide()
    for name in ('logs', 'data'):
        os.mkdir(os.path.join(base, name))
    prepare_child(base)
    tempfile.tempdir = base
    models = Models(environment, os.path.join(base, 'data'))
    runner = Runner(args, base, models)
    lock = mount_run.one_run_at_a_time()
    try:
        with io_uring_switched_on():
            try:
                runner.run(find_cases(args, models))
            finally:
                for case in runner.running.values():
                    leftovers.remove(case.directory, case.pid)
                models.stop()
    finally:
        lock.close()
    for finding in log_findings(base, []):
        runner.counts['failed'] += 1
        print(f'not ok shared servers: {finding}', flush=True)
    return runner


def main():
    args = parse_arguments()
    if args.list:
        print('\n'.join(case.name for case in find_cases(args, None)))
        return 0
    why = mount_run.complain_unless_possible()
    if why:
        sys.exit(f'check_loaders.py: {why}')
    proc.exit_on_signals()
    base = tempfile.mkdtemp(prefix='penstock-loaders-')
    runner = None
    try:
        runner = run_all(args, base)
    finally:
        if not (args.keep and runner and runner.failed):
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
