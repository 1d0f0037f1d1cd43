# SPDX-License-Identifier: Apache-2.0
"""Certificates for servers on this machine."""
import os
import subprocess


def make_certificate(directory, name='server'):
    """A self-signed certificate for 127.0.0.1 and localhost; returns (certificate, key), the first is its own CA."""
    cert, key = os.path.join(directory, name + '.pem'), os.path.join(directory, name + '.key')
    subprocess.run(['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes',
                    '-keyout', key, '-out', cert, '-days', '2', '-subj', '/CN=localhost',
                    '-addext', 'subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:*.localhost'],
                   check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return cert, key
