# SPDX-License-Identifier: Apache-2.0
"""Real S3 servers and fronts for tests, one class each: start() returns when the server answers.

    with VersityGw() as server:
        client = server.client()

Every server has .endpoint, .access, .secret, .region, .directory (its own, removed by stop()) and .stop(); it
listens on a random free port of 127.0.0.1 and dies with the process that started it.
"""
import atexit
import fcntl
import os
import shutil
import socket
import subprocess
import tempfile

import proc
from s3client import S3Client


class Unavailable(Exception):
    """The server cannot be had on this machine; the text says what is missing."""


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def cache_path(*names):
    return os.path.join(os.environ.get('PENSTOCK_CACHE') or os.path.expanduser('~/.cache/penstock'), *names)


def go_binary(name, package, version):
    """A Go program, built once for each version into the cache; $PENSTOCK_<NAME> names a ready one."""
    given = os.environ.get('PENSTOCK_' + name.upper())
    if given:
        return given
    directory = cache_path(f'{name}-{version}')
    os.makedirs(directory, exist_ok=True)
    binary = os.path.join(directory, name)
    with open(os.path.join(directory, 'lock'), 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.exists(binary):
            return binary
        go = shutil.which(cache_path('go', 'bin', 'go')) or shutil.which('go')
        if not go:
            raise Unavailable(f'{name}: no go command; install Go, or put the program at {binary}')
        print(f'building {name} {version} once, some minutes', flush=True)
        with tempfile.TemporaryDirectory(dir=directory) as out:
            env = dict(os.environ, GOBIN=out, CGO_ENABLED='0', GOFLAGS='-trimpath')
            done = subprocess.run(['nice', '-n', '5', go, 'install', '-ldflags', '-s -w', f'{package}@{version}'],
                                  env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if done.returncode:
                raise Unavailable(f'{name}: go install {package}@{version} failed: {done.stdout[-500:]}')
            os.rename(os.path.join(out, name), binary)
    return binary


class Server:
    name = 'server'
    access, secret, region = 'AKIDPENSTOCKTEST', 'penstock-test-secret', 'us-east-1'
    ca = None
    start_timeout = 30

    def __init__(self):
        self.process = None
        self.directory = None
        self.port = 0

    @property
    def endpoint(self):
        return f'http://127.0.0.1:{self.port}'

    def client(self, **kwargs):
        return S3Client(self.endpoint, self.access, self.secret, self.region, ca=self.ca, **kwargs)

    def environment(self):
        """What a client program needs, as variables."""
        return {'AWS_ACCESS_KEY_ID': self.access, 'AWS_SECRET_ACCESS_KEY': self.secret, 'AWS_REGION': self.region,
                'AWS_EC2_METADATA_DISABLED': 'true', 'AWS_CONFIG_FILE': '/dev/null',
                'AWS_SHARED_CREDENTIALS_FILE': '/dev/null'}

    def full_environment(self):
        """The same within this process' environment, cleared of settings of the machine it runs on."""
        env = {k: v for k, v in os.environ.items()
               if not k.startswith('AWS_') and k.lower() not in ('http_proxy', 'https_proxy', 'all_proxy')}
        return dict(env, **self.environment())

    def path(self, *names):
        return os.path.join(self.directory, *names)

    def launch(self):
        """Starts the program and sets self.process; self.port and self.directory are set."""
        raise NotImplementedError

    def answers(self):
        try:
            socket.create_connection(('127.0.0.1', self.port), 1).close()
            return True
        except OSError:
            return False

    def run(self, argv, **kwargs):
        """Starts the long-running program with its output in DIRECTORY/log."""
        with open(self.path('log'), 'ab') as log:
            return proc.spawn(argv, stdout=log, stderr=subprocess.STDOUT, **kwargs)

    def start(self):
        self.directory = tempfile.mkdtemp(prefix=f'penstock-{self.name}-')
        self.port = free_port()
        atexit.register(self.stop)
        try:
            self.launch()
            proc.wait_for(self.answers, self.start_timeout, self.name, self.process)
        except (RuntimeError, TimeoutError) as e:
            text = self.log_text()[-1000:]
            self.stop()
            raise RuntimeError(f'{e}; its log ends: {text}') from None
        except BaseException:
            self.stop()
            raise
        return self

    def pids(self):
        return proc.tree(self.process.pid)

    def log_text(self):
        try:
            with open(self.path('log'), errors='replace') as f:
                return f.read()
        except FileNotFoundError:
            return ''

    def stop(self):
        atexit.unregister(self.stop)
        if self.process:
            proc.stop(self.process)
            self.process = None
        if self.directory:
            shutil.rmtree(self.directory, ignore_errors=True)
            self.directory = None

    def __enter__(self):
        return self if self.process else self.start()

    def __exit__(self, *exc):
        self.stop()
