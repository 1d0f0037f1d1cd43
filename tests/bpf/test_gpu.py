# SPDX-License-Identifier: Apache-2.0
"""Copies to a GPU are counted by process, with a library that stands in for the driver's."""
import os
import subprocess
import sys

from harness import MIB, ROOT, build_path, check, equal, eventually, in_kernel, json
from test_life import shape

PROGRAM = '''
import ctypes, sys
to, source = ctypes.create_string_buffer(1 << 20), ctypes.create_string_buffer(1 << 20)
for line in sys.stdin:
    if line == "load\\n":
        library = ctypes.CDLL(sys.argv[1])
        print(0, flush=True)
        continue
    name, size = line.split()
    if name == "read":
        with open(size, "rb") as f:
            print(len(f.read(4096)), flush=True)
        continue
    function = getattr(library, name)
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    print(function(to, source, int(size), None), flush=True)
'''
LIBRARY = ('tests', 'bpf', 'libcuda.so.1')


class Program:
    """A process that copies what it is told."""

    def __init__(self, bench):
        self.process = subprocess.Popen([sys.executable, '-c', PROGRAM, build_path(*LIBRARY)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, bufsize=1)
        bench.undo.callback(self.end)
        self.pid = self.process.pid

    def tell(self, line):
        self.process.stdin.write(line + '\n')
        return int(self.process.stdout.readline())

    def end(self):
        self.process.stdin.close()
        self.process.wait(10)


def test_copies_are_counted(bench):
    t, program, other = bench.tracer(bench.disk('disk')), Program(bench), Program(bench)
    equal(t.ask(f'gpu {program.pid}')['gpu'], 0, 'a process without libcuda')
    for p in (program, other):
        p.tell('load')
    equal(t.ask(f'gpu {program.pid}')['gpu'], 1, 'a process with libcuda')
    equal(t.ask(f'gpu {program.pid}')['gpu'], 0, 'the same again')

    # Two names of one function, a call within a call and a failure count once, once, and not at all.
    for name, status in (('cuMemcpyHtoD_v2', 0), ('cuMemcpyHtoD', 0), ('cuMemcpyHtoDAsync_v2', 0),
                         ('cuMemcpyHtoDAsync', 0), ('cuMemcpyHtoD_v2_ptds', 1)):
        equal(program.tell(f'{name} 100000'), status, name)
        other.tell(f'{name} 100000')
    counted = t.ask('gpu 0')
    equal((counted['bytes'], counted['calls']), (400000, 4), 'bytes and calls')
    # Two of them take 2 ms each.
    check(4000000 <= counted['ns'] < 4000000000, lambda: f'{counted}')
    equal([e['key'] for e in bench.dump('gpu')], [program.pid], 'processes')
    with open(os.path.join(ROOT, 'bpf', 'README.md')) as f:
        samples = [json.loads(part.partition('```')[0]) for part in f.read().split('```json\n')[1:]]
    sample, = [s['formatted'] for s in samples if s['map'] == 'gpu']
    equal(shape(bench.dump('gpu')[0]), shape(sample), 'members of gpu')


def test_ended_processes_stay_in_the_sum(bench):
    t, program = bench.tracer(bench.disk('disk')), Program(bench)
    program.tell('load')
    t.ask(f'gpu {program.pid}')
    program.tell(f'cuMemcpyHtoD_v2 {MIB}')
    program.end()
    equal(t.ask('gpu 0')['bytes'], MIB, 'bytes')
    equal(bench.dump('gpu'), [], 'processes')


def test_two_volumes_count_a_process_once(bench):
    one, two = bench.tracer(bench.disk('one'), 'one'), bench.tracer(bench.disk('two'), 'two')
    program = Program(bench)
    program.tell('load')
    equal([t.ask(f'gpu {program.pid}')['gpu'] for t in (one, two)], [1, 0], 'who counts')
    program.tell('cuMemcpyHtoD_v2 1000')
    equal([t.ask('gpu 0')['bytes'] for t in (one, two)], [1000, 0], 'bytes')


def test_uprobes_go_with_the_volume(bench):
    t, program = bench.tracer(bench.disk('disk')), Program(bench)
    program.tell('load')
    t.ask(f'gpu {program.pid}')
    ids = bench.pinned_ids()
    probes = in_kernel('prog', 'penstock_copy') | in_kernel('prog', 'penstock_copied')
    check(len(probes) >= 2, lambda: f'programs: {probes}')
    t.stop()
    eventually(lambda: not probes & in_kernel('prog'), 'the uprobes are left')
    bench.check_gone(ids)
    equal(program.tell('cuMemcpyHtoD_v2 1000'), 0, 'a copy afterwards')


def test_a_mount_counts_the_copies_of_its_readers(bench):
    from test_fuse import mount
    m = mount(bench)
    program, other = Program(bench), Program(bench)
    eventually(lambda: os.path.exists('/sys/fs/bpf/penstock/maps/state'), 'the tracer of the mount')
    equal(m.get('trace/gpu'), '0', 'trace/gpu')
    m.set('trace/gpu', '1')
    equal(m.get('trace/gpu'), '1', 'trace/gpu')
    equal(program.tell(f'read {m.file("file")}'), 4096, 'bytes read')
    for p in (program, other):
        p.tell('load')

    def counted():
        program.tell('cuMemcpyHtoD_v2 100000')
        other.tell('cuMemcpyHtoD_v2 100000')
        return int(m.get('load/gpu_copy_bytes')) > 0

    eventually(counted, 'copies of the reader', 10)
    m.set('trace/gpu', '0')
    equal(m.get('trace/gpu'), '0', 'trace/gpu')
    check(int(m.get('load/gpu_copy_bytes')) % 100000 == 0, 'a part of a copy was counted')
