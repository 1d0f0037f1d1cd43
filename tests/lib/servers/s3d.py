# SPDX-License-Identifier: Apache-2.0
"""s3d, the tests' own S3 server (tests/s3d/README.md), and its control plane: faults, counters, declared objects."""
import http.client
import json
import os
import urllib.parse

from build import build_path
from servers import Server, Unavailable


class S3d(Server):
    name = 's3d'

    def __init__(self, cert=None, key=None, anonymous=False, memory=False, latency_ms=0, conn_rate=0, threads=2,
                 session_token=None, virtual_domain=None, listen='127.0.0.1:0'):
        super().__init__()
        self.cert, self.key = cert, key
        self.ca = cert
        self.anonymous, self.memory, self.session_token = anonymous, memory, session_token
        self.latency_ms, self.conn_rate, self.threads = latency_ms, conn_rate, threads
        self.virtual_domain, self.listen, self.address = virtual_domain, listen, listen.partition(':')[0]

    @property
    def endpoint(self):
        return f'{"https" if self.cert else "http"}://{self.address}:{self.port}'

    def environment(self):
        env = super().environment()
        if self.session_token:
            env['AWS_SESSION_TOKEN'] = self.session_token
        return env

    def launch(self):
        binary = build_path('tests', 's3d')
        if not os.path.exists(binary):
            raise Unavailable(f's3d: {binary} is missing; run "make fixtures"')
        argv = [binary, '--listen', self.listen, '--port-file', self.path('port'), '--region', self.region,
                '--threads', str(self.threads), '--latency-ms', str(self.latency_ms),
                '--conn-rate', str(self.conn_rate)]
        if self.memory:
            argv += ['--memory']
        else:
            os.mkdir(self.path('root'))
            argv += ['--root', self.path('root')]
        if self.anonymous:
            argv += ['--anonymous']
        else:
            argv += ['--access-key', self.access, '--secret-key', self.secret]
            argv += ['--session-token', self.session_token] if self.session_token else []
        if self.virtual_domain:
            argv += ['--virtual-domain', self.virtual_domain]
        if self.cert:
            argv += ['--tls-cert', self.cert, '--tls-key', self.key]
        self.process = self.run(argv)

    def answers(self):
        """The server picks its port itself and writes it when it listens."""
        try:
            with open(self.path('port')) as f:
                self.port = int(f.read())
            return True
        except FileNotFoundError:
            return False

    # -- control plane ------------------------------------------------------------------------------------------

    def control(self, method, verb, body=b'', **params):
        query = urllib.parse.urlencode({k: v for k, v in params.items() if v is not None})
        if self.cert:
            conn = http.client.HTTPSConnection(self.address, self.port, timeout=60, context=self.client().context)
        else:
            conn = http.client.HTTPConnection(self.address, self.port, timeout=60)
        try:
            conn.request(method, f'/_s3d/{verb}' + (f'?{query}' if query else ''), body)
            reply = conn.getresponse()
            data = reply.read()
        finally:
            conn.close()
        if reply.status != 200:
            raise RuntimeError(f's3d: {verb}: {reply.status} {data.decode(errors="replace").strip()}')
        return data

    def set_faults(self, rules, seed=1):
        """Replaces all rules; each is a dict as the README describes, such as {'fault': 'reset_mid', 'rate': 0.05}."""
        self.control('POST', 'faults', json.dumps({'seed': seed, 'rules': rules}).encode())

    def stats(self):
        return json.loads(self.control('GET', 'stats'))

    def requests(self):
        """The last requests, oldest first, as dicts."""
        return [json.loads(line) for line in self.control('GET', 'log').splitlines()]

    def reset(self):
        """Faults, counters, latency, rate and clock as at the start; objects stay."""
        self.control('POST', 'reset')

    def outage(self, ms, mode='refuse'):
        self.control('POST', 'outage', ms=ms, mode=mode)

    def set_latency(self, ms):
        self.control('POST', 'latency', ms=ms)

    def set_rate(self, bytes_per_s):
        self.control('POST', 'rate', bytes_per_s=bytes_per_s)

    def set_clock(self, offset_s):
        self.control('POST', 'clock', offset_s=offset_s)

    def set_bucket(self, bucket, public=0, requester_pays=0):
        self.control('POST', 'bucket', bucket=bucket, public=public, requester_pays=requester_pays)

    def declare(self, bucket, key, body=b'', **params):
        """An object made behind the client's back: size= makes a synthetic one, else the body."""
        self.control('PUT', 'object', body, bucket=bucket, key=key, **params)

    def replace(self, bucket, key, size=None):
        self.control('POST', 'replace', bucket=bucket, key=key, size=size)

    def remove(self, bucket, key):
        self.control('POST', 'delete', bucket=bucket, key=key)

    def synthetic_keys(self, bucket, prefix, count, size=1):
        """Keys prefix + 00000000 … of <size> bytes each, made up when asked for; the bucket is made if missing."""
        self.control('POST', 'generate', bucket=bucket, prefix=prefix, count=count, size=size)
