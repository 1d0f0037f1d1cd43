# SPDX-License-Identifier: Apache-2.0
"""Other S3 mounts, run as their own documentation says, with their defaults; for the benchmark's columns."""
import os
import shutil
import subprocess

from mnt import FuseProcess


class S3fs(FuseProcess):
    name = 's3fs'
    program = 's3fs'

    def command(self):
        with open(self.path('passwd'), 'w', opener=lambda p, f: os.open(p, f, 0o600)) as f:
            f.write(f'{self.server.access}:{self.server.secret}\n')
        return ['s3fs', self.bucket, self.directory, '-f', '-o', f'url={self.server.endpoint}',
                '-o', 'use_path_request_style', '-o', f'passwd_file={self.path("passwd")}',
                '-o', f'tmpdir={self.private}', '-o', 'ro']


class Rclone(FuseProcess):
    name = 'rclone'
    program = 'rclone'

    def command(self):
        return ['rclone', 'mount', f's3:{self.bucket}', self.directory, '--read-only', '--config', '/dev/null',
                '--cache-dir', self.path('cache')]

    def environment(self):
        return dict(super().environment(), RCLONE_CONFIG_S3_TYPE='s3', RCLONE_CONFIG_S3_PROVIDER='Other',
                    RCLONE_CONFIG_S3_ENV_AUTH='true', RCLONE_CONFIG_S3_ENDPOINT=self.server.endpoint,
                    RCLONE_CONFIG_S3_REGION=self.server.region)


class MountS3(FuseProcess):
    name = 'mount-s3'
    program = 'mount-s3'

    def command(self):
        return ['mount-s3', self.bucket, self.directory, '--endpoint-url', self.server.endpoint, '--force-path-style',
                '--region', self.server.region, '--foreground', '--read-only']


class GeeseFs(FuseProcess):
    name = 'geesefs'
    program = 'geesefs'

    def command(self):
        return ['geesefs', '-f', '--endpoint', self.server.endpoint, '--region', self.server.region, self.bucket,
                self.directory]


PEERS = (S3fs, Rclone, MountS3, GeeseFs)


def version(peer):
    """The first line that the program says about itself."""
    done = subprocess.run([peer.program, '--version'], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    return done.stdout.splitlines()[0].strip() if done.stdout else 'unknown version'


def available():
    return [peer for peer in PEERS if shutil.which(peer.program)]
