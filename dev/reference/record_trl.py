"""
What TRL's SFTTrainer makes of rows, by its own code: tokenization and masks of its _prepare_dataset, labels of its collator, the loss of its compute_loss on each
sample alone, with assistant_only_loss=True. The model is golden/chat/bytes, whose tokenizer is bytes and Llama-3's special tokens.
  venv/bin/python dev/reference/record_trl.py [--check]     writes golden/trl (needs trl 0.25.1, datasets)
Rows are as a file has them: turns, prompt and completion, ShareGPT's names, content in parts, tools, variables of the template. A line of expected.txt: template,
row, loss, ids, and which of them are labels. Of the templates in ../shared that carry marks, which are not ours to keep, the digest of ids and labels.
"""
import hashlib
import json
import os
import tempfile

from common import GOLDEN, single_thread, texts_main
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM
from trl import SFTConfig, SFTTrainer, maybe_convert_to_chatml

import chat_reference
from record_chat_loss import HEAD, END, MODEL, START, TEMPLATES, TURN, tokenizer

OUT = os.path.join(GOLDEN, "trl")
MARKED = "{% if m.role == 'assistant' %}{% generation %}" + TURN + "{% endgeneration %}{% else %}" + TURN + "{% endif %}"
OURS = {
    "marked": TEMPLATES["marked"],
    # writes a list of parts itself, each on a line of its own
    "parts": START + "{%- if m.role == 'assistant' %}{% generation %}{% if m.content is string %}{{- m.content }}{% else %}{% for p in m.content %}{{- p.text | trim ~ '\\n' }}{% endfor %}{% endif %}"
             "{{- '<|eot_id|>' }}{% endgeneration %}{% elif m.content is string %}{{- m.content ~ '<|eot_id|>' }}{% else %}{% for p in m.content %}{{- '- ' ~ p.text ~ '\\n' }}{% endfor %}{{- '<|eot_id|>' }}{% endif %}" + END,
    # variables of the row, tools, and two marks in one answer
    "variables": "{{- '<|begin_of_text|>' }}{%- if tools is not none %}{{- 'tools: ' ~ (tools | tojson) ~ '\\n' }}{% endif %}{%- if mood is defined %}{{- mood ~ ' ' ~ (level + 1) ~ '\\n' }}{% endif %}"
                 "{% for m in messages %}" + HEAD + "{%- if m.role == 'assistant' %}{% if m.thinking is defined %}{% generation %}{{- '[' ~ m.thinking ~ ']' }}{% endgeneration %}{{- ' so ' }}{% endif %}"
                 "{% generation %}{{- m.content ~ '<|eot_id|>' }}{% endgeneration %}{% else %}{{- m.content ~ '<|eot_id|>' }}{% endif %}" + END,
}


def u(text):
    return {"role": "user", "content": text}


def a(text, **more):
    return {"role": "assistant", "content": text, **more}


def parts(*texts):
    return [{"type": "text", "text": t} for t in texts]


TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "number"}}}}}
PLAIN = [
    {"messages": [u("Hello"), a("Hi!")]},
    {"messages": [u("a"), a(" one \n"), u("b"), a("two, and more")]},
    {"messages": [{"role": "system", "content": "Be brief."}, u("c é 你好"), a("ß 🙂"), u("d"), a("e"), u("f"), a("g h i")]},
    {"prompt": [u("q")], "completion": [a("an answer")]},
    {"prompt": [u("q"), a("not this"), u("r")], "completion": [a("but this"), u("s"), a("and this")]},
    {"conversations": [{"from": "user", "value": "x"}, {"from": "assistant", "value": "y"}]},
    {"conversations": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y z"}]},
]
ROWS = {
    "marked": PLAIN,
    "parts": PLAIN[:2] + [{"messages": [u(parts("one", " two ")), a(parts(" three ", "four"))]},
                          {"messages": [u(parts("x")), a(parts("five")), u(parts("y ", "z")), a(parts("six", " seven"))]}],
    "variables": PLAIN[:2] + [{"messages": [u("q"), a("r")], "tools": [TOOL]}, {"messages": [u("q"), a("r")], "tools": []},
                              {"messages": [u("q"), a("r")], "chat_template_kwargs": {"mood": "calm", "level": 1}},
                              {"messages": [u("q"), a("r", thinking=None)], "chat_template_kwargs": {"mood": None}},
                              {"messages": [u("q"), a("r", thinking="t"), u("s"), a("v", thinking="w")]},
                              {"prompt": [u("q")], "completion": [a("r", thinking="t")], "chat_template_kwargs": {"mood": "x", "level": 2}, "tools": [TOOL]}],
}


def trl(template, row):
    """(ids, labels that count, loss) of one row. `conversations` becomes `messages` first, by TRL's function, for the trainer converts it after its own check."""
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(output_dir=folder, assistant_only_loss=True, max_length=None, report_to="none", use_cpu=True, bf16=False, gradient_checkpointing=False,
                           disable_tqdm=True, eos_token="<|eot_id|>", pad_token="<|eot_id|>")
        model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
        trainer = SFTTrainer(model=model, args=config, train_dataset=Dataset.from_list([maybe_convert_to_chatml(row)]), processing_class=tokenizer(template))
        sample = trainer.data_collator([trainer.train_dataset[0]])
        with torch.no_grad():
            loss = trainer.compute_loss(trainer.model.eval(), dict(sample))
        return sample["input_ids"][0].tolist(), (sample["labels"][0] != -100).int().tolist(), float(loss)


def record():
    single_thread()
    files, lines = {}, []
    for name, template in OURS.items():
        files[name + ".jinja"] = template
        files[name + ".jsonl"] = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in ROWS[name])
        for i, row in enumerate(ROWS[name]):
            ids, mask, loss = trl(template, row)
            lines.append(f"{name} {i} {loss:.9g} " + " ".join(map(str, ids)) + " | " + "".join(map(str, mask)))
    shared = chat_reference.templates()
    for name in ("qwen2_5_training", "qwen3_training", "gemma3_training"):
        for i, row in enumerate(PLAIN):
            ids, mask, loss = trl(shared[name], row)
            digest = hashlib.sha256((" ".join(map(str, ids)) + "\n" + "".join(map(str, mask))).encode()).hexdigest()[:16]
            lines.append(f"{name} {i} {loss:.9g} {digest}")
    files["expected.txt"] = "\n".join(lines) + "\n"
    return files


if __name__ == "__main__":
    raise SystemExit(texts_main(record, OUT))
