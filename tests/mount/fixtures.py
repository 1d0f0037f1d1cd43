# SPDX-License-Identifier: Apache-2.0
"""Servers that many tests share, started at the first test that wants them and filled with the reference files."""
import os
import subprocess

from build import build_path
from harness import BUCKET, CHUNK, MIB, SEED
from servers import Unavailable
from servers.gofakes3 import GoFakeS3
from servers.minio import Minio
from servers.radosgw import RadosGw
from servers.s3d import S3d
from servers.versitygw import VersityGw

CLASSES = {'versitygw': VersityGw, 'radosgw': RadosGw, 'minio': Minio, 'gofakes3': GoFakeS3, 's3d': S3d}

SIZES = {'zero': 0, 'one': 1, 'chunk-1': CHUNK - 1, 'chunk': CHUNK, 'chunk+1': CHUNK + 1, 'middle': 64 * MIB + 4097}
EDGES = ('one', 'chunk-1', 'chunk', 'chunk+1')
BIG = 'big'
HUGE = 'huge'


class Fixtures:
    def __init__(self, directory, soak, san):
        self.directory = directory
        self.sizes = dict(SIZES)
        self.sizes[BIG] = 1024 * MIB if soak else 64 * MIB if san else 256 * MIB
        self.sizes[HUGE] = 1024 * MIB
        self.started = {}
        self.missing = {}
        for name in SIZES:
            self.file(name)

    def file(self, name):
        path = os.path.join(self.directory, name)
        if not os.path.exists(path):
            subprocess.run([build_path('bin', 'penstock-load'), 'generate', path, '--plain', '--seed', str(SEED),
                            '--size', str(self.sizes[name])], check=True, stdout=subprocess.DEVNULL)
        return path

    def server(self, name, needs=()):
        """The server, with BUCKET filled; raises Unavailable when it cannot be had here."""
        if name in self.missing:
            raise Unavailable(self.missing[name])
        if name not in self.started:
            try:
                server = CLASSES[name]().start()
            except Unavailable as e:
                self.missing[name] = str(e)
                raise
            self.started[name] = server, set()
            server.client().create_bucket(BUCKET)
        server, have = self.started[name]
        for key in (*SIZES, BIG, *needs):
            if key not in have:
                server.client(timeout=300).put_file(BUCKET, key, self.file(key))
                have.add(key)
        return server

    def stop(self):
        for server, _ in self.started.values():
            server.stop()
