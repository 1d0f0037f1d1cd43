# SPDX-License-Identifier: Apache-2.0
"""radosgw: Ceph's C++ S3 server, as one monitor, one OSD on a sparse file and one gateway, without cephx or a manager.

Needs the packages radosgw, ceph-mon, ceph-osd and ceph-common (apt-get install --no-install-recommends). Their
state is all below the server's own directory, which must lie on a file system with some GiB free.
"""
import os
import platform
import shutil
import subprocess
import uuid

import proc
from servers import Server, Unavailable, free_port

PROGRAMS = ('ceph-mon', 'ceph-osd', 'ceph', 'radosgw', 'radosgw-admin', 'monmaptool')

CONFIG = '''
[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{mon_port}/0]
ms_bind_ipv4 = true
ms_bind_ipv6 = false
public_addr = 127.0.0.1
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
run_dir = {dir}/run
admin_socket = {dir}/run/$name.asok
pid_file = {dir}/run/$name.pid
log_file = {dir}/run/$name.log
log_to_stderr = false
mon_cluster_log_to_file = false
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pgp_num = 8
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_allow_pool_delete = true
mon_max_pg_per_osd = 2000
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
mon_tick_interval = 1
mon_osd_min_down_reporters = 1
mon_data_avail_warn = 1
mon_data_avail_crit = 0
osd_max_object_name_len = 2048
[mon.a]
mon_data = {dir}/mon
mon_pg_warn_min_per_osd = 0
[osd.0]
osd_data = {dir}/osd
osd_objectstore = bluestore
osd_uuid = {osd_uuid}
osd_memory_target = 939524096
bluestore_block_size = {block}
bluestore_block_wal_size = 0
bluestore_block_db_size = 0
bluestore_fsck_on_mount = false
osd_class_dir = {class_dir}
osd_class_load_list = *
osd_class_default_list = *
[client.rgw.a]
rgw_data = {dir}/rgw
ms_mon_client_mode = crc
rgw_frontends = beast endpoint=127.0.0.1:{port}
rgw_dns_name = localhost
rgw_enable_usage_log = false
rgw_enable_ops_log = false
rgw_run_sync_thread = false
rgw_thread_pool_size = 64
rgw_max_chunk_size = 4194304
'''


def class_directory():
    """Where the object classes lie; a release may have compiled in a path that only its build machine had."""
    base = f'/usr/lib/{platform.machine()}-linux-gnu/rados-classes'
    return base if os.path.isdir(base) else '/usr/lib/rados-classes'


class RadosGw(Server):
    name = 'radosgw'
    start_timeout = 90
    block_bytes = 20 << 30

    def __init__(self):
        super().__init__()
        self.mon = self.osd = None

    def command(self, *argv, timeout=60):
        done = subprocess.run(argv, env=self.env, timeout=timeout, stdin=subprocess.DEVNULL, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            raise RuntimeError(f'{" ".join(argv)}: status {done.returncode}: {done.stdout[-500:]}')
        return done.stdout

    def ceph(self, *argv):
        return self.command('ceph', '--connect-timeout', '20', *argv)

    def launch(self):
        missing = [p for p in PROGRAMS if not shutil.which(p)]
        if missing:
            raise Unavailable(f'radosgw: {", ".join(missing)} missing; '
                              'install radosgw, ceph-mon, ceph-osd and ceph-common')
        fsid, osd_uuid, mon_port = str(uuid.uuid4()), str(uuid.uuid4()), free_port()
        for name in ('mon', 'osd', 'run', 'rgw'):
            os.mkdir(self.path(name))
        config = self.path('ceph.conf')
        with open(config, 'w') as f:
            f.write(CONFIG.format(dir=self.directory, fsid=fsid, osd_uuid=osd_uuid, mon_port=mon_port, port=self.port,
                                  block=self.block_bytes, class_dir=class_directory()))
        self.env = dict(os.environ, CEPH_CONF=config)
        self.command('monmaptool', '--create', '--clobber', '--fsid', fsid, '--addv', 'a',
                     f'[v2:127.0.0.1:{mon_port}/0]', self.path('monmap'))
        self.command('ceph-mon', '--mkfs', '-i', 'a', '--monmap', self.path('monmap'))
        self.mon = self.run(['ceph-mon', '-f', '-i', 'a'], env=self.env)
        self.ceph('osd', 'new', osd_uuid)
        self.command('ceph-osd', '-i', '0', '--mkfs')
        self.osd = self.run(['ceph-osd', '-f', '-i', '0'], env=self.env)
        proc.wait_for(lambda: ' 1 up' in self.ceph('osd', 'stat'), 60, 'radosgw: osd', self.osd, interval=0.2)
        release = self.command('ceph-osd', '--version').split()[4]
        self.ceph('osd', 'require-osd-release', release)
        self.process = self.run(['radosgw', '-f', '-n', 'client.rgw.a'], env=self.env)
        proc.wait_for(self.answers, self.start_timeout, self.name, self.process)
        self.command('radosgw-admin', '-n', 'client.rgw.a', 'user', 'create', '--uid=t', '--display-name=t',
                     f'--access-key={self.access}', f'--secret-key={self.secret}')

    def pids(self):
        return proc.tree(self.process.pid) + proc.tree(self.osd.pid)

    def stop(self):
        """Gateway first: without its OSD it would not end."""
        for name in ('process', 'osd', 'mon'):
            child = getattr(self, name)
            if child:
                proc.stop(child)
                setattr(self, name, None)
        super().stop()
