"""A model that train_seal wrote, read by transformers: its loss on a token file must be the `valid_loss` of the run's summary.json (to 1e-5).

    check_saved.py RUN TOKENS.safetensors     where RUN was made by `train_seal pretrain --valid TOKENS.safetensors --max-length L --out RUN …`
"""
import json
import sys

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

run, tokens_path = sys.argv[1:3]
model, info = AutoModelForCausalLM.from_pretrained(f"{run}/model", output_loading_info=True)
if any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys")):
    sys.exit(f"transformers disagrees about the tensors: {info}")
model.eval()
with open(f"{run}/log.jsonl") as f:
    window = json.loads(f.readline())["max-length"] or model.config.n_positions
with open(f"{run}/summary.json") as f:
    ours = json.load(f)["valid_loss"]
tokens = load_file(tokens_path)["tokens"].long()
total, count = 0.0, 0
with torch.no_grad():
    for at in range(0, len(tokens) - 1, window - 1):  # the last token of a window is the first of the next
        w = tokens[at:at + window]
        total += model(w[None], labels=w[None]).loss.item() * (len(w) - 1)
        count += len(w) - 1
theirs = total / count
print(f"train_seal {ours:.7f}, transformers {theirs:.7f}, relative difference {abs(ours - theirs) / theirs:.1e}")
sys.exit(abs(ours - theirs) > 1e-5 * theirs)
