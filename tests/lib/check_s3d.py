#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks tests/s3d, the S3 server of the other tests: here what it says to clients, in check_s3d_faults.py its faults.

usage: check_s3d.py [--json-summary FILE] [--program build/tests/s3d] [part of a name...]
"""
import base64
import hashlib
import hmac
import os
import re
import subprocess
import sys
import time
import urllib.parse

import check_s3d_faults
from s3d_harness import ACCESS, SECRET, code_of, main, synthetic, synthetic_seed, with_server


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


if __name__ == '__main__':
    sys.exit(main(vars(check_s3d_faults) | globals()))
