# SPDX-License-Identifier: Apache-2.0
"""How the server is reached, and who asks: https with an authority of one's own, all sources of credentials."""
import http.server
import json
import os
import threading
import time

from certs import make_certificate
from harness import BUCKET, MIB, check, equal, options, run_program
from servers.s3d import S3d
from servers.versitygw import VersityGw
from test_badinput import Attempt

NONE = (None,)


def filled(t, server):
    client = server.client()
    client.create_bucket(BUCKET)
    for name in ('one', 'chunk+1', 'middle'):
        client.put_file(BUCKET, name, t.reference(name))
    return server


@options(timeout=120, san=True)
def test_https_with_own_authority(t):
    cert, key = make_certificate(t.directory)
    for server in (S3d(cert=cert, key=key, memory=True), VersityGw(cert=cert, key=key)):
        filled(t, t.own(server))
        with t.mount(server, memory='128MiB') as m:
            t.load(m.file('middle'), m.file('chunk+1'))
            t.load(m.file('middle'), pattern='mmap-shuffled', drop=True)


@options(transports=NONE, timeout=60, san=True)
def test_certificates_that_do_not_fit(t):
    cert, key = make_certificate(t.directory)
    other, _ = make_certificate(t.directory, 'other')
    server = filled(t, t.own(S3d(cert=cert, key=key, memory=True)))
    a = Attempt(t, server=server)
    a.refused('certificate.*--ca-bundle')
    a.refused('certificate.*--ca-bundle', '--ca-bundle', other)
    a.refused('missing.pem', '--ca-bundle', os.path.join(t.directory, 'missing.pem'))
    with open(os.path.join(t.directory, 'nonsense.pem'), 'w') as f:
        f.write('nonsense\n')
    a.refused('--ca-bundle|nonsense.pem', '--ca-bundle', f.name)
    a.endpoint = a.endpoint.replace('https:', 'http:')
    a.refused('--endpoint-url')


def write(path, text):
    with open(path, 'w') as f:
        f.write(text)
    os.chmod(path, 0o600)
    return path


def without_keys(t, **env):
    cleared = {name: None for name in ('AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_SESSION_TOKEN',
                                       'AWS_CONFIG_FILE', 'AWS_SHARED_CREDENTIALS_FILE')}
    return dict(cleared, HOME=t.directory, **env)


def reads(t, server, **opts):
    with t.mount(server, **opts) as m:
        t.load(m.file('chunk+1'))
        return m.log_text()


@options(san=True)
def test_profile_files(t):
    server = filled(t, t.s3d(memory=True))
    os.mkdir(os.path.join(t.directory, '.aws'))
    keys = f'aws_access_key_id = {server.access}\naws_secret_access_key = {server.secret}\n'
    write(os.path.join(t.directory, '.aws', 'credentials'),
          f'[default]\naws_access_key_id=X\naws_secret_access_key=Y\n[work]\n{keys}')
    check('profile' in reads(t, server, env=without_keys(t), profile='work'), 'the log does not name the source')
    reads(t, server, env=without_keys(t), credentials='profile:work')
    reads(t, server, env=without_keys(t, AWS_PROFILE='work'))
    script = write(os.path.join(t.directory, 'give-keys'), '#!/bin/sh\ncat <<END\n' + json.dumps(
        {'Version': 1, 'AccessKeyId': server.access, 'SecretAccessKey': server.secret}) + '\nEND\n')
    os.chmod(script, 0o700)
    write(os.path.join(t.directory, '.aws', 'config'), f'[profile made]\ncredential_process = {script}\n')
    reads(t, server, env=without_keys(t), profile='made')


@options(san=True)
def test_session_token(t):
    server = t.s3d(memory=True, session_token='the-token')
    server.declare(BUCKET, 'x', size=MIB)
    with t.mount(server) as m, open(m.file('x'), 'rb') as f:
        equal(len(f.read()), MIB, 'bytes')
    a = Attempt(t, server=server)
    a.env['AWS_SESSION_TOKEN'] = 'another'
    a.refused('HTTP 40[03], code InvalidToken')
    a.env.pop('AWS_SESSION_TOKEN')
    a.refused('HTTP 40[03]')


@options(san=True)
def test_anonymous(t):
    server = t.s3d(memory=True)
    server.declare('public', 'x', size=MIB)
    server.declare('closed', 'x', size=MIB)
    server.set_bucket('public', public=1)
    with t.mount(server, bucket='public', no_sign_request=True, env=without_keys(t)) as m, open(m.file('x'), 'rb') as f:
        equal(len(f.read()), MIB, 'bytes')
    Attempt(t, server=server, bucket='closed').refused('403', '--no-sign-request')
    nobody = t.s3d(memory=True, anonymous=True)
    nobody.declare(BUCKET, 'x', size=MIB)
    with t.mount(nobody, credentials='anonymous', env=without_keys(t)) as m:
        equal(os.stat(m.file('x')).st_size, MIB, 'size')


@options(san=True)
def test_requester_pays(t):
    server = t.s3d(memory=True)
    server.declare(BUCKET, 'x', size=MIB)
    server.set_bucket(BUCKET, requester_pays=1)
    Attempt(t, server=server).refused('403')
    with t.mount(server, requester_pays=True) as m, open(m.file('x'), 'rb') as f:
        equal(len(f.read()), MIB, 'bytes')


class Metadata(http.server.ThreadingHTTPServer):
    """Hands out credentials as a container's agent does; they live for life_s from each request."""

    def __init__(self, server, life_s):
        self.server, self.life_s, self.asked, self.token = server, life_s, 0, 'secret-token'
        super().__init__(('127.0.0.1', 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def reply(self):
        self.asked += 1
        until = time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(time.time() + self.life_s))
        return json.dumps({'AccessKeyId': self.server.access, 'SecretAccessKey': self.server.secret, 'Token': '',
                           'Expiration': until}).encode()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        allowed = self.headers.get('Authorization') == self.server.token
        body = self.server.reply() if allowed else b'{}'
        self.send_response(200 if allowed else 401)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@options(timeout=60)
def test_container_credentials_and_their_renewal(t):
    server = filled(t, t.s3d(memory=True))
    metadata = Metadata(server, 6)
    token = write(os.path.join(t.directory, 'token'), metadata.token)
    env = without_keys(t, AWS_CONTAINER_CREDENTIALS_FULL_URI=f'http://127.0.0.1:{metadata.server_port}/keys',
                       AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=token)
    with t.mount(server, env=env, credentials='container', memory='32MiB') as m:
        t.load(m.file('middle'))
        time.sleep(7)
        t.load(m.file('middle'), drop=True)
        check(metadata.asked > 1, 'credentials that expired were not renewed')
    metadata.shutdown()


@options(timeout=60, san=True)
def test_keys_that_are_changed_at_the_server(t):
    """A profile file is read again when the server refuses the keys that were read from it."""
    server = filled(t, t.s3d(memory=True))
    path = write(os.path.join(t.directory, 'keys'),
                 f'[default]\naws_access_key_id={server.access}\naws_secret_access_key={server.secret}\n')
    m = t.mount(server, env=without_keys(t, AWS_SHARED_CREDENTIALS_FILE=path), metadata_ttl='0', memory='32MiB')
    t.load(m.file('middle'))
    server.set_faults([{'fault': 'status', 'status': 403, 'code': 'ExpiredToken', 'count': 1}])
    t.load(m.file('middle'), drop=True)


@options(transports=NONE, san=True)
def test_virtual_host_style(t):
    """Buckets are part of the host name at AWS alone: a private /etc/hosts leads its names to a server here."""
    domain, address = 's3.us-east-1.amazonaws.com', '127.31.7.3'
    cert, key = make_certificate(t.directory, 'aws', (address, f'a-bucket.{domain}'))
    server = t.s3d(memory=True, cert=cert, key=key, virtual_domain=domain, listen=f'{address}:443')
    server.declare('a-bucket', 'x', body=b'content')
    hosts = write(os.path.join(t.directory, 'hosts'), f'127.0.0.1 localhost\n{address} a-bucket.{domain}\n')
    m = t.mount(server, bucket='a-bucket', start=False)
    script = ('set -e; mount --bind "$1" /etc/hosts; shift; dir="$1"; log="$2"; program="$3"; shift 2; '
              '"$@" --log-file "$log" >"$log.out"; cat "$dir/x"; "$program" unmount "$dir"')
    done = run_program(['unshare', '-m', '--propagation', 'private', 'sh', '-c', script, 'sh', hosts, m.directory,
                        m.path('log'), m.binary, 'mount', 's3://a-bucket', m.directory, '--region', 'us-east-1',
                        '--ca-bundle', cert, '--volume-id', m.volume_id], env=m.environment())
    equal(done, (0, 'content'), 'mounted, read and unmounted')
