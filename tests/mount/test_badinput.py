# SPDX-License-Identifier: Apache-2.0
"""What a user gets wrong: one line that says what and what to do, a status that is not 0 within 10 s, nothing left."""
import glob
import os
import re
import socket
import subprocess

import leftovers
import proc
from build import build_path
from harness import BUCKET, MIB, TAG, check, options
from servers import free_port

NONE = (None,)
WITHIN_S = 10
SERVERS = ('versitygw', 'radosgw', 's3d')


class Attempt:
    """A mount that must be refused."""

    def __init__(self, t, server=None, bucket=BUCKET, endpoint=None):
        self.t, self.server = t, server or t.server
        self.source, self.directory = f's3://{bucket}', os.path.join(t.directory, 'mnt')
        self.run = os.path.join(t.directory, 'run')
        for path in (self.directory, self.run):
            os.makedirs(path, exist_ok=True)
        self.endpoint = endpoint or (self.server.endpoint if self.server else 'http://127.0.0.1:1')
        self.env = self.server.full_environment() if self.server else dict(
            os.environ, AWS_ACCESS_KEY_ID='k', AWS_SECRET_ACCESS_KEY='s', AWS_EC2_METADATA_DISABLED='true')
        self.env['PENSTOCK_RUN_DIR'] = self.run
        self.env[TAG] = t.directory
        self.wrap = ()
        self.region = 'us-east-1'

    def refused(self, pattern, *extra, argv=None):
        if argv is None:
            argv = ['mount', self.source, self.directory, '--endpoint-url', self.endpoint, '--region', self.region]
            argv += extra
        what = f'penstock {" ".join(argv)}'
        before = self.traces()
        status, text, seconds = self.t.penstock(*argv, env=self.env, wrap=self.wrap)
        check(status != 0, f'{what}: exit status 0')
        check(status > 0, f'{what}: ended by signal {-status}')
        check(seconds < WITHIN_S * (2 if self.t.san else 1), f'{what}: took {seconds:.1f} s')
        check(text.endswith('\n') and text.count('\n') == 1, f'{what}: not exactly one line: {text!r}')
        check(text.startswith('penstock: '), f'{what}: no name before {text!r}')
        check(re.search(pattern, text), f'{what}: /{pattern}/ is not in {text!r}')
        try:
            proc.wait_for(lambda: self.traces() == before, 2, 'an end without traces')
        except TimeoutError:
            check(False, f'{what}: before {before}, afterwards {self.traces()}')
        return text

    def traces(self):
        """Mounts, programs and pid files. A daemon that has just begun has a second process for a moment."""
        commands = map(leftovers.command, leftovers.processes(self.t.directory))
        ours = sorted({command for command in commands if command.startswith(build_path('bin', 'penstock'))})
        return (leftovers.mounts(self.t.directory), ours, sorted(glob.glob(glob.escape(self.run) + '/volumes/*.pid')))


@options(transports=NONE, san=True)
def test_source_without_sense(t):
    a = Attempt(t)
    for source in ('', 'data', 'http://data/x', 's3:/data', 's3://', 's3:///x', 's3://UPPER_case!', 's3://a',
                   's3://data/' + 'k' * 1100, 's3://da ta'):
        a.source = source
        a.refused('s3://|bucket|prefix|SOURCE')
    a.source = 's3://' + 'b' * 64
    a.refused('63')


@options(transports=NONE, timeout=120, san=True)
def test_options_without_sense(t):
    a = Attempt(t)
    for option, values in {
            '--memory': ('0', '-1', '5', 'lots', '10XB', '1KiB', '', '99999999999999999999GiB', '1.5.2GiB', '16MiB'),
            '--read-deadline': ('0', '-5s', '10 parsecs', '2h', ''),
            '--metadata-ttl': ('-1', 'x', ''),
            '--max-connections': ('0', '-1', '1025', 'many'),
            '--hedge-percent': ('-1', '1000', 'x'),
            '--read-ahead-kb': ('1', '9999999999', 'x'),
            '--file-mode': ('999', 'rw', '77777'),
            '--uid': ('root!', '-1', '99999999999'),
            '--transport': ('fast', ''),
            '--credentials': ('mine', 'profile:', ''),
            '--log-level': ('loud',),
            '--endpoint-url': ('127.0.0.1:80', 'ftp://x', 'http://', 'http://x:99999', ''),
            '--config': ('/nonexistent/config',)}.items():
        for value in values:
            a.refused(re.escape(option), f'{option}={value}')


@options(transports=NONE, san=True)
def test_unknown_and_refused_options(t):
    a = Attempt(t)
    a.refused('--no-such-thing', '--no-such-thing')
    a.refused('--endpoint', '--endpoint', 'http://x')
    a.refused('-z', '-z')
    a.refused('--cache-dir', '--cache-dir', '/var/cache')
    a.refused('nonsense', '-o', 'nonsense=1')
    a.refused('', 'one-argument-too-many')
    a.refused('', argv=['mount'])
    a.refused('', argv=['mount', 's3://data'])
    a.refused('', argv=['frobnicate'])
    a.refused('', argv=[])
    a.refused('--memory', argv=['mount', 's3://data', a.directory, '--memory'])


@options(transports=NONE, san=True)
def test_mount_point_missing_or_no_directory(t):
    a = Attempt(t)
    real = a.directory
    a.directory = os.path.join(t.directory, 'missing')
    a.refused('missing.*(No such file|exist)')
    a.directory = os.path.join(real, 'file')
    with open(a.directory, 'w') as f:
        f.write('x')
    a.refused('not a directory')
    os.unlink(a.directory)
    os.symlink('nowhere', a.directory)
    a.refused('exist')
    os.unlink(a.directory)
    a.directory = ''
    a.refused('')


@options(servers=('versitygw',), transports=NONE, san=True)
def test_mount_point_busy(t):
    m = t.mount(transport='auto')
    a = Attempt(t)
    a.directory = m.directory
    a.refused('already|unmount')
    a.directory += '/../mnt/'
    a.refused('already|unmount')
    a = Attempt(t)
    a.env['PENSTOCK_RUN_DIR'] = m.run_directory
    a.refused('--volume-id', '--volume-id', m.volume_id)
    t.load(m.file('chunk+1'))


@options(servers=SERVERS, transports=NONE, san=True)
def test_bucket_missing(t):
    text = Attempt(t, bucket='no-such-bucket').refused('no-such-bucket')
    check('NoSuchBucket' in text and '404' in text, f'neither the code nor the status is in {text!r}')


@options(servers=SERVERS, transports=NONE, san=True)
def test_wrong_key_and_secret(t):
    a = Attempt(t)
    a.env['AWS_SECRET_ACCESS_KEY'] = 'wrong'
    text = a.refused('SignatureDoesNotMatch.*(key|secret)')
    check('wrong' not in text.replace('wrong ', ''), f'the secret is in {text!r}')
    a.env = dict(a.env, AWS_ACCESS_KEY_ID='AKIDNOBODY', AWS_SECRET_ACCESS_KEY=a.server.secret)
    a.refused('40[34].*(key|secret)')
    check(a.server.secret not in a.refused('40[34]'), 'the secret is shown')
    a.refused('403', '--no-sign-request')


@options(transports=NONE, san=True)
def test_no_credentials(t):
    a = Attempt(t, server=t.s3d())
    for name in ('AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY'):
        a.env.pop(name)
    a.env['HOME'] = t.directory
    a.refused('credentials')
    a.refused('env|AWS_ACCESS_KEY_ID', '--credentials', 'env')
    a.refused('nobody', '--profile', 'nobody')
    a.refused('AWS_ROLE_ARN|AWS_WEB_IDENTITY_TOKEN_FILE|web.identity', '--credentials', 'web-identity')
    a.refused('container', '--credentials', 'container')
    a.env['AWS_ACCESS_KEY_ID'] = 'half'
    a.refused('AWS_SECRET_ACCESS_KEY', '--credentials', 'env')


@options(servers=('versitygw', 's3d'), transports=NONE, san=True)
def test_wrong_region(t):
    a = Attempt(t)
    a.region = 'eu-mars-1'
    a.refused('--region')


@options(transports=NONE, timeout=90, san=True)
def test_server_that_is_not_there(t):
    port = free_port()
    Attempt(t, endpoint=f'http://127.0.0.1:{port}').refused(f'127.0.0.1:{port}.*(refused|connect).*--endpoint-url')
    Attempt(t, endpoint='http://no-such-host.invalid:1').refused('no-such-host.invalid.*--endpoint-url')


@options(transports=NONE, timeout=60, san=True)
def test_server_that_never_answers(t):
    with socket.socket() as silent:
        silent.bind(('127.0.0.1', 0))
        silent.listen(64)
        for scheme in ('http', 'https'):
            endpoint = f'{scheme}://127.0.0.1:{silent.getsockname()[1]}'
            Attempt(t, endpoint=endpoint).refused('--endpoint-url')


@options(transports=NONE, timeout=60, san=True)
def test_server_that_is_none(t):
    server = t.s3d(memory=True)
    a = Attempt(t, server=server)
    a.endpoint = a.endpoint.replace('http:', 'https:')
    a.refused('--endpoint-url|--ca-bundle')
    server.declare(BUCKET, 'x', size=MIB)
    for fault in ('garbage', 'bad_xml', 'truncate'):
        server.set_faults([{'fault': fault}])
        Attempt(t, server=server).refused(re.escape(server.endpoint))
    server.set_faults([{'fault': 'status', 'status': 503}])
    Attempt(t, server=server).refused('503')


@options(transports=NONE, san=True)
def test_clock_skew(t):
    server = t.s3d(memory=True)
    server.declare(BUCKET, 'x', size=MIB)
    for offset_s in (3600, -3600):
        server.set_clock(offset_s)
        Attempt(t, server=server).refused('clock')


@options(transports=NONE, san=True)
def test_clock_that_jumps_while_mounted(t):
    server = t.s3d(memory=True)
    server.declare(BUCKET, 'x', size=20 * MIB)
    m = t.mount(server, transport='auto', metadata_ttl='0')
    with open(m.file('x'), 'rb') as f:
        before = f.read(MIB)
        server.set_clock(7200)
        after = f.read()
    m.log_wait('clock')
    server.set_clock(0)
    check(before + after == server.client().get(BUCKET, 'x').body, 'wrong bytes after a jump of the clock')


@options(servers=('versitygw',), transports=NONE, san=True)
def test_without_dev_fuse(t):
    a = Attempt(t)
    a.wrap = ('unshare', '-m', '--propagation', 'private', 'sh', '-c', 'mount -t tmpfs none /dev && '
              'mknod /dev/null c 1 3 && mknod /dev/urandom c 1 9 && exec "$@"', 'sh')
    a.refused('/dev/fuse.*modprobe')


@options(servers=('versitygw',), transports=NONE, san=True)
def test_without_root(t):
    a = Attempt(t)
    for path in (os.path.dirname(t.directory), t.directory, a.run):
        os.chmod(path, 0o755)
    a.wrap = ('setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups')
    a.refused('root')
    a.wrap = ('setpriv', '--bounding-set', '-sys_admin', '--inh-caps', '-sys_admin')
    a.refused('root|CAP_SYS_ADMIN')


@options(transports=NONE, san=True)
def test_unmount_of_what_is_not_ours(t):
    a = Attempt(t)
    a.refused('nothing is mounted', argv=['unmount', a.directory])
    a.refused('missing', argv=['unmount', a.directory + '/missing'])
    subprocess.run(['mount', '-t', 'tmpfs', 'none', a.directory], check=True)
    try:
        a.refused('tmpfs', argv=['unmount', a.directory])
    finally:
        subprocess.run(['umount', a.directory], check=True)
