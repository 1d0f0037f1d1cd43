# SPDX-License-Identifier: Apache-2.0
"""llama.cpp, through cyllama: the logits of every position of a prompt, which depend on the weights of every layer."""
import os
import sys

import numpy
from cyllama.llama import llama_cpp

from digest import main

PROMPT = list(range(300, 348))


class Model(llama_cpp.LlamaModel):
    @property
    def n_vocab(self):
        """What this version's get_logits_ith() asks the model for and only the vocabulary has."""
        return self.get_vocab().n_vocab


def logits(directory, digests, use_mmap):
    llama_cpp.llama_backend_init()
    llama_cpp.ggml_backend_load_all()
    model_params = llama_cpp.LlamaModelParams()
    model_params.use_mmap = use_mmap
    model_params.n_gpu_layers = 0
    model = Model(os.path.join(directory, 'model.gguf'), model_params)
    params = llama_cpp.LlamaContextParams()
    params.n_ctx = 256
    params.n_threads = params.n_threads_batch = 1
    context = llama_cpp.LlamaContext(model, params)
    batch = llama_cpp.LlamaBatch(n_tokens=len(PROMPT), embd=0, n_seq_max=1)
    for position, token in enumerate(PROMPT):
        batch.add(token, position, [0], True)
    context.decode(batch)
    for position in range(len(PROMPT)):
        digests.add_array(f'logits {position}', numpy.asarray(context.get_logits_ith(position), dtype=numpy.float32))
    context.close()
    model.close()


def mapped(directory, digests):
    logits(directory, digests, True)


def copied(directory, digests):
    logits(directory, digests, False)


if __name__ == '__main__':
    main(sys.modules[__name__])
