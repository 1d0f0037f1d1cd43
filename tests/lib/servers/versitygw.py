# SPDX-License-Identifier: Apache-2.0
"""versitygw: a Go S3 gateway over plain files, with real SigV4. An object is the file .root/BUCKET/KEY."""
import os

from servers import Server, go_binary

VERSION = 'v1.8.0'


class VersityGw(Server):
    name = 'versitygw'

    def __init__(self, cert=None, key=None, versioning=False):
        super().__init__()
        self.cert, self.key, self.versioning = cert, key, versioning
        self.ca = cert

    @property
    def endpoint(self):
        return f'{"https" if self.cert else "http"}://127.0.0.1:{self.port}'

    @property
    def root(self):
        return self.path('root')

    def launch(self):
        binary = go_binary('versitygw', 'github.com/versity/versitygw/cmd/versitygw', VERSION)
        os.mkdir(self.root)
        argv = [binary, '--port', f'127.0.0.1:{self.port}', '--region', self.region, '--keep-alive', '--quiet']
        if self.cert:
            argv += ['--cert', os.path.abspath(self.cert), '--key', os.path.abspath(self.key)]
        argv += ['posix']
        if self.versioning:
            os.mkdir(self.path('versions'))
            argv += ['--versioning-dir', self.path('versions')]
        env = dict(os.environ, ROOT_ACCESS_KEY=self.access, ROOT_SECRET_KEY=self.secret)
        self.process = self.run(argv + [self.root], env=env)
