"""Adapters as PEFT saves them over a tiny llama model, and the losses that PEFT gives → golden/peft. dev/test/test_peft.sh holds `eval_seal loss` against them.

    record_peft.py [--check]        (--check: the losses again, from the committed files)

base/              a Hugging Face directory with a word tokenizer; rows.jsonl: what is measured
NAME/              an adapter each: ranks and alphas by pattern, some layers, a regular expression, everything, exclusions, norms and the head saved along …
truth.json         the losses of the rows, in fp64, by name; "base": of the model alone
"""
import json
import os
import shutil
import sys
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
warnings.filterwarnings("ignore")

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden", "peft")
WORDS = ["[UNK]", "<eos>", "Human:", "Assistant:"] + [f"w{i}" for i in range(40)]
ROWS = [{"prompt": "w1 w2 w3", "response": "w4 w5 w6 w7"}, {"prompt": "w9", "response": "w8 w7 w8"}, {"prompt": "w20 w21 w22 w23 w24 w25", "response": "w26"},
        {"prompt": "w30 w0", "response": "w31 w32 w33 w34 w35 w36 w37 w38 w39"}]
CASES = dict(plain={}, rslora=dict(use_rslora=True), rank_pattern=dict(rank_pattern={"q_proj": 8}), alpha_pattern=dict(alpha_pattern={"q_proj": 32}),
             both_patterns=dict(target_modules="all-linear", rank_pattern={r"layers\.1\..*": 9, "o_proj": 2}, alpha_pattern={"layers.0.mlp.up_proj": 3, "down_proj": 12}),
             rslora_patterns=dict(use_rslora=True, rank_pattern={"^model.layers.0.self_attn.q_proj": 16}, alpha_pattern={"v_proj": 5}),
             layers=dict(layers_to_transform=[1]), layers_list=dict(layers_to_transform=[0, 2], layers_pattern="layers"), regex=dict(target_modules=r".*\.1\.self_attn\.(q|k)_proj"),
             all_linear=dict(target_modules="all-linear"), exclude=dict(target_modules="all-linear", exclude_modules=["down_proj"]),
             fullname=dict(target_modules=["model.layers.0.self_attn.q_proj"]), save_head=dict(modules_to_save=["lm_head"]), save_norm=dict(modules_to_save=["norm"]),
             dropout=dict(lora_dropout=0.1), embeddings_saved={})
REFUSED = dict(dora=dict(use_dora=True), embed=dict(target_modules=["q_proj", "embed_tokens"]), head=dict(target_modules=["q_proj", "lm_head"]))


def load():
    return AutoModelForCausalLM.from_pretrained(f"{OUT}/base", dtype=torch.float32, attn_implementation="eager").double()


def losses(model, tokenizer):
    out = []
    for r in ROWS:
        prompt = f"Human: {r['prompt']}\nAssistant: "
        e = tokenizer(prompt + r["response"] + " " + tokenizer.eos_token, return_offsets_mapping=True, add_special_tokens=False)
        ids = torch.tensor(e["input_ids"])
        labels = torch.tensor([i if b > len(prompt) else -100 for i, (_, b) in zip(e["input_ids"], e["offset_mapping"])])
        with torch.no_grad():
            logits = model(ids[None]).logits[0, :-1]
        out.append(torch.nn.functional.cross_entropy(logits, labels[1:]).item())
    return out


def make_base():
    torch.manual_seed(1)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(WORDS), hidden_size=32, intermediate_size=40, num_hidden_layers=3, num_attention_heads=1, num_key_value_heads=1, head_dim=32,
                                         max_position_embeddings=64, bos_token_id=None, eos_token_id=1, pad_token_id=None))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_((torch.randn_like(p) * (p.shape[-1] ** -0.5 if p.dim() == 2 else 0.1) + (p.dim() == 1)).bfloat16())
    model.bfloat16().save_pretrained(f"{OUT}/base")
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<eos>"])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>").save_pretrained(f"{OUT}/base")
    with open(f"{OUT}/rows.jsonl", "w") as f:
        f.writelines(json.dumps(r) + "\n" for r in ROWS)


def main():
    torch.set_num_threads(1)
    check = "--check" in sys.argv
    if not check:
        shutil.rmtree(OUT, ignore_errors=True)
        make_base()
    tokenizer = AutoTokenizer.from_pretrained(f"{OUT}/base")
    truth = {"base": losses(load(), tokenizer)}
    for name, options in {**CASES, **REFUSED}.items():
        if not check:
            torch.manual_seed(3)
            model = get_peft_model(load().float(), LoraConfig(**{**dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM"), **options}))
            for n, p in model.named_parameters():  # norms and a head that training has changed
                if "modules_to_save" in n:
                    p.data.mul_(1.25)
            model.save_pretrained(f"{OUT}/{name}", save_embedding_layers=name == "embeddings_saved")
            os.remove(f"{OUT}/{name}/README.md")
            config = json.load(open(f"{OUT}/{name}/adapter_config.json"))
            config["base_model_name_or_path"] = "base"
            for key in "target_modules", "exclude_modules":
                if isinstance(config.get(key), list):
                    config[key] = sorted(config[key])
            json.dump(config, open(f"{OUT}/{name}/adapter_config.json", "w"), indent=1)
        if name in CASES:
            truth[name] = losses(PeftModel.from_pretrained(load().float(), f"{OUT}/{name}").double().eval(), tokenizer)
    if not check:
        json.dump(truth, open(f"{OUT}/truth.json", "w"), indent=1)
        return
    recorded = json.load(open(f"{OUT}/truth.json"))
    worst = max(abs(a - b) / b for name in truth for a, b in zip(truth[name], recorded[name], strict=True))
    print(f"{'ok' if worst < 1e-9 else 'not ok'} {len(truth)} adapters: {worst:.1e}")
    sys.exit(worst >= 1e-9)


if __name__ == "__main__":
    main()
