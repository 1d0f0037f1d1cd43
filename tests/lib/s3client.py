# SPDX-License-Identifier: Apache-2.0
"""A small S3 client for tests: SigV4 (payload unsigned), path style, one keep-alive connection per thread.

It is deliberately independent of the C code under test and never retries: a test must see what the server said.
"""
import concurrent.futures
import datetime
import hashlib
import hmac
import http.client
import os
import ssl
import threading
import urllib.parse
import xml.etree.ElementTree as ElementTree

UNSIGNED = 'UNSIGNED-PAYLOAD'
PART_BYTES = 16 << 20


class S3Error(Exception):
    """A reply that was not a success; .status is the HTTP status, .code the S3 code or ''."""

    def __init__(self, status, code, message):
        super().__init__(f'{status} {code}: {message}')
        self.status = status
        self.code = code


class Reply:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def etag(self):
        return self.headers.get('etag', '').strip('"')


def _quote(text, safe='-_.~'):
    return urllib.parse.quote(text, safe=safe)


def _hmac(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def _strip_namespace(root):
    for node in root.iter():
        node.tag = node.tag.rpartition('}')[2]
    return root


class S3Client:
    def __init__(self, endpoint, access='', secret='', region='us-east-1', ca=None, timeout=60):
        self.url = urllib.parse.urlsplit(endpoint)
        self.access, self.secret, self.region = access, secret, region
        self.timeout = timeout
        self.context = ssl.create_default_context(cafile=ca) if self.url.scheme == 'https' else None
        self.local = threading.local()

    # -- one request --------------------------------------------------------------------------------------------

    def _connection(self):
        conn = getattr(self.local, 'conn', None)
        if conn is None:
            if self.context:
                conn = http.client.HTTPSConnection(self.url.netloc, timeout=self.timeout, context=self.context)
            else:
                conn = http.client.HTTPConnection(self.url.netloc, timeout=self.timeout)
            self.local.conn = conn
        return conn

    def _drop_connection(self):
        conn = getattr(self.local, 'conn', None)
        if conn:
            conn.close()
        self.local.conn = None

    def _sign(self, method, path, query, headers):
        now = datetime.datetime.now(datetime.timezone.utc)
        date, day = now.strftime('%Y%m%dT%H%M%SZ'), now.strftime('%Y%m%d')
        headers['x-amz-date'] = date
        headers['x-amz-content-sha256'] = UNSIGNED
        names = sorted(headers)
        canonical = '\n'.join([method, path, query, *(f'{n}:{headers[n].strip()}' for n in names), '',
                               ';'.join(names), UNSIGNED])
        scope = f'{day}/{self.region}/s3/aws4_request'
        text = '\n'.join(['AWS4-HMAC-SHA256', date, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        key = ('AWS4' + self.secret).encode()
        for part in (day, self.region, 's3', 'aws4_request'):
            key = _hmac(key, part)
        headers['authorization'] = (f'AWS4-HMAC-SHA256 Credential={self.access}/{scope}, '
                                    f'SignedHeaders={";".join(names)}, Signature={_hmac(key, text).hex()}')

    def request(self, method, bucket='', key='', query=None, headers=None, body=b'', check=True):
        path = self.url.path.rstrip('/') + '/' + _quote(bucket)
        if key:
            path += '/' + _quote(key, '-_.~/')
        pairs = sorted((_quote(k), _quote(str(v))) for k, v in (query or {}).items())
        encoded = '&'.join(f'{k}={v}' for k, v in pairs)
        send = {'host': self.url.netloc}
        send.update({k.lower(): v for k, v in (headers or {}).items()})
        if self.access:
            self._sign(method, path, encoded, send)
        send['content-length'] = str(len(body))
        target = path + ('?' + encoded if encoded else '')
        conn = self._connection()
        try:
            conn.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in send.items():
                conn.putheader(name, value)
            conn.endheaders()
            if body:
                conn.send(body)
            raw = conn.getresponse()
            data = raw.read()
        except BaseException:
            self._drop_connection()
            raise
        if raw.will_close:
            self._drop_connection()
        reply = Reply(raw.status, {k.lower(): v for k, v in raw.getheaders()}, data)
        if check and not 200 <= reply.status < 300:
            raise self._error(reply)
        return reply

    @staticmethod
    def _error(reply):
        code, message = '', reply.body[:200].decode(errors='replace')
        try:
            root = _strip_namespace(ElementTree.fromstring(reply.body))
            code, message = root.findtext('Code', ''), root.findtext('Message', '')
        except ElementTree.ParseError:
            pass
        return S3Error(reply.status, code, message)

    # -- buckets ------------------------------------------------------------------------------------------------

    def create_bucket(self, bucket):
        try:
            self.request('PUT', bucket)
        except S3Error as e:
            if e.code != 'BucketAlreadyOwnedByYou':
                raise

    def delete_bucket(self, bucket, purge=False):
        if purge:
            for item in list(self.list(bucket)):
                self.delete(bucket, item['key'])
        self.request('DELETE', bucket)

    # -- objects ------------------------------------------------------------------------------------------------

    def put(self, bucket, key, body, headers=None):
        return self.request('PUT', bucket, key, headers=headers, body=body)

    def get(self, bucket, key, first=None, last=None, headers=None, check=True):
        headers = dict(headers or {})
        if first is not None:
            headers['range'] = f'bytes={first}-{"" if last is None else last}'
        return self.request('GET', bucket, key, headers=headers, check=check)

    def head(self, bucket, key):
        return self.request('HEAD', bucket, key)

    def delete(self, bucket, key):
        return self.request('DELETE', bucket, key)

    def list(self, bucket, prefix='', delimiter='', max_keys=1000):
        """Yields {'key', 'size', 'etag'} and, with a delimiter, {'prefix'}, page by page."""
        query = {'list-type': 2, 'max-keys': max_keys, 'prefix': prefix, 'encoding-type': 'url'}
        if delimiter:
            query['delimiter'] = delimiter
        while True:
            root = _strip_namespace(ElementTree.fromstring(self.request('GET', bucket, query=query).body))
            # Some servers ignore the encoding that was asked for: only the reply says which one it is in.
            decode = urllib.parse.unquote_plus if root.findtext('EncodingType') == 'url' else str
            for node in root.iter('Contents'):
                yield {'key': decode(node.findtext('Key')), 'size': int(node.findtext('Size')),
                       'etag': node.findtext('ETag', '').strip('"')}
            for node in root.iter('CommonPrefixes'):
                yield {'prefix': decode(node.findtext('Prefix'))}
            token = root.findtext('NextContinuationToken')
            if root.findtext('IsTruncated') != 'true' or not token:
                return
            query['continuation-token'] = token

    # -- multipart and many -------------------------------------------------------------------------------------

    def create_multipart(self, bucket, key, headers=None):
        reply = self.request('POST', bucket, key, {'uploads': ''}, headers)
        return _strip_namespace(ElementTree.fromstring(reply.body)).findtext('UploadId')

    def put_part(self, bucket, key, upload, number, body):
        return self.request('PUT', bucket, key, {'partNumber': number, 'uploadId': upload}, body=body).etag

    def complete_multipart(self, bucket, key, upload, etags):
        parts = ''.join(f'<Part><PartNumber>{n}</PartNumber><ETag>"{etag}"</ETag></Part>'
                        for n, etag in enumerate(etags, 1))
        body = f'<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>'.encode()
        reply = self.request('POST', bucket, key, {'uploadId': upload}, body=body)
        if b'<Error>' in reply.body:
            raise self._error(reply)
        return reply

    def abort_multipart(self, bucket, key, upload):
        return self.request('DELETE', bucket, key, {'uploadId': upload})

    def put_file(self, bucket, key, path, jobs=4, part_bytes=PART_BYTES, progress=None):
        """Uploads a file, in parallel parts when it is larger than one; progress(bytes) after each part."""
        size = os.path.getsize(path)

        def part(number):
            with open(path, 'rb') as f:
                f.seek((number - 1) * part_bytes)
                body = f.read(part_bytes)
            etag = self.put_part(bucket, key, upload, number, body)
            if progress:
                progress(len(body))
            return etag

        if size <= part_bytes:
            with open(path, 'rb') as f:
                self.put(bucket, key, f.read())
            if progress:
                progress(size)
            return
        upload = self.create_multipart(bucket, key)
        try:
            with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
                etags = list(pool.map(part, range(1, -(-size // part_bytes) + 1)))
            self.complete_multipart(bucket, key, upload, etags)
        except BaseException:
            self.abort_multipart(bucket, key, upload)
            raise

    def put_many(self, bucket, items, jobs=8):
        """Puts every (key, body) of an iterable."""
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            for future in [pool.submit(self.put, bucket, key, body) for key, body in items]:
                future.result()

    def put_tree(self, bucket, prefix, directory, jobs=4, progress=None):
        """Uploads every file below a directory as prefix + relative path; returns the bytes sent."""
        total = 0
        for parent, _, names in os.walk(directory):
            for name in sorted(names):
                path = os.path.join(parent, name)
                self.put_file(bucket, prefix + os.path.relpath(path, directory), path, jobs, progress=progress)
                total += os.path.getsize(path)
        return total
