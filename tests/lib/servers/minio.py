# SPDX-License-Identifier: Apache-2.0
"""MinIO: a third code base, for long runs (its build takes minutes)."""
import os

from s3client import S3Error
from servers import Server, go_binary

VERSION = 'v0.0.0-20260212201848-7aac2a2c5b7c'


class Minio(Server):
    name = 'minio'
    start_timeout = 60

    def launch(self):
        binary = go_binary('minio', 'github.com/minio/minio', VERSION)
        env = dict(os.environ, MINIO_ROOT_USER=self.access, MINIO_ROOT_PASSWORD=self.secret, MINIO_CI_CD='1',
                   MINIO_BROWSER='off', MINIO_UPDATE='off')
        self.process = self.run([binary, 'server', '--address', f'127.0.0.1:{self.port}', '--quiet',
                                 self.path('data')], env=env)

    def answers(self):
        """It listens before it can answer."""
        try:
            return super().answers() and self.client(timeout=2).request('GET').status == 200
        except (OSError, S3Error):
            return False
