#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks tests/s3d, the S3 server of the other tests.

usage: check_s3d.py [--json-summary FILE] [--program build/tests/s3d] [part of a name...]

Every check is a function check_*(s) that gets a fresh server; faults are looked at on a raw socket, as bytes.
"""
import argparse
import base64
import contextlib
import hashlib
import hmac
import json
import os
import pathlib
import re
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.error
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ElementTree

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import s3client  # noqa: E402

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


# -- objects ----------------------------------------------------------------------------------------------------

def objects(s):
    s.s3.create_bucket('b')
    assert code_of(lambda: s.s3.get('nothing', 'x')) == (404, 'NoSuchBucket')
    assert code_of(lambda: s.s3.get('b', 'x')) == (404, 'NoSuchKey')
    for key in ('plain', 'a b+c%&?#[]é', 'x//y/', '~tilde._-'):
        for size in (0, 1, 65536, 65537, 3000001):
            body = os.urandom(size)
            reply = s.s3.put('b', key, body, {'x-amz-meta-Colour': 'blue'})
            assert reply.etag == hashlib.md5(body).hexdigest()
            reply = s.s3.get('b', key)
            assert reply.body == body and reply.etag == hashlib.md5(body).hexdigest()
            assert reply.headers['x-amz-meta-colour'] == 'blue' and reply.headers['x-amz-request-id']
            head = s.s3.head('b', key)
            assert int(head.headers['content-length']) == size and head.body == b''
    etag = reply.headers['etag']
    for text, first, last in (('0-0', 0, 0), ('5-', 5, 3000000), ('-7', 2999994, 3000000), ('9-9999999', 9, 3000000)):
        reply = s.s3.get('b', key, headers={'range': 'bytes=' + text})
        assert reply.status == 206 and reply.body == body[first:last + 1], text
        assert reply.headers['content-range'] == f'bytes {first}-{last}/3000001'
    reply = s.s3.get('b', key, headers={'range': 'bytes=3000001-'}, check=False)
    assert reply.status == 416 and reply.headers['content-range'] == 'bytes */3000001'
    assert s.s3.get('b', key, headers={'range': 'bytes=9-3'}).status == 200
    assert s.s3.get('b', key, headers={'if-match': etag}).status == 200
    assert s.s3.get('b', key, headers={'if-match': '"nope"'}, check=False).status == 412
    assert s.s3.get('b', key, headers={'if-none-match': etag}, check=False).status == 304
    modified = reply.headers['date']
    assert s.s3.get('b', key, headers={'if-modified-since': modified}, check=False).status == 304
    s.s3.request('PUT', 'b', 'copy', headers={'x-amz-copy-source': urllib.parse.quote('b/' + key)})
    assert s.s3.get('b', 'copy').body == body
    large = os.urandom(9000001)
    s.s3.put('b', 'large', large)
    assert s.s3.get('b', 'large').body == large and s.s3.get('b', 'large', 1, 8999999).body == large[1:9000000]
    s.s3.delete('b', key)
    s.s3.delete('b', key)
    assert code_of(lambda: s.s3.get('b', key)) == (404, 'NoSuchKey')
    keys = [item['key'] for item in s.s3.list('b')]
    entries = ''.join(f'<Object><Key>{k.replace("&", "&amp;")}</Key></Object>' for k in keys)
    document = f'<Delete>{entries}</Delete>'
    assert code_of(lambda: s.s3.delete_bucket('b')) == (409, 'BucketNotEmpty')
    s.s3.request('POST', 'b', query={'delete': ''}, body=document.encode())
    assert list(s.s3.list('b')) == []
    s.s3.delete_bucket('b')
    assert code_of(lambda: s.s3.request('HEAD', 'b'))[0] == 404


def check_objects_in_memory(s):
    objects(s)


@with_server(root=True)
def check_objects_on_disk(s):
    objects(s)
    assert sorted(os.listdir(s.dir.name)) == ['port'], 'bodies must have no names'


@with_server(tls=True, root=True)
def check_objects_over_tls(s):
    objects(s)


@with_server(options=('--virtual-domain', 's3.test'), auth=False)
def check_virtual_host_style(s):
    s.s3.create_bucket('my-bucket')
    s.s3.put('my-bucket', 'k/1', b'hello')
    with s.connect() as sock:
        sock.sendall(b'GET /k/1 HTTP/1.1\r\nHost: my-bucket.s3.test:99\r\nConnection: close\r\n\r\n')
        assert sock.makefile('rb').read().endswith(b'\r\n\r\nhello')


def check_checksums_and_content_md5(s):
    s.s3.create_bucket('b')
    body = b'123456789'
    sums = {'crc32': 'y/Q5Jg==', 'crc32c': '4waSgw==', 'crc64nvme': 'rosUhgp5mIg=',
            'sha1': base64.b64encode(hashlib.sha1(body).digest()).decode(),
            'sha256': base64.b64encode(hashlib.sha256(body).digest()).decode()}
    for name, value in sums.items():
        header = f'x-amz-checksum-{name}'
        s.s3.put('b', 'k', body, {header: value})
        assert header not in s.s3.head('b', 'k').headers
        reply = s.s3.get('b', 'k', headers={'x-amz-checksum-mode': 'ENABLED'})
        assert reply.headers[header] == value and reply.headers['x-amz-checksum-type'] == 'FULL_OBJECT'
        assert header not in s.s3.get('b', 'k', 0, 3, {'x-amz-checksum-mode': 'ENABLED'}).headers
        assert code_of(lambda: s.s3.put('b', 'k', b'other', {header: value})) == (400, 'BadDigest')
    md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
    s.s3.put('b', 'k', body, {'content-md5': md5})
    assert code_of(lambda: s.s3.put('b', 'k', b'other', {'content-md5': md5})) == (400, 'BadDigest')
    chunked = b'5\r\n12345\r\n4\r\n6789\r\n0\r\nx-amz-checksum-crc64nvme:' + sums['crc64nvme'].encode() + b'\r\n\r\n'
    headers = {'content-encoding': 'aws-chunked', 'x-amz-decoded-content-length': '9'}
    s.s3.put('b', 'k', chunked, headers)
    reply = s.s3.get('b', 'k', headers={'x-amz-checksum-mode': 'ENABLED'})
    assert reply.body == body and reply.headers['x-amz-checksum-crc64nvme'] == sums['crc64nvme']
    wrong = chunked.replace(b'6789', b'6780')
    assert code_of(lambda: s.s3.put('b', 'k', wrong, headers)) == (400, 'BadDigest')
    assert code_of(lambda: s.s3.put('b', 'k', chunked[:12], headers)) == (400, 'IncompleteBody')


@with_server(root=True)
def check_multipart(s):
    s.s3.create_bucket('b')
    parts = [os.urandom(200000), os.urandom(5 << 20), b'', os.urandom(7)]
    whole = b''.join(parts)
    upload = s.s3.create_multipart('b', 'm', {'x-amz-checksum-algorithm': 'CRC64NVME', 'x-amz-meta-a': '1'})
    etags = [s.s3.put_part('b', 'm', upload, n, part) for n, part in enumerate(parts, 1)]
    listed = s.s3.request('GET', 'b', 'm', {'uploadId': upload}).body
    assert listed.count(b'<Part>') == 4 and upload.encode() in s.s3.request('GET', 'b', query={'uploads': ''}).body
    assert code_of(lambda: s.s3.complete_multipart('b', 'm', upload, etags[:2] + ['0' * 32])) == (400, 'InvalidPart')
    s.s3.complete_multipart('b', 'm', upload, etags)
    reply = s.s3.get('b', 'm', headers={'x-amz-checksum-mode': 'ENABLED'})
    digest = hashlib.md5(b''.join(hashlib.md5(part).digest() for part in parts)).hexdigest()
    assert reply.body == whole and reply.etag == digest + '-4' and reply.headers['x-amz-meta-a'] == '1'
    s.s3.put('b', 'again', whole, {'x-amz-checksum-crc64nvme': reply.headers['x-amz-checksum-crc64nvme']})
    for first, last in ((199999, 200000), (0, len(whole) - 1), (200000 + (5 << 20) - 1, len(whole) - 1)):
        assert s.s3.get('b', 'm', first, last).body == whole[first:last + 1]
    upload = s.s3.create_multipart('b', 'gone')
    s.s3.put_part('b', 'gone', upload, 1, b'x')
    s.s3.abort_multipart('b', 'gone', upload)
    assert code_of(lambda: s.s3.put_part('b', 'gone', upload, 1, b'x')) == (404, 'NoSuchUpload')


def check_authorization(s):
    s.s3.create_bucket('b')
    s.s3.put('b', 'k', b'x')
    get = lambda **changes: code_of(lambda: s.client(**changes).get('b', 'k'))  # noqa: E731
    assert get() == (200, '')
    assert get(access='') == (403, 'AccessDenied')
    assert get(access='AKIAOTHER') == (403, 'InvalidAccessKeyId')
    assert get(secret='wrong') == (403, 'SignatureDoesNotMatch')
    assert get(region='eu-west-9') == (400, 'AuthorizationHeaderMalformed')
    reply = s.client(region='eu-west-9').get('b', 'k', check=False)
    assert b'<Region>us-east-1</Region>' in reply.body
    assert code_of(lambda: s.s3.get('b', 'k', headers={'x-amz-security-token': 'no'})) == (400, 'InvalidToken')
    s.control('POST', 'clock', offset_s=3600)
    assert get() == (403, 'RequestTimeTooSkewed')
    s.control('POST', 'clock', offset_s=0)
    s.control('POST', 'bucket', bucket='b', public=1)
    assert get(access='') == (200, '')
    s.control('POST', 'bucket', bucket='b', requester_pays=1)
    assert get() == (403, 'AccessDenied')
    assert s.s3.get('b', 'k', headers={'x-amz-request-payer': 'requester'}).body == b'x'


@with_server(options=('--session-token', 'tok/en=='))
def check_session_token(s):
    assert code_of(lambda: s.s3.create_bucket('b')) == (403, 'InvalidAccessKeyId')
    s.s3.request('PUT', 'b', headers={'x-amz-security-token': 'tok/en=='})


def check_presigned_urls(s):
    s.s3.create_bucket('b')
    s.s3.put('b', 'k', b'presigned')

    def get(seconds_ago, **extra):
        now = time.gmtime(time.time() - seconds_ago)
        date, day = time.strftime('%Y%m%dT%H%M%SZ', now), time.strftime('%Y%m%d', now)
        query = {'X-Amz-Algorithm': 'AWS4-HMAC-SHA256', 'X-Amz-Credential': f'{ACCESS}/{day}/us-east-1/s3/aws4_request',
                 'X-Amz-Date': date, 'X-Amz-Expires': '60', 'X-Amz-SignedHeaders': 'host'}
        text = urllib.parse.urlencode(sorted(query.items()), quote_via=urllib.parse.quote)
        canonical = f'GET\n/b/k\n{text}\nhost:x\n\nhost\nUNSIGNED-PAYLOAD'
        signed = '\n'.join(['AWS4-HMAC-SHA256', date, f'{day}/us-east-1/s3/aws4_request',
                            hashlib.sha256(canonical.encode()).hexdigest()])
        key = ('AWS4' + SECRET).encode()
        for part in (day, 'us-east-1', 's3', 'aws4_request', signed):
            key = hmac.digest(key, part.encode(), 'sha256')
        text += ''.join(f'&{name}={value}' for name, value in extra.items())
        return s.raw(f'/b/k?{text}&X-Amz-Signature={key.hex()}', headers='Connection: close\r\n')[0]
    assert get(5).endswith(b'presigned')
    assert b'SignatureDoesNotMatch' in get(5, partNumber=1)
    assert b'Request has expired' in get(100)


def check_another_signer_agrees(s):
    s.s3.create_bucket('b')
    key = '/b/odd%20name%2Bplus/%C3%A9'
    curl = ['curl', '-sS', '-f', '--aws-sigv4', 'aws:amz:us-east-1:s3', '-u', f'{ACCESS}:{SECRET}',
            '-H', 'x-amz-content-sha256: UNSIGNED-PAYLOAD']
    subprocess.run([*curl, '-T', '-', '-H', 'Expect:', s.url + key], input=b'via curl', check=True)
    assert subprocess.run([*curl, s.url + key], check=True, capture_output=True).stdout == b'via curl'
    assert s.s3.get('b', 'odd name+plus/é').body == b'via curl'


def check_archived_and_restored(s):
    s.s3.create_bucket('b')
    s.s3.put('b', 'k', b'cold', {'x-amz-storage-class': 'GLACIER'})
    assert code_of(lambda: s.s3.get('b', 'k')) == (403, 'InvalidObjectState')
    assert s.s3.head('b', 'k').headers['x-amz-storage-class'] == 'GLACIER'
    s.control('PUT', 'object', bucket='b', key='k', restored=1)
    reply = s.s3.get('b', 'k')
    assert reply.body == b'cold' and 'ongoing-request="false"' in reply.headers['x-amz-restore']


# -- lists ------------------------------------------------------------------------------------------------------

def check_lists(s):
    keys = ['a', 'a/', 'a/1', 'a/b/c', 'a0', 'b+ &<é', 'b/x', 'b/y', 'z\x01', '\U0001f600', '\uffff']
    s.s3.create_bucket('b')
    for key in keys:
        s.s3.put('b', key, b'v')
    ordered = sorted(keys, key=lambda k: k.encode())
    for page in (1, 2, 3, 1000):
        assert [i['key'] for i in s.s3.list('b', max_keys=page)] == ordered, page
        found = list(s.s3.list('b', delimiter='/', max_keys=page))
        assert [i['prefix'] for i in found if 'prefix' in i] == ['a/', 'b/']
        assert [i['key'] for i in found if 'key' in i] == [k for k in ordered if '/' not in k], page
        assert [i['key'] for i in s.s3.list('b', 'a/', max_keys=page)] == ['a/', 'a/1', 'a/b/c']
    body = s.s3.request('GET', 'b', query={'list-type': 2, 'start-after': 'a/1', 'max-keys': 2}).body
    assert re.findall(rb'<Key>(.*?)</Key>', body) == [b'a/b/c', b'a0']
    assert b'<Key>b+%20' not in body and b'z&#x1;' in s.s3.request('GET', 'b', query={'list-type': 2}).body
    body = s.s3.request('GET', 'b', query={'max-keys': 2, 'delimiter': '/', 'marker': 'a/'}).body
    assert re.findall(rb'<Key>(.*?)</Key>', body) == [b'a0', b'b+ &amp;&lt;\xc3\xa9'], body
    assert b'<Name>b</Name>' in s.s3.request('GET').body


def check_a_million_keys(s):
    s.control('POST', 'generate', bucket='big', prefix='dir/key-', count=1000000, size=1 << 33)
    token, pages, seen, slowest = None, 0, 0, 0
    last = ''
    while True:
        query = {'list-type': 2, 'prefix': 'dir/', 'delimiter': '/'}
        if token:
            query['continuation-token'] = token
        began = time.monotonic()
        body = s.s3.request('GET', 'big', query=query).body
        slowest = max(slowest, time.monotonic() - began)
        names = re.findall(r'<Key>(.*?)</Key>', body.decode())
        assert last < names[0] and names == sorted(names)
        pages, seen, last = pages + 1, seen + len(names), names[-1]
        token = re.search(r'<NextContinuationToken>(.*?)<', body.decode())
        if not token:
            break
        token = token[1]
    assert (pages, seen, last) == (1000, 1000000, 'dir/key-00999999')
    print(f'    slowest page of 1,000,000 keys: {slowest * 1000:.1f} ms')


def check_synthetic_bytes(s):
    s.control('PUT', 'object', bucket='b', key='sparse', size=5 << 40)
    seed = synthetic_seed('b', 'sparse')
    assert int(s.s3.head('b', 'sparse').headers['content-length']) == 5 << 40
    for first, length in ((0, 70000), (65535, 2), ((5 << 40) - 100000, 100000), (1234567890123, 300000)):
        reply = s.s3.get('b', 'sparse', first, first + length - 1)
        assert reply.body == synthetic(seed, first, length), first
        assert reply.headers['x-s3d-seed'] == f'{seed:016x}'
    s.control('PUT', 'object', bucket='b', key='summed', size=1000001, checksum='crc64nvme')
    reply = s.s3.get('b', 'summed', headers={'x-amz-checksum-mode': 'ENABLED'})
    assert reply.body == synthetic(synthetic_seed('b', 'summed'), 0, 1000001)
    s.s3.put('b', 'again', reply.body, {'x-amz-checksum-crc64nvme': reply.headers['x-amz-checksum-crc64nvme']})
    before = s.s3.head('b', 'summed').etag
    s.control('POST', 'replace', bucket='b', key='summed')
    after = s.s3.get('b', 'summed')
    assert after.etag != before and after.body != reply.body and len(after.body) == 1000001
    assert after.body == synthetic(int(after.headers['x-s3d-seed'], 16), 0, 1000001)
    s.control('PUT', 'object', b'given bytes', bucket='b', key='given', mtime=1000000000)
    reply = s.s3.get('b', 'given')
    assert reply.body == b'given bytes' and reply.headers['last-modified'] == 'Sun, 09 Sep 2001 01:46:40 GMT'


# -- faults, on the wire ------------------------------------------------------------------------------------------

SIZE = 100000


def fault_setup(s):
    s.control('PUT', 'object', bucket='b', key='k', size=SIZE)
    return synthetic(synthetic_seed('b', 'k'), 0, SIZE)


@with_server(auth=False)
def check_fault_status_and_redirect(s):
    fault_setup(s)
    s.fault('status', status=500, code='InternalError', count=2)
    for _ in range(2):
        head, body = split(s.raw('/b/k', headers='Connection: close\r\n')[0])
        assert head.startswith('HTTP/1.1 500 ') and b'<Code>InternalError</Code>' in body
    assert s.s3.get('b', 'k').status == 200
    s.fault('status', status=503)
    assert code_of(lambda: s.s3.get('b', 'k')) == (503, 'SlowDown')
    s.fault('redirect', status=302, location='http://127.0.0.1:1/nowhere')
    reply = s.s3.get('b', 'k', check=False)
    assert reply.status == 302 and reply.headers['location'] == 'http://127.0.0.1:1/nowhere' and reply.body == b''
    assert reply.headers['content-length'] == '0'
    s.fault('redirect')
    reply = s.s3.get('b', 'k', check=False)
    assert reply.status == 307 and reply.headers['location'] == '/b/k'
    assert s.stats()['faults'] == {'status': 3, 'redirect': 2}


def breaking_faults(s):
    data = fault_setup(s)
    # Python's ssl does not tell a reset from an end without a farewell.
    broken = ('reset', 'closed', 'tls') if s.context else ('reset',)
    s.fault('reset_before')
    reply, end = s.raw('/b/k')
    assert reply == b'' and end in broken
    s.fault('reset_mid', after_bytes=777)
    reply, end = s.raw('/b/k')
    assert split(reply)[1] == data[:777] and end in broken and f'Content-Length: {SIZE}' in split(reply)[0]
    s.fault('truncate')
    reply, end = s.raw('/b/k')
    assert split(reply)[1] == data[:SIZE // 2] and end in ('closed', 'tls')
    s.fault('stall', after_bytes=10)
    reply, end = s.raw('/b/k', wait=0.5)
    assert split(reply)[1] == data[:10] and end == 'timeout'
    s.fault('stall', after_bytes=10, ms=300)
    began = time.monotonic()
    assert s.s3.get('b', 'k').body == data and time.monotonic() - began > 0.25
    s.fault('stall_first_byte', ms=300)
    began = time.monotonic()
    assert s.s3.get('b', 'k').body == data and time.monotonic() - began > 0.25
    s.fault('stall_first_byte')
    assert s.raw('/b/k', wait=0.5) == (b'', 'timeout')
    s.fault('no_reply')
    assert s.raw('/b/k', wait=0.5) == (b'', 'timeout')
    s.fault('garbage')
    reply, end = s.raw('/b/k')
    assert len(reply) == 512 and not reply.startswith(b'HTTP') and end in ('closed', 'tls')
    s.fault('trickle', bytes_per_s=2000)
    reply, end = s.raw('/b/k', headers='Range: bytes=0-999\r\n', wait=0.2)
    assert split(reply)[1] == data[:1000] and end == 'timeout'
    began = time.monotonic()
    assert len(s.s3.get('b', 'k', 0, 999).body) == 1000 and time.monotonic() - began > 0.4
    s.fault('slow_headers', ms=1)
    reply, end = s.raw('/b/k')
    assert split(reply)[1] == data and reply.startswith(b'HTTP/1.1 200 OK\r\n') and end in ('closed', 'tls')
    s.fault('drop_keepalive')
    reply, end = s.raw('/b/k')
    assert split(reply)[1] == data and end in ('closed', 'tls') and 'close' not in split(reply)[0].lower()
    s.fault('flip_body', after_bytes=70000)
    body = s.s3.get('b', 'k').body
    assert [i for i in range(SIZE) if body[i] != data[i]] == [70000]
    s.fault('lie_length_long', delta=5)
    reply, end = s.raw('/b/k', wait=0.5)
    assert split(reply)[1] == data and f'Content-Length: {SIZE + 5}' in split(reply)[0] and end == 'timeout'
    s.fault('lie_length_short', delta=5)
    reply, end = s.raw('/b/k', wait=0.5)
    assert split(reply)[1] == data and f'Content-Length: {SIZE - 5}' in split(reply)[0]
    s.control('POST', 'reset')
    assert s.s3.get('b', 'k').body == data


@with_server(auth=False)
def check_faults_that_break_the_wire(s):
    breaking_faults(s)


@with_server(auth=False, tls=True)
def check_faults_that_break_tls(s):
    breaking_faults(s)
    s.fault('flip_tls')
    with s.connect() as sock:
        reply, end = s.raw('/b/k', sock=sock)
    assert end == 'tls' and len(reply) < SIZE, (len(reply), end)
    assert s.stats()['faults'] == {'flip_tls': 1}


@with_server(auth=False)
def check_faults_that_lie(s):
    data = fault_setup(s)
    etag = s.s3.head('b', 'k').headers['etag']
    s.fault('replace_between', skip=1, count=1)
    assert s.s3.get('b', 'k', 0, 9, {'if-match': etag}).body == data[:10]
    assert s.s3.get('b', 'k', 10, 19, {'if-match': etag}, check=False).status == 412
    reply = s.s3.get('b', 'k', 10, 19)
    assert reply.headers['etag'] != etag and reply.body != data[10:20]
    data = s.s3.get('b', 'k').body
    s.fault('ignore_if_match')
    assert s.s3.get('b', 'k', 0, 9, {'if-match': '"other"'}).status == 206
    s.fault('wrong_range')
    reply = s.s3.get('b', 'k', 0, 9)
    assert reply.headers['content-range'] == f'bytes 10-19/{SIZE}' and reply.body == data[10:20]
    s.fault('whole_200')
    reply = s.s3.get('b', 'k', 0, 9)
    assert reply.status == 200 and reply.body == data
    s.fault('no_etag')
    assert 'etag' not in s.s3.get('b', 'k').headers
    s.control('POST', 'generate', bucket='b', prefix='many', count=1500, size=1)
    s.control('POST', 'reset')
    first = s.s3.request('GET', 'b', query={'list-type': 2}).body
    s.fault('bad_xml')
    reply = s.s3.request('GET', 'b', query={'list-type': 2})
    assert reply.status == 200 and not reply.body.endswith(b'</ListBucketResult>')
    s.fault('flip_body')
    assert sum(a != b for a, b in zip(first, s.s3.request('GET', 'b', query={'list-type': 2}).body)) == 1
    s.fault('list_repeat')
    first = s.s3.request('GET', 'b', query={'list-type': 2}).body
    token = re.search(rb'<NextContinuationToken>(.*?)<', first)[1].decode()
    second = s.s3.request('GET', 'b', query={'list-type': 2, 'continuation-token': token}).body
    assert re.findall(b'<Key>.*?</Key>', first) == re.findall(b'<Key>.*?</Key>', second)
    assert b'<IsTruncated>true' in second


@with_server(auth=False)
def check_fault_rules_are_repeatable(s):
    fault_setup(s)

    def draw(seed):
        s.fault('status', seed=seed, rate=0.3, match={'method': 'GET', 'prefix': 'k', 'has_range': True})
        return [s.s3.get('b', 'k', 0, 0, check=False).status for _ in range(200)]
    one, other = draw(7), draw(8)
    assert draw(7) == one != other and 30 < one.count(503) < 90
    assert s.s3.get('b', 'k').status == 200 and s.s3.head('b', 'k').status == 200
    for bad in (b'{', b'{"rules":[{"fault":"no such"}]}', b'{"rules":[{"fault":"status","staus":1}]}', b'[]'):
        try:
            s.control('POST', 'faults', bad)
            raise AssertionError(bad)
        except urllib.error.HTTPError as e:
            assert e.code == 400 and json.loads(e.read())['error']


@with_server(auth=False)
def check_outage(s):
    fault_setup(s)
    for mode, error in (('refuse', ConnectionRefusedError), ('reset', ConnectionResetError)):
        with s.connect() as idle:
            s.raw('/b/k', sock=idle, wait=0.2)
            s.control('POST', 'outage', ms=700, mode=mode)
            time.sleep(0.1)
            try:
                got = idle.recv(1)
            except ConnectionResetError:
                got = b''
            assert got == b''
        try:
            end = s.raw('/b/k')[1]
            assert mode == 'reset' and end == 'reset'
        except (ConnectionRefusedError, ConnectionResetError, BrokenPipeError) as e:
            assert isinstance(e, (error, BrokenPipeError))
        time.sleep(1)
        assert s.client().get('b', 'k').status == 200


@with_server(auth=False, options=('--latency-ms', '100', '--conn-rate', '1000000'))
def check_latency_and_rate(s):
    s.control('PUT', 'object', bucket='b', key='k', size=500000)
    began = time.monotonic()
    assert len(s.s3.get('b', 'k').body) == 500000
    assert time.monotonic() - began > 0.55
    s.control('POST', 'latency', ms=0)
    s.control('POST', 'rate', bytes_per_s=0)
    assert len(s.s3.get('b', 'k').body) == 500000


@with_server(options=('--log', '/dev/null'))
def check_stats_and_log(s):
    s.s3.create_bucket('b')
    s.control('POST', 'reset')
    s.s3.put('b', 'k', b'12345')
    s.s3.get('b', 'k', 1, 3)
    code_of(lambda: s.s3.get('b', 'none'))
    stats = s.stats()
    assert stats['requests'] == {'put': {'200': 1}, 'get': {'206': 1, '404': 1}}, stats
    assert stats['requests_total'] == 3 and stats['concurrent_max'] == 1
    log = s.log()
    assert [(i['method'], i['key'], i['range'], i['status']) for i in log] == [
        ('PUT', 'k', '', 200), ('GET', 'k', 'bytes=1-3', 206), ('GET', 'none', '', 404)]
    assert log[1]['bytes'] == 3 and log[1]['bucket'] == 'b'


@with_server(auth=False, root=True, options=('--threads', '4'))
def check_many_clients_at_once(s):
    """Reads, writes, deletes, lists and faults together: no wrong byte, and the server lives."""
    s.s3.create_bucket('b')
    rules = [{'fault': name, 'rate': 0.03, 'ms': 50} for name in (
        'status', 'reset_before', 'reset_mid', 'stall', 'truncate', 'garbage', 'slow_headers', 'drop_keepalive',
        'lie_length_short')]
    for rule in rules:
        if rule['fault'] == 'slow_headers':
            rule['ms'] = 1
    s.control('POST', 'faults', {'seed': 3, 'rules': rules})
    problems = []

    def work(n):
        client = s.client(timeout=5)
        for i in range(60):
            body = bytes([n, i]) * (100000 if i % 7 == 0 else 50)
            try:
                client.put('b', f'k{n}', body)
                got = client.get('b', f'k{n}')
                if got.body not in (body, body[:-1]):
                    problems.append((n, i, len(got.body)))
                list(client.list('b'))
                if i % 10 == 0:
                    client.delete('b', f'k{n}')
            except (OSError, s3client.S3Error, s3client.http.client.HTTPException, ElementTree.ParseError):
                pass
    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not problems, problems
    s.control('POST', 'reset')
    assert s.s3.put('b', 'last', b'1').status == 200
    deadline = time.monotonic() + 20
    while s.stats()['concurrent']:
        assert time.monotonic() < deadline, 'a request is never done'


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


def main():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument('--json-summary')
    parser.add_argument('--program', default='build/tests/s3d')
    parser.add_argument('names', nargs='*')
    args = parser.parse_args()
    checks = [fn for name, fn in globals().items() if name.startswith('check_')]
    if args.names:
        checks = [fn for fn in checks if any(part in fn.__name__ for part in args.names)]
    if not checks:
        parser.error('no check has such a name')
    passed = sum(run(check, args.program) for check in checks)
    if args.json_summary:
        with open(args.json_summary, 'w') as f:
            json.dump({'passed': passed, 'failed': len(checks) - passed, 'skipped': 0}, f)
    return passed != len(checks)


if __name__ == '__main__':
    sys.exit(main())
