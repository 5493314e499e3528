"""What train_seal wrote, read by transformers and PEFT: the loss on a token file must be the `valid_loss` of the run's summary.json (to 1e-5).

    check_saved.py RUN TOKENS.safetensors     where RUN was made by `train_seal pretrain --model DIR --valid TOKENS.safetensors --max-length L --out RUN …`: its model/
                                              where there is one (all weights were trained, or --merge), and its adapter/ over DIR (--lora)
    check_saved.py --families TRAIN_SEAL      makes a tiny model of every family by transformers itself, lets that program train it (all weights; adapters on q,v; on
                                              all modules, merged) and checks each run
"""
import json
import os
import subprocess
import sys
import tempfile

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM


def loss_on(model, tokens, window):
    """Mean over all tokens but the first, in windows of which the last token is the first of the next."""
    model.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for at in range(0, len(tokens) - 1, window - 1):
            w = tokens[at:at + window]
            total += model(w[None], labels=w[None]).loss.item() * (len(w) - 1)
            count += len(w) - 1
    return total / count


def check_run(run, tokens_path):
    """The number of disagreements."""
    with open(f"{run}/log.jsonl") as f:
        options = json.loads(f.readline())
    with open(f"{run}/summary.json") as f:
        ours = json.load(f)["valid_loss"]
    tokens = load_file(tokens_path)["tokens"].long()
    models = {}
    if os.path.exists(f"{run}/model"):
        models["model"], info = AutoModelForCausalLM.from_pretrained(f"{run}/model", dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
        if any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys")):
            sys.exit(f"{run}/model: transformers disagrees about the tensors: {info}")
    if os.path.exists(f"{run}/adapter"):
        base = AutoModelForCausalLM.from_pretrained(options["model"], dtype=torch.float32, attn_implementation="eager")  # sdpa knows no cap of scores
        models["adapter"] = PeftModel.from_pretrained(base, f"{run}/adapter")
    bad = 0
    for name, model in models.items():
        config = model.config
        window = options["max-length"] or getattr(config, "n_positions", None) or config.max_position_embeddings
        theirs = loss_on(model, tokens, window)
        good = abs(ours - theirs) <= 1e-5 * theirs
        bad += not good
        print(f"{'ok' if good else 'not ok'} {run}/{name}: train_seal {ours:.7f}, transformers {theirs:.7f}, relative difference {abs(ours - theirs) / theirs:.1e}")
    return bad + (not models)


def check_families(train_seal):
    from record_families import CASES, make_model  # heads of 32, 80, 96, grouped and tied, every scaling of positions

    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, case in CASES.items():
            base, tokens = f"{folder}/{name}", f"{folder}/{name}.safetensors"
            make_model(case).save_pretrained(base, max_shard_size="60KB" if name == "llama" else "5GB")
            generator = torch.Generator().manual_seed(1)
            save_file({"tokens": torch.randint(0, case["config"].vocab_size, (600,), generator=generator, dtype=torch.int32)}, tokens)
            for lora in ("none", "q,v", "all"):
                run = f"{folder}/{name}.{lora}"
                command = [os.path.abspath(train_seal), "pretrain", "--model", base, "--tune", tokens, "--valid", tokens, "--max-length", "64", "--batch", "4", "--tokens", "128",
                           "--lr", "1e-3", "--lora", lora, "--lora-rank", "5", "--lora-alpha", "12", "--out", run, "--quiet"] + (["--merge"] if lora == "all" else [])
                subprocess.run(command, check=True)
                bad += check_run(run, tokens)
    return bad


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(check_families(sys.argv[2]) != 0 if sys.argv[1] == "--families" else check_run(*sys.argv[1:3]) != 0)
