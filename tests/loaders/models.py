# SPDX-License-Identifier: Apache-2.0
"""Writes one small model with its format's own writer. Runs in the loaders' environment.

usage: models.py NAME DIRECTORY

Shapes are odd on purpose: tensors that start off page borders, cross chunks of 8 MiB, or are scalars or empty. The
bytes are random and the same in every run.
"""
import os
import sys

SEED = 11
VOCABULARY, WIDTH, HIDDEN, LAYERS, HEADS = 4096, 512, 1376, 6, 8


def random_arrays():
    import numpy
    random = numpy.random.default_rng(SEED)
    return {
        'weight': random.standard_normal((1537, 1801), dtype=numpy.float32),
        'half': random.standard_normal((3001, 1021), dtype=numpy.float32).astype(numpy.float16),
        'position': random.integers(-1 << 62, 1 << 62, (70001,), dtype=numpy.int64),
        'mask': random.integers(0, 2, (333, 1001)).astype(bool),
        'bytes': random.integers(0, 256, (1000003,), dtype=numpy.uint8),
        'scalar': numpy.array(random.standard_normal()),
        'empty': numpy.zeros((0, 7), dtype=numpy.float32),
    }


def arrays(directory):
    """numpy.save in both memory orders, numpy.savez, safetensors.numpy.save_file."""
    import numpy
    from safetensors.numpy import save_file
    made = random_arrays()
    for name, array in made.items():
        numpy.save(os.path.join(directory, f'{name}.npy'), array)
    numpy.save(os.path.join(directory, 'columns.npy'), numpy.asfortranarray(made['weight']))
    numpy.savez(os.path.join(directory, 'all.npz'), **made)
    for number in (1, 2):
        save_file({f'{name}.{number}': array for name, array in made.items()},
                  os.path.join(directory, f'model-{number:05}-of-00002.safetensors'))


def gguf(directory):
    """A llama of random weights in F32, F16 and Q8_0, with a vocabulary, such as llama.cpp runs."""
    import numpy
    from gguf import GGMLQuantizationType, GGUFWriter, TokenType
    from gguf.quants import quantize
    random = numpy.random.default_rng(SEED)
    w = GGUFWriter(os.path.join(directory, 'model.gguf'), 'llama')
    w.add_context_length(256)
    w.add_embedding_length(WIDTH)
    w.add_block_count(LAYERS)
    w.add_feed_forward_length(HIDDEN)
    w.add_head_count(HEADS)
    w.add_head_count_kv(HEADS // 2)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_dimension_count(WIDTH // HEADS)
    w.add_vocab_size(VOCABULARY)
    special = ['<unk>', '<s>', '</s>'] + [f'<0x{byte:02X}>' for byte in range(256)]
    tokens = special + [f'word{i}' for i in range(VOCABULARY - len(special))]
    types = [TokenType.UNKNOWN] + [TokenType.CONTROL] * 2 + [TokenType.BYTE] * 256
    w.add_tokenizer_model('llama')
    w.add_token_list(tokens)
    w.add_token_scores([-float(i) for i in range(VOCABULARY)])
    w.add_token_types(types + [TokenType.NORMAL] * (VOCABULARY - len(special)))
    w.add_unk_token_id(0)
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)

    def matrix(name, rows, columns, quantized=False):
        values = random.standard_normal((rows, columns), dtype=numpy.float32) / columns ** 0.5
        if quantized:
            kind = GGMLQuantizationType.Q8_0
            w.add_tensor(name, quantize(values, kind), raw_dtype=kind)
        else:
            w.add_tensor(name, values.astype(numpy.float16))

    def norm(name):
        w.add_tensor(name, 1 + random.standard_normal(WIDTH, dtype=numpy.float32) / 10)

    matrix('token_embd.weight', VOCABULARY, WIDTH)
    for layer in range(LAYERS):
        block = f'blk.{layer}.'
        norm(block + 'attn_norm.weight')
        norm(block + 'ffn_norm.weight')
        for name, rows, columns in (('attn_q', WIDTH, WIDTH), ('attn_k', WIDTH // 2, WIDTH),
                                    ('attn_v', WIDTH // 2, WIDTH), ('attn_output', WIDTH, WIDTH),
                                    ('ffn_gate', HIDDEN, WIDTH), ('ffn_up', HIDDEN, WIDTH),
                                    ('ffn_down', WIDTH, HIDDEN)):
            matrix(f'{block}{name}.weight', rows, columns, quantized=layer % 2)
    norm('output_norm.weight')
    matrix('output.weight', VOCABULARY, WIDTH)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def onnx(directory):
    """A chain of matrix products; every weight is an output too, and lies in one external file."""
    import numpy
    from onnx import TensorProto, helper, numpy_helper, save_model
    random = numpy.random.default_rng(SEED)
    widths = (384, 1537, 2049, 1025)
    nodes, weights, outputs, value = [], [], [], 'x'
    for i, (rows, columns) in enumerate(zip(widths, widths[1:])):
        array = random.standard_normal((rows, columns), dtype=numpy.float32) / rows ** 0.5
        weights.append(numpy_helper.from_array(array, f'w{i}'))
        nodes.append(helper.make_node('Identity', [f'w{i}'], [f'copy{i}']))
        nodes.append(helper.make_node('MatMul', [value, f'w{i}'], [f'y{i}']))
        outputs.append(helper.make_tensor_value_info(f'copy{i}', TensorProto.FLOAT, [rows, columns]))
        value = f'y{i}'
    outputs.append(helper.make_tensor_value_info(value, TensorProto.FLOAT, [None, widths[-1]]))
    inputs = [helper.make_tensor_value_info('x', TensorProto.FLOAT, [None, widths[0]])]
    graph = helper.make_graph(nodes, 'chain', inputs, outputs, weights)
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid('', 20)])
    save_model(model, os.path.join(directory, 'model.onnx'), save_as_external_data=True, location='model.onnx.data',
               size_threshold=1024)


def random_tensors(part):
    import torch
    torch.manual_seed(SEED + part)
    return {
        'weight': torch.randn(1537, 1801),
        'brain': torch.randn(2999, 1801).to(torch.bfloat16),
        'half': torch.randn(1001, 1021).to(torch.float16),
        'eight': torch.randn(1777, 1001).to(torch.float8_e4m3fn),
        'position': torch.randint(-1 << 62, 1 << 62, (70001,)),
        'mask': torch.rand(333, 1001) < 0.5,
        'bytes': torch.randint(0, 256, (1000003,), dtype=torch.uint8),
        'scalar': torch.randn(()),
        'empty': torch.zeros(0, 7),
    }


def tensors(directory):
    """safetensors.torch.save_file, in shards."""
    from safetensors.torch import save_file
    for part in (1, 2, 3):
        save_file({f'layer{part}.{name}': tensor for name, tensor in random_tensors(part).items()},
                  os.path.join(directory, f'model-{part:05}-of-00003.safetensors'), metadata={'format': 'pt'})


def pickled(directory):
    """torch.save, with two tensors that share a storage."""
    import torch
    state = {f'layer{part}.{name}': tensor for part in (1, 2) for name, tensor in random_tensors(part).items()}
    state['shared'] = state['layer1.weight'][100:200]
    torch.save(state, os.path.join(directory, 'checkpoint.pt'))


def transformer(directory):
    """A llama of random weights by save_pretrained, in shards with an index."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    torch.manual_seed(SEED)
    config = LlamaConfig(vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=HIDDEN, num_hidden_layers=LAYERS,
                         num_attention_heads=HEADS, num_key_value_heads=HEADS // 2, max_position_embeddings=256)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(directory, max_shard_size='12MB')


def serialized(directory):
    """tensorizer's TensorSerializer."""
    from tensorizer import TensorSerializer
    serializer = TensorSerializer(os.path.join(directory, 'model.tensors'))
    serializer.write_state_dict({name: t for name, t in random_tensors(1).items() if t.numel()})
    serializer.close()


MODELS = {f.__name__: f for f in (arrays, gguf, onnx, tensors, pickled, transformer, serialized)}

if __name__ == '__main__':
    MODELS[sys.argv[1]](sys.argv[2])
