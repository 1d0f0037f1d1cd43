# SPDX-License-Identifier: Apache-2.0
"""Certificates for servers on this machine."""
import os
import subprocess


def make_certificate(directory, name='server', hosts=('127.0.0.1', 'localhost', '*.localhost')):
    """A self-signed certificate for these hosts; returns (certificate, key), the first is its own authority."""
    cert, key = os.path.join(directory, name + '.pem'), os.path.join(directory, name + '.key')
    names = ','.join(f'{"IP" if host[0].isdigit() else "DNS"}:{host}' for host in hosts)
    subprocess.run(['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes',
                    '-keyout', key, '-out', cert, '-days', '2', '-subj', '/CN=localhost',
                    '-addext', f'subjectAltName={names}'],
                   check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return cert, key
