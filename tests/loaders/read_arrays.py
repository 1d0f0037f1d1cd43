# SPDX-License-Identifier: Apache-2.0
"""Loaders that do without torch: numpy, safetensors.numpy, gguf, onnxruntime."""
import os
import sys

import numpy

from digest import files, main


def numpy_load(directory, digests):
    for path in files(directory, '*.npy'):
        digests.add_array(os.path.basename(path), numpy.load(path))


def numpy_load_zip(directory, digests):
    with numpy.load(os.path.join(directory, 'all.npz')) as arrays:
        for name in arrays:
            digests.add_array(name, arrays[name])


def numpy_memmap(directory, digests):
    # An empty array cannot be mapped, by numpy's own rule.
    for path in files(directory, '*.npy'):
        if os.path.basename(path) != 'empty.npy':
            digests.add_array(os.path.basename(path), numpy.load(path, mmap_mode='r'))


def safe_open_in_order(directory, digests, order):
    from safetensors import safe_open
    for path in files(directory, '*.safetensors'):
        with safe_open(path, framework='numpy') as f:
            for name in getattr(f, order)():
                digests.add_array(name, f.get_tensor(name))


def safe_open_keys(directory, digests):
    safe_open_in_order(directory, digests, 'keys')


def safe_open_offset_keys(directory, digests):
    safe_open_in_order(directory, digests, 'offset_keys')


def safetensors_load_file(directory, digests):
    from safetensors.numpy import load_file
    for path in files(directory, '*.safetensors'):
        for name, array in load_file(path).items():
            digests.add_array(name, array)


def gguf_reader(directory, digests):
    from gguf import GGUFReader
    reader = GGUFReader(os.path.join(directory, 'model.gguf'))
    for tensor in reader.tensors:
        digests.add(tensor.name, tensor.tensor_type.name, tensor.shape, tensor.data.tobytes())


def onnx_run(directory, digests):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(os.path.join(directory, 'model.onnx'), options, ['CPUExecutionProvider'])
    width = session.get_inputs()[0].shape[1]
    x = numpy.linspace(-1, 1, 4 * width, dtype=numpy.float32).reshape(4, width)
    names = [output.name for output in session.get_outputs()]
    for name, array in zip(names, session.run(names, {'x': x})):
        digests.add_array(name, array)


if __name__ == '__main__':
    main(sys.modules[__name__])
