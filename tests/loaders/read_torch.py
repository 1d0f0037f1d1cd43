# SPDX-License-Identifier: Apache-2.0
"""Loaders that give torch tensors: safetensors, torch.load, runai-model-streamer, fastsafetensors, tensorizer."""
import os
import sys

from digest import files, main


def safe_open_in_order(directory, digests, order):
    from safetensors import safe_open
    for path in files(directory, '*.safetensors'):
        with safe_open(path, framework='pt') as f:
            for name in getattr(f, order)():
                digests.add_tensor(name, f.get_tensor(name))


def safe_open_keys(directory, digests):
    safe_open_in_order(directory, digests, 'keys')


def safe_open_offset_keys(directory, digests):
    safe_open_in_order(directory, digests, 'offset_keys')


def safetensors_load_file(directory, digests):
    from safetensors.torch import load_file
    for path in files(directory, '*.safetensors'):
        for name, tensor in load_file(path).items():
            digests.add_tensor(name, tensor)


def load(directory, digests, mmap):
    import torch
    state = torch.load(os.path.join(directory, 'checkpoint.pt'), mmap=mmap, weights_only=True)
    for name, tensor in state.items():
        digests.add_tensor(name, tensor)


def torch_load(directory, digests):
    load(directory, digests, False)


def torch_load_mmap(directory, digests):
    load(directory, digests, True)


def runai_stream_files(directory, digests):
    from runai_model_streamer import SafetensorsStreamer
    with SafetensorsStreamer() as streamer:
        streamer.stream_files(files(directory, '*.safetensors'))
        for name, tensor in streamer.get_tensors():
            digests.add_tensor(name, tensor)


def fastsafetensors_load(directory, digests):
    from fastsafetensors import fastsafe_open
    with fastsafe_open(filenames=files(directory, '*.safetensors'), nogds=True, device='cpu') as f:
        for name in f.keys():
            digests.add_tensor(name, f.get_tensor(name))


def tensorizer_load(directory, digests):
    from tensorizer import TensorDeserializer
    with TensorDeserializer(os.path.join(directory, 'model.tensors'), device='cpu', verify_hash=True) as tensors:
        for name in tensors:
            digests.add_tensor(name, tensors[name])


if __name__ == '__main__':
    main(sys.modules[__name__])
