#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the torch of this Python environment, a wheel for CUDA, importable where there is no CUDA.

usage: torch_stubs.py

torch's libraries are linked with CUDA's, gigabytes that a machine without a GPU never calls. For each library that is
missing this compiles one of the same name beside them, with the symbols and symbol versions that torch asks of it. Each
function returns cudaErrorInsufficientDriver, so torch finds no usable CUDA and goes on with the CPU. Needs gcc and
binutils.
"""
import collections
import ctypes
import glob
import os
import re
import subprocess
import sysconfig
import tempfile

INSUFFICIENT_DRIVER = 35
# Symbols without a version do not say whose they are: these prefixes are CUDA's.
CUDA = re.compile(r'(__)?cu(da|[A-Z]|blas|dnn|sparse|fft|solver|rand|file|pti)|nccl|nvrtc|nvshmem|nvJit|nvtx|_ZN5cudnn')
RUNTIME = 'libcudart.so'


def output(*argv):
    return subprocess.run(argv, stdout=subprocess.PIPE, check=True, text=True).stdout


def can_load(library):
    try:
        ctypes.CDLL(library)
        return True
    except OSError:
        return False


def version_needs(path):
    """(library, version) pairs that a library asks for."""
    library = None
    for line in output('readelf', '--version-info', '--wide', path).splitlines():
        found = re.search(r'\bFile: (\S+)', line)
        if found:
            library = found[1]
        found = re.search(r'\bName: (\S+)\s+Flags', line)
        if found and library:
            yield library, found[1]


def symbols(path):
    """(names that a library defines, names with their @VERSION that it lacks)."""
    defined, lacking = set(), set()
    for line in output('nm', '--dynamic', path).splitlines():
        *_, kind, name = line.split()
        if kind == 'U':
            lacking.add(name)
        else:
            defined.add(name.partition('@')[0])
    return defined, lacking


def compile_stub(path, soname, by_version):
    with tempfile.TemporaryDirectory() as work:
        source, script = os.path.join(work, 'stub.c'), os.path.join(work, 'stub.map')
        with open(source, 'w') as f:
            f.write(f'static int refuse(void) {{ return {INSUFFICIENT_DRIVER}; }}\n')
            for name in sorted(set().union(*by_version.values())):
                f.write(f'int {name}(void) __attribute__((alias("refuse")));\n')
        options = []
        versions = {version: names for version, names in by_version.items() if version}
        if versions:
            with open(script, 'w') as f:
                for version, names in sorted(versions.items()):
                    f.write(f'{version} {{ {" ".join(name + ";" for name in sorted(names))} }};\n')
            options = [f'-Wl,--version-script={script}']
        made = os.path.join(os.path.dirname(path), '.' + soname)
        subprocess.run(['gcc', '-w', '-fno-builtin', '-shared', '-fPIC', f'-Wl,-soname,{soname}', *options, '-o', made,
                        source], check=True)
        os.replace(made, path)


def main():
    torch = os.path.join(sysconfig.get_paths()['platlib'], 'torch')
    directory = os.path.join(torch, 'lib')
    libraries = glob.glob(os.path.join(directory, '*.so*')) + glob.glob(os.path.join(torch, '_C*.so'))
    needed, defined, lacking = set(), set(), set()
    versions = collections.defaultdict(set)
    for path in libraries:
        needed |= set(re.findall(r'\(NEEDED\).*\[(.*?)\]', output('readelf', '--dynamic', '--wide', path)))
        for library, version in version_needs(path):
            versions[library].add(version)
        has, lacks = symbols(path)
        defined |= has
        lacking |= lacks
    missing = sorted(name for name in needed - {os.path.basename(p) for p in libraries} if not can_load(name))
    owner = {version: library for library in missing for version in versions[library]}
    unversioned = next((library for library in missing if library.startswith(RUNTIME)), missing[0] if missing else None)

    wanted = {library: {version: set() for version in versions[library]} for library in missing}
    for symbol in lacking:
        name, _, version = symbol.partition('@')
        version = version.lstrip('@')
        if version in owner:
            wanted[owner[version]][version].add(name)
        elif not version and unversioned and name not in defined and CUDA.match(name):
            wanted[unversioned].setdefault('', set()).add(name)
    for library, by_version in wanted.items():
        compile_stub(os.path.join(directory, library), library, by_version)


if __name__ == '__main__':
    main()
