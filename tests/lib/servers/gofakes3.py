# SPDX-License-Identifier: Apache-2.0
"""gofakes3: an S3 server that is wrong on purpose here: no authentication, If-Match ignored on GET, and a 206 that
carries the whole object's checksum. A client must notice or survive."""
from servers import Server, go_binary

VERSION = 'v1.2.0'


class GoFakeS3(Server):
    name = 'gofakes3'

    def launch(self):
        binary = go_binary('gofakes3', 'github.com/johannesboyne/gofakes3/cmd/gofakes3', VERSION)
        self.process = self.run([binary, '-host', f'127.0.0.1:{self.port}', '-backend', 'mem'])
