# SPDX-License-Identifier: Apache-2.0
"""The checks of tests/s3d's faults, as bytes on a raw socket; run by check_s3d.py."""
import json
import re
import threading
import time
import urllib.error
import xml.etree.ElementTree as ElementTree

import s3client
from s3d_harness import code_of, split, synthetic, synthetic_seed, with_server

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
