# SPDX-License-Identifier: Apache-2.0
"""What the checks of s3d share: a server of their own, its synthetic bytes, a raw client, the runner.

A check is a function check_*(s) that gets a fresh server, with the options that @with_server gives.
"""
import argparse
import contextlib
import json
import os
import pathlib
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.parse
import urllib.request

import s3client

ACCESS, SECRET = 'AKIAS3D', 'secret/of+s3d'
MASK = (1 << 64) - 1
TILE_STARTS, BLOCK = 1 << 20, 65536
_tile = []


def mix(x):
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9 & MASK
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb & MASK
    return x ^ (x >> 31)


STEP = 0x9e3779b97f4a7c15


def tile():
    if not _tile:
        words = ((i + 1) * STEP & MASK for i in range((TILE_STARTS + BLOCK) // 8))
        _tile.append(b''.join(struct.pack('<Q', mix(w)) for w in words))
    return _tile[0]


def synthetic_seed(bucket, key, generation=0):
    h = 0xcbf29ce484222325
    for byte in f'{bucket}/{key}'.encode():
        h = (h ^ byte) * 0x100000001b3 & MASK
    return mix((h + generation * STEP) & MASK)


def synthetic(seed, first, length):
    out = b''
    while len(out) < length:
        block, within = divmod(first + len(out), BLOCK)
        start = mix((seed + (block + 1) * STEP) & MASK) % TILE_STARTS + within
        out += tile()[start:start + min(BLOCK - within, length - len(out))]
    return out


class Server:
    def __init__(self, program, *options, auth=True, tls=False, root=False):
        self.dir = tempfile.TemporaryDirectory(prefix='s3d-')
        base = pathlib.Path(self.dir.name)
        argv = [program, '--port-file', str(base / 'port'), *options]
        argv += ['--root', self.dir.name] if root else ['--memory']
        argv += ['--access-key', ACCESS, '--secret-key', SECRET] if auth else ['--anonymous']
        self.ca = None
        if tls:
            self.ca = str(base / 'cert.pem')
            subprocess.run(['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes',
                            '-keyout', str(base / 'key.pem'), '-out', self.ca, '-days', '2', '-subj', '/CN=localhost',
                            '-addext', 'subjectAltName=IP:127.0.0.1,DNS:localhost'], check=True, capture_output=True)
            argv += ['--tls-cert', self.ca, '--tls-key', str(base / 'key.pem')]
        self.process = subprocess.Popen(argv)
        deadline = time.monotonic() + 20
        while not (base / 'port').exists():
            assert self.process.poll() is None and time.monotonic() < deadline, 'the server did not start'
            time.sleep(0.01)
        self.port = int((base / 'port').read_text())
        self.url = f'{"https" if tls else "http"}://127.0.0.1:{self.port}'
        self.context = ssl.create_default_context(cafile=self.ca) if tls else None
        self.s3 = self.client()

    def client(self, **changes):
        options = {'access': ACCESS, 'secret': SECRET, 'ca': self.ca, 'timeout': 20} | changes
        return s3client.S3Client(self.url, **options)

    def control(self, method, verb, data=None, **query):
        url = f'{self.url}/_s3d/{verb}?{urllib.parse.urlencode(query)}'
        body = json.dumps(data).encode() if isinstance(data, dict) else data
        request = urllib.request.Request(url, data=body, method=method)
        with urllib.request.urlopen(request, timeout=300, context=self.context) as reply:
            return reply.read()

    def fault(self, name, seed=1, **rule):
        self.control('POST', 'faults', {'seed': seed, 'rules': [{'fault': name} | rule]})

    def stats(self):
        return json.loads(self.control('GET', 'stats'))

    def log(self):
        return [json.loads(line) for line in self.control('GET', 'log').splitlines()]

    def connect(self):
        sock = socket.create_connection(('127.0.0.1', self.port), timeout=20)
        return self.context.wrap_socket(sock, server_hostname='127.0.0.1') if self.context else sock

    def raw(self, target, method='GET', headers='', sock=None, wait=20):
        """Everything that comes for one unsigned request until silence or the end, and how it ended."""
        with contextlib.ExitStack() as stack:
            sock = sock or stack.enter_context(self.connect())
            sock.settimeout(wait)
            sock.sendall(f'{method} {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n'.encode())
            got = b''
            while True:
                try:
                    piece = sock.recv(1 << 20)
                except ConnectionResetError:
                    return got, 'reset'
                except ssl.SSLError as e:
                    return got, 'timeout' if 'timed out' in str(e) else 'tls'
                except TimeoutError:
                    return got, 'timeout'
                if not piece:
                    return got, 'closed'
                got += piece

    def stop(self):
        self.process.terminate()
        code = self.process.wait(20)
        self.dir.cleanup()
        assert code == 0, f'the server ended with {code}'


def split(reply):
    head, _, body = reply.partition(b'\r\n\r\n')
    return head.decode(), body


def code_of(fn):
    try:
        fn()
    except s3client.S3Error as e:
        return e.status, e.code
    return 200, ''


def with_server(**options):
    def mark(fn):
        fn.options = options
        return fn
    return mark


def run(check, program):
    options = dict(getattr(check, 'options', {}))
    began = time.monotonic()
    try:
        server = Server(program, *options.pop('options', ()), **options)
        try:
            check(server)
        finally:
            server.stop()
    except Exception:
        traceback.print_exc()
        print(f'FAIL {check.__name__}', flush=True)
        return False
    print(f'ok   {check.__name__} ({time.monotonic() - began:.1f} s)', flush=True)
    return True


def main(checks):
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument('--json-summary')
    parser.add_argument('--program', default='build/tests/s3d')
    parser.add_argument('names', nargs='*')
    args = parser.parse_args()
    checks = [fn for name, fn in checks.items() if name.startswith('check_') and callable(fn)]
    if args.names:
        checks = [fn for fn in checks if any(part in fn.__name__ for part in args.names)]
    if not checks:
        parser.error('no check has such a name')
    passed = sum(run(check, args.program) for check in checks)
    if args.json_summary:
        with open(args.json_summary, 'w') as f:
            json.dump({'passed': passed, 'failed': len(checks) - passed, 'skipped': 0}, f)
    return passed != len(checks)

