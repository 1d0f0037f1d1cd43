# SPDX-License-Identifier: Apache-2.0
"""transformers and accelerate: the logits of a forward pass first, since loading alone reads next to nothing, then
every weight."""
import sys

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from digest import main


def digest_model(model, digests):
    model.eval()
    with torch.inference_mode():
        digests.add_tensor('logits', model(torch.arange(300, 364).unsqueeze(0)).logits)
    for name, tensor in model.state_dict().items():
        digests.add_tensor(name, tensor)


def from_pretrained(directory, digests):
    digest_model(AutoModelForCausalLM.from_pretrained(directory, dtype='auto'), digests)


def accelerate_dispatch(directory, digests):
    from accelerate import init_empty_weights, load_checkpoint_and_dispatch
    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory), dtype=torch.bfloat16)
    digest_model(load_checkpoint_and_dispatch(model, directory, device_map={'': 'cpu'}), digests)


if __name__ == '__main__':
    torch.set_num_threads(1)
    main(sys.modules[__name__])
