#!/usr/bin/env python3
"""Old checkpoints as safetensors: python3 data/convert_bin.py DIR

In DIR, pytorch_model.bin becomes model.safetensors, the shards that pytorch_model.bin.index.json names become shards with an index of their own, and
adapter_model.bin becomes adapter_model.safetensors. The old files stay. Nothing in them is executed (weights_only). Needs torch and safetensors.
Tensors keep their dtypes; of two names for one tensor (a tied head) the first is kept, as transformers does.
"""
import json
import os
import sys

import torch
from safetensors.torch import save_file


def fail(message):
    print(f"convert_bin: {message}", file=sys.stderr)
    sys.exit(2)


def load(path):
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # a damaged file, or one that holds more than tensors
        fail(f"{path}: {str(e).splitlines()[0]}")
    if not isinstance(tensors, dict):
        fail(f"{path}: holds no tensors by name")
    return {k: v for k, v in tensors.items() if isinstance(v, torch.Tensor)}


def convert(source, target):
    """The names that were written."""
    kept, seen = {}, {}
    for name, t in load(source).items():
        place = (t.untyped_storage().data_ptr(), t.storage_offset(), tuple(t.shape), t.stride())
        if t.numel() and place in seen:
            print(f"{name} is {seen[place]} once more: left out")
            continue
        seen[place] = name
        kept[name] = t.contiguous().clone()
    save_file(kept, target + ".part", metadata={"format": "pt"})
    os.replace(target + ".part", target)
    print(f"wrote {target}, {len(kept)} tensors")
    return list(kept)


def main():
    if len(sys.argv) != 2 or not os.path.isdir(sys.argv[1]):
        fail("usage: convert_bin.py DIR")
    folder, done = sys.argv[1], 0
    for old, new in (("pytorch_model", "model"), ("adapter_model", "adapter_model")):
        index = f"{folder}/{old}.bin.index.json"
        if os.path.exists(f"{folder}/{old}.bin"):
            convert(f"{folder}/{old}.bin", f"{folder}/{new}.safetensors")
            done += 1
        elif os.path.exists(index):
            with open(index) as f:
                files = sorted(set(json.load(f)["weight_map"].values()))
            names = {}
            for i, file in enumerate(files):
                target = f"{new}-{i + 1:05d}-of-{len(files):05d}.safetensors"
                names.update(dict.fromkeys(convert(f"{folder}/{file}", f"{folder}/{target}"), target))
            with open(f"{folder}/{new}.safetensors.index.json", "w") as f:
                json.dump({"metadata": {}, "weight_map": names}, f, indent=1)
            done += 1
    if not done:
        fail(f"{folder}: there is no pytorch_model.bin, no index of shards, and no adapter_model.bin")


if __name__ == "__main__":
    main()
