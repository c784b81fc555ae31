"""Swap the attention of a Hugging Face model, and train it a little to get used to that.

    python examples/swap_attention.py                          # a small Llama with random weights
    python examples/swap_attention.py --model path/or/name     # a causal model of yours

Needs: pip install "slay-attention[transformers]"
"""

import argparse
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

import slay.integrations.transformers  # makes slay:<mechanism> known

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--model", help="a causal language model to load instead")
parser.add_argument("--steps", type=int, default=30)
args = parser.parse_args()

torch.manual_seed(0)
if args.model:
    model = AutoModelForCausalLM.from_pretrained(args.model)
else:
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = AutoModelForCausalLM.from_config(config)

text = torch.tensor(list(Path(__file__).read_bytes()))  # bytes of this file
batch = text[: len(text) // 128 * 128].view(-1, 128)  # (B, L)

start = {name: weight.clone() for name, weight in model.state_dict().items()}
small = slay.integrations.transformers.register("yat-performer-anchor", name="small", poly_dim=8)
for attention in ("sdpa", "slay:standard", "slay:linear", "slay:yat-quadratic", small):
    model.load_state_dict(start)
    model.set_attn_implementation(attention)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(args.steps + 1):
        loss = model(batch, labels=batch).loss
        if step == 0:
            first = loss.item()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    print(f"{attention:20} loss {first:.4f}, after {args.steps} steps {loss.item():.4f}")
