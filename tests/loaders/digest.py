# SPDX-License-Identifier: Apache-2.0
"""What the read_*.py programs share: a digest of every tensor, and their command line.

usage: read_*.py FUNCTION DIRECTORY...

The function loads the model in each directory. The last line printed is a JSON list with, for each directory,
{"tensors": {NAME: DIGEST}, "bytes": BYTES}.
"""
import glob
import hashlib
import json
import os
import sys


class Digests:
    def __init__(self):
        self.tensors, self.bytes = {}, 0

    def add(self, name, kind, shape, data):
        """data: the tensor's bytes, in C order."""
        if name in self.tensors:
            raise ValueError(f'two tensors are called {name}')
        self.tensors[name] = hashlib.sha256(f'{kind} {tuple(shape)} '.encode() + bytes(data)).hexdigest()
        self.bytes += len(data)

    def add_array(self, name, array):
        self.add(name, array.dtype, array.shape, array.tobytes())

    def add_tensor(self, name, tensor):
        import torch
        flat = tensor.detach().contiguous().flatten()
        self.add(name, tensor.dtype, tensor.shape, flat.view(torch.uint8).numpy().tobytes())


def files(directory, pattern):
    found = sorted(glob.glob(os.path.join(glob.escape(directory), pattern)))
    if not found:
        raise FileNotFoundError(f'{directory}: no {pattern}')
    return found


def main(module):
    name, *directories = sys.argv[1:]
    results = []
    for directory in directories:
        digests = Digests()
        getattr(module, name)(directory, digests)
        results.append({'tensors': digests.tensors, 'bytes': digests.bytes})
    print(json.dumps(results), flush=True)
