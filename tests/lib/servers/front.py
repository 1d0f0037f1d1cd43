# SPDX-License-Identifier: Apache-2.0
"""An nginx front before an S3 server, for benchmarks: it delays each GET and caps each connection's bandwidth.

Whole-object GETs that were warmed are served from the front's own cache, so that the server behind is not the limit.
It is not S3 in two ways: a cached object is never invalidated, and GETs of it are not authenticated.
"""
import os
import shutil

from servers import Server, Unavailable

MODULES = '/usr/lib/nginx/modules'

CONFIG = '''
load_module {modules}/ndk_http_module.so;
load_module {modules}/ngx_http_lua_module.so;
worker_processes 1;
daemon off;
master_process off;
user root;
pid {dir}/nginx.pid;
error_log {dir}/nginx.log;
events {{ worker_connections 4096; }}
http {{
	access_log off;
	sendfile on;
	tcp_nopush on;
	tcp_nodelay on;
	keepalive_requests 1000000;
	keepalive_timeout 300;
	client_max_body_size 0;
	client_body_temp_path {dir}/body;
	fastcgi_temp_path {dir}/fastcgi;
	uwsgi_temp_path {dir}/uwsgi;
	scgi_temp_path {dir}/scgi;
	proxy_temp_path {dir}/proxy;
	proxy_cache_path {dir}/cache levels=1:2 keys_zone=c:16m max_size=64g inactive=30d use_temp_path=off;
	upstream s3 {{ server {upstream}; keepalive 64; }}
	map $request_method $nocache {{ default 1; GET 0; }}
	map $args $hasargs {{ "" 0; "x-id=GetObject" 0; default 1; }}
	proxy_http_version 1.1;
	proxy_request_buffering off;
	proxy_max_temp_file_size 0;
	proxy_set_header Connection "";
	proxy_set_header Host $http_host;
	proxy_set_header Range $http_range;
	proxy_set_header If-Match $http_if_match;
	proxy_set_header If-None-Match $http_if_none_match;
	proxy_set_header If-Modified-Since $http_if_modified_since;
	proxy_hide_header x-amz-checksum-crc32;
	proxy_hide_header x-amz-checksum-crc32c;
	proxy_hide_header x-amz-checksum-crc64nvme;
	proxy_hide_header x-amz-checksum-sha256;
	proxy_cache c;
	proxy_cache_key $uri;
	proxy_cache_valid 200 30d;
	proxy_ignore_headers Cache-Control Expires Set-Cookie Vary;
	proxy_cache_bypass $nocache $hasargs;
	proxy_no_cache $nocache $hasargs;
	proxy_cache_convert_head off;
	proxy_cache_lock on;
	add_header x-front-cache $upstream_cache_status;
	server {{
		listen 127.0.0.1:{port};
		{limit}
		location / {{
			{delay}
			proxy_pass http://s3;
		}}
	}}
}}
'''


class NginxFront(Server):
    """delay_ms before each request; megabytes_per_s (MiB/s) for each connection, 0 = no cap."""
    name = 'front'

    def __init__(self, upstream, delay_ms=20, mib_per_s=90):
        super().__init__()
        self.upstream, self.delay_ms, self.mib_per_s = upstream, delay_ms, mib_per_s
        self.access, self.secret, self.region = upstream.access, upstream.secret, upstream.region

    def launch(self):
        nginx = shutil.which('nginx', path=os.environ.get('PATH', '') + ':/usr/sbin')
        if not nginx or not os.path.exists(f'{MODULES}/ngx_http_lua_module.so'):
            raise Unavailable('front: nginx with its lua module is missing; '
                              'install nginx-light and libnginx-mod-http-lua')
        delay = f'access_by_lua_block {{ ngx.sleep({self.delay_ms / 1000}) }}' if self.delay_ms else ''
        with open(self.path('nginx.conf'), 'w') as f:
            f.write(CONFIG.format(modules=MODULES, dir=self.directory, port=self.port, delay=delay,
                                  upstream=f'127.0.0.1:{self.upstream.port}',
                                  limit=f'limit_rate {self.mib_per_s}m;' if self.mib_per_s else ''))
        self.process = self.run([nginx, '-c', self.path('nginx.conf'), '-p', self.directory,
                                 '-e', self.path('nginx.log')])

    def warm(self, bucket, keys):
        """Fetches each object once as a whole, so that the front has it; must be called before measuring."""
        client = self.client(timeout=600)
        for key in keys:
            client.get(bucket, key)
            reply = client.get(bucket, key, 0, 0)
            if reply.headers.get('x-front-cache') != 'HIT':
                raise RuntimeError(f'front: {key} is not served from the cache after warming')
