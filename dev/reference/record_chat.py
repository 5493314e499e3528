"""
What `eval_seal generate --chat` is held against: conversations rendered and tokenised by transformers' apply_chat_template with the published templates, and what
a tiny random model answers to those ids, greedily, by transformers' generate. The model is made so that it can only say letters, and its answer hangs on every id
before it: a blank, a BOS or a marker that is not as the template says gives other letters (asserted here for some ways to be wrong, over the conversations).
  venv/bin/python dev/reference/record_chat.py [--check]     writes golden/chat: two models with tokenizers, conversations.jsonl, NAME.json
"""
import argparse
import json
import os
import string
import tempfile

from common import GOLDEN, single_thread
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from record_tokenizers import CHAT

OUT, NEW = os.path.join(GOLDEN, "chat"), 16
LLAMA3 = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end_of_text|>"]
SENTENCE = ["[INST]", "[/INST]"]
PHI3 = ["<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
CONVERSATIONS = [["user", "Hello"], ["user", "  two words \n"], ["user", "c é 你好"], ["user", "a<|eot_id|></s>b"], ["system", "Be brief.", "user", "Why?"],
                 ["user", "a", "assistant", " b ", "user", "c"], ["system", "s", "user", "a", "assistant", "b", "user", "c d"]]


def bytes_tokenizer():
    """Every byte a token, no merges; Llama-3's special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    t = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    t.pre_tokenizer, t.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False), decoders.ByteLevel()
    t.add_special_tokens([AddedToken(s, special=True) for s in LLAMA3])
    t.post_processor = processors.TemplateProcessing(single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", t.token_to_id("<|begin_of_text|>"))])
    return t


def sentence_tokenizer():
    """Characters with byte fallback and a blank in front, as Llama-2's kin; Mistral's and Phi-3's special tokens, the latter taking the blanks behind them along."""
    vocab = {s: i for i, s in enumerate(["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)] + ["\u2581"] + list(string.ascii_letters))}
    t = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    t.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    t.add_special_tokens([AddedToken(s, special=True) for s in ["<unk>", "<s>", "</s>"] + SENTENCE])
    t.add_special_tokens([AddedToken(s, special=True, rstrip=True) for s in PHI3])
    t.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return t


MODELS = {"bytes": (bytes_tokenizer, 1, ["llama3"]), "sentence": (sentence_tokenizer, 7, ["mistral", "mistral-v0.2", "phi3"])}  # with a seed that leaves clear margins
LEAST_MARGIN = 5e-3  # of a logit over the next: rounding must not decide


def make_model(tokenizer, seed):
    config = LlamaConfig(vocab_size=tokenizer.get_vocab_size(), hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
                         max_position_embeddings=256, bos_token_id=None, eos_token_id=0, tie_word_embeddings=False, attn_implementation="eager")
    model = LlamaForCausalLM(config).float().eval()
    letters = [tokenizer.token_to_id(c) for c in string.ascii_letters]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            p.copy_(noise * 0.1 + 1 if p.dim() == 1 else noise if "embed" in name else noise * (3.0 / p.shape[1] ** 0.5))
        keep = torch.zeros(config.vocab_size, 1)
        keep[letters] = 1
        model.lm_head.weight.mul_(keep)
        for p in model.parameters():
            p.copy_(p.to(torch.bfloat16).float())  # the file is bf16, and small
    return model


def answer(model, tokenizer, ids):
    out = model.generate(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), do_sample=False, max_new_tokens=NEW, min_new_tokens=NEW,
                         pad_token_id=0, output_scores=True, return_dict_in_generate=True)
    margin = min(float(s[0].topk(2).values.diff().abs()) for s in out.scores)
    return tokenizer.decode(out.sequences[0, len(ids):].tolist()), margin


def wrong_ways(t, text, ids):
    """What a careless program would feed instead."""
    unspecial = [i for c in text for i in t.encode(c, add_special_tokens=False).ids]
    return {"one BOS more": ids[:1] + ids, "the first token missing": ids[1:], "the last missing": ids[:-1], "a blank behind": ids + t.encode("a ", add_special_tokens=False).ids[-1:], "letter by letter": unspecial}


def record(directory):
    os.makedirs(directory, exist_ok=True)
    messages = [[{"role": c[i], "content": c[i + 1]} for i in range(0, len(c), 2)] for c in CONVERSATIONS]
    with open(os.path.join(directory, "conversations.jsonl"), "w", encoding="utf-8") as f:
        f.writelines(json.dumps({"messages": m}, ensure_ascii=False) + "\n" for m in messages)
    for name, (make, seed, templates) in MODELS.items():
        t = make()
        path = os.path.join(directory, name)
        make_model(t, seed).to(torch.bfloat16).save_pretrained(path)
        os.remove(os.path.join(path, "generation_config.json"))
        t.save(os.path.join(path, "tokenizer.json"), pretty=False)
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        for template in templates:
            bos, eos, jinja = CHAT[template]
            hf, rows = PreTrainedTokenizerFast(tokenizer_object=t, bos_token=bos, eos_token=eos, chat_template=jinja), []
            caught = {}  # by how many conversations' answers a way to be wrong is seen
            for m in messages:
                if template == "mistral-v0.2" and m[0]["role"] == "system":
                    continue  # it has no place for one
                ids = hf.apply_chat_template(m, add_generation_prompt=True, tokenize=True)
                text, margin = answer(model, t, ids)
                for way, other in wrong_ways(t, hf.apply_chat_template(m, add_generation_prompt=True, tokenize=False), ids).items():
                    caught[way] = caught.get(way, 0) + (other != ids and answer(model, t, other)[0] != text)
                rows.append({"ids": ids, "answer": text, "margin": round(margin, 4)})
            with open(os.path.join(directory, template + ".json"), "w", encoding="utf-8") as f:
                f.write("[" + ",\n ".join(json.dumps(r, ensure_ascii=False) for r in rows) + "]\n")
            assert all(caught.values()), f"{template}: nobody would see it: {caught}"
            least = min(r["margin"] for r in rows)
            assert least > LEAST_MARGIN, f"{template}: a margin of {least}"
            print(f"{template}: {len(rows)} conversations, {caught}, smallest margin {least:.4f}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    single_thread()
    torch.use_deterministic_algorithms(False)  # generate's own sorting has no such kernel
    if not check:
        record(OUT)
        return 0
    with tempfile.TemporaryDirectory() as again:
        record(again)
        bad = 0
        for template in CHAT:
            both = [[(r["ids"], r["answer"]) for r in json.load(open(os.path.join(d, template + ".json"), encoding="utf-8"))] for d in (OUT, again)]
            bad += both[0] != both[1]
        print("golden/chat agrees" if not bad else f"{bad} templates differ")
        return bad


if __name__ == "__main__":
    raise SystemExit(main())
