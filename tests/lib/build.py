# SPDX-License-Identifier: Apache-2.0
"""Where the programs under test lie: build/, or $PENSTOCK_BUILD such as build/san-address-undefined."""
import os

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.abspath(os.environ.get('PENSTOCK_BUILD') or os.path.join(ROOT, 'build'))


def build_path(*names):
    return os.path.join(BUILD, *names)
