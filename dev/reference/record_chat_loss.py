"""
Which tokens carry loss under a chat template, and how much: transformers' apply_chat_template(return_assistant_tokens_mask=True), which TRL's assistant_only_loss
is, and the mean cross entropy over those tokens by a tiny model (golden/chat/bytes, whose tokenizer is bytes and Llama-3's special tokens).
  venv/bin/python dev/reference/record_chat_loss.py [--check]     writes golden/chat_loss
marked.jinja is our own template with {% generation %} marks, plain.jinja the same text without: its masks must come out the same. Of the marked templates in
../shared, which are not ours to keep, digests of ids and masks are recorded.
"""
import hashlib
import json
import os

from common import GOLDEN, single_thread, texts_main
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

import chat_reference

OUT, MODEL = os.path.join(GOLDEN, "chat_loss"), os.path.join(GOLDEN, "chat", "bytes")
HEAD = "{{- '<|start_header_id|>' ~ m.role ~ '<|end_header_id|>\\n\\n' }}"
TURN = "{{- m.content | trim ~ '<|eot_id|>' }}"
START = "{{- '<|begin_of_text|>' }}{% for m in messages %}" + HEAD
END = "{% endfor %}{% if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
TEMPLATES = {
    "marked": START + "{% if m.role == 'assistant' %}{% generation %}" + TURN + "{% endgeneration %}{% else %}" + TURN + "{% endif %}" + END,
    "plain": START + TURN + END,
    # earlier answers lose their thoughts, as reasoning models' templates have it
    "rewrites": START + "{%- if m.role == 'assistant' and not loop.last %}{{- m.content.split('</think>')[-1] | trim ~ '<|eot_id|>' }}{% else %}" + TURN + "{% endif %}" + END,
    # asks for a thought that the conversation does not have
    "asks": START + TURN + END.replace("\\n\\n' }}", "\\n\\n<think>\\n' }}"),
    # a line end after every turn, which nobody has to learn
    "lines": START + "{{- m.content | trim ~ '<|eot_id|>\\n' }}" + END,
}


def u(text):
    return {"role": "user", "content": text}


def a(text, **more):
    return {"role": "assistant", "content": text, **more}


ROWS = [
    [u("Hello"), a("Hi!")], [u("a"), a(" one \n"), u("b"), a("two, and more")], [{"role": "system", "content": "Be brief."}, u("c é 你好"), a("ß 🙂"), u("d"), a("e"), u("f"), a("g h i")],
    [u("x"), a("  y\n\nz  ")], [u("think"), a("<think>hm</think>yes"), u("more"), a("<think>again</think>no")],
]


def tokenizer(template):
    return PreTrainedTokenizerFast(tokenizer_file=os.path.join(MODEL, "tokenizer.json"), bos_token="<|begin_of_text|>", eos_token="<|eot_id|>", chat_template=template)


def masked(template, messages):
    out = tokenizer(template).apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    return out["input_ids"], out["assistant_masks"]


def digest(ids, mask):
    return hashlib.sha256((" ".join(map(str, ids)) + "\n" + "".join(map(str, mask))).encode()).hexdigest()[:16]


def record():
    single_thread()
    os.makedirs(OUT, exist_ok=True)
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()
    files = {name + ".jinja": text for name, text in TEMPLATES.items()}
    files["rows.jsonl"] = "".join(json.dumps({"messages": r}, ensure_ascii=False) + "\n" for r in ROWS)
    lines, losses = [], []
    for r in ROWS:
        ids, mask = masked(TEMPLATES["marked"], r)
        lines.append("marked " + " ".join(map(str, ids)) + " | " + "".join(map(str, mask)))
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0]
        nll = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="none")
        bears = torch.tensor(mask[1:], dtype=torch.bool)
        losses.append(float(nll[bears].double().mean()))
    for name in ("qwen2_5_training", "qwen3_training", "gemma3_training"):
        template = chat_reference.templates()[name]
        for i, r in enumerate(ROWS):
            ids, mask = masked(template, r)
            lines.append(f"{name} {digest(ids, mask)}")
    files["masks.txt"] = "\n".join(lines) + "\n"
    files["losses.txt"] = "".join(f"{x:.9g}\n" for x in losses)
    return files


if __name__ == "__main__":
    raise SystemExit(texts_main(record, OUT))
