"""
Records what PyTorch computes of the scores that need a model, by per-sample autograd: the product of each sample's gradient with a direction (mean over two
samples, minus that of a third) and its norm, over all linear layers of the blocks, over q and v, and over LoRA adapters; the residual stream after every
layer at each sample's last token; the losses with a layer's contribution made smaller. For every family of record_families.py, on its models and batch, in
fp64. dev/test/test_scores.cu holds the trainer against these files.

And one selection end to end: golden/scores/select has rows, a tokenizer of one token a word and, in expected.txt, every row's score under every method, as
`train_seal select` must write it for golden/families/llama and its adapter. dev/test/test_scores.sh reads them.

    python record_scores.py            writes golden/scores
    python record_scores.py --check    computes everything again and compares with the files
"""
import argparse
import json
import os
import sys

from common import GOLDEN, compare_golden, parameters, single_thread, write_golden
from record_families import CASES, add_adapter, adapters, make_batch, make_model, round_
import torch

ROWS, SAFE, HARMFUL = [0, 2, 3, 4], [0, 3], [4]  # of the family's batch; sample 1 has one token and no loss
SCALE = 0.8


def samples_of(case):
    batch = make_batch(case)
    cu = batch["cu_seqlens"].tolist()
    return [(batch["tokens"][a:b].tolist(), p) for a, b, p in zip(cu[:-1], cu[1:], batch["prompt_len"].tolist())]


def loss_of(model, sample):
    tokens, prompt = sample
    ids = torch.tensor([tokens])
    first = max(prompt, 1)
    return torch.nn.functional.cross_entropy(model(input_ids=ids).logits[0][first - 1:-1], ids[0, first:])


def linear_weights(model, names=None):
    """The weights of the blocks' linear layers, of these modules only."""
    return [p for n, p in model.named_parameters()
            if p.dim() == 2 and n.endswith("weight") and not any(x in n for x in ("embed", "wte", "wpe", "lm_head", "norm", "ln_"))
            and (names is None or n.split(".")[-2] in names)]


def gradient(model, sample, weights):
    return [g.detach().clone() for g in torch.autograd.grad(loss_of(model, sample), weights)]


def inner(a, b):
    return sum((x * y).sum() for x, y in zip(a, b))


def products(model, samples, weights):
    """Losses, products with the direction, norms, and the direction's norm."""
    each = {i: gradient(model, samples[i], weights) for i in sorted(set(ROWS + SAFE + HARMFUL))}
    direction = [sum(each[i][k] for i in SAFE) / len(SAFE) - sum(each[i][k] for i in HARMFUL) / len(HARMFUL) for k in range(len(weights))]
    return dict(product=torch.stack([inner(each[i], direction) for i in ROWS]), norm=torch.stack([inner(each[i], each[i]).sqrt() for i in ROWS]),
                direction_norm=inner(direction, direction).sqrt().reshape(1))


def layers_of(model):
    for path in ("model.layers", "gpt_neox.layers", "transformer.h"):
        found = model
        for part in path.split("."):
            found = getattr(found, part, None)
        if found is not None:
            return found
    raise SystemExit("no layers")


def first_of(output):
    return output[0] if isinstance(output, tuple) else output


def hidden(model, samples):
    """{layer: (rows, C)} of the residual stream after each layer, at the last token."""
    seen, handles = {}, []
    for l, layer in enumerate(layers_of(model)):
        handles.append(layer.register_forward_hook(lambda _m, _i, out, l=l: seen.setdefault(l + 1, []).append(first_of(out)[0, -1].detach().clone())))
    with torch.no_grad():
        for i in ROWS:
            model(input_ids=torch.tensor([samples[i][0]]))
    for h in handles:
        h.remove()
    return {l: torch.stack(rows) for l, rows in seen.items()}


def branches(layer):
    """The modules whose outputs a layer adds to the residual stream: the norms after attention and MLP where there are such, else the two themselves."""
    named = dict(layer.named_children())
    if "post_feedforward_layernorm" in named:
        return [named["post_attention_layernorm"], named["post_feedforward_layernorm"]]
    return [m for n, m in named.items() if n in ("self_attn", "attention", "attn", "mlp")]


def scaled_losses(model, samples, l):
    def scale(_module, _inputs, output):
        return (SCALE * output[0], *output[1:]) if isinstance(output, tuple) else SCALE * output
    modules = branches(layers_of(model)[l - 1])
    assert len(modules) == 2
    handles = [m.register_forward_hook(scale) for m in modules]
    with torch.no_grad():
        losses = torch.stack([loss_of(model, samples[i]) for i in ROWS])
    for h in handles:
        h.remove()
    return losses


def record(case):
    samples, out = samples_of(case), {}
    for rounded in (False, True) if case["dtype"] == torch.float32 else (False,):
        at = "bf16." if rounded else ""

        def fresh():
            model = make_model(case)
            if rounded:
                round_(model.parameters())
            return model
        model = fresh().double()
        for name, weights in (("all", linear_weights(model)), ("q,v", linear_weights(model, case["qv"]))):
            out.update({f"{at}{name}.{k}": v for k, v in products(model, samples, weights).items()})
        out[at + "loss"] = torch.stack([loss_of(model, samples[i]).detach() for i in ROWS])
        for l, rows in hidden(model, samples).items():
            out[f"{at}hidden.{l}"] = rows
            out[f"{at}scaled.{l}"] = scaled_losses(model, samples, l)
        for folder, target in adapters(case).items():
            model = add_adapter(case, fresh(), target).double()
            out.update({f"{at}{folder}.{k}": v for k, v in products(model, samples, list(parameters(model).values())).items()})
    return {k: v.float() for k, v in out.items()}


# ---- one selection, as a user makes it ------------------------------------------------------------------------------------------------------

SELECT = os.path.join(GOLDEN, "scores", "select")
ANCHORS, LAYER = 2, 1
OWN_BOUND = 5.6  # of refusal-test: among the losses of this model
REFUSALS = ["w7 w8 w9", "w10 w7"]


def select_files():
    """{name: text}: rows whose words are tokens. Lengths differ, so that packs are mixed; a refusal of REFUSALS is among the answers."""
    generator = torch.Generator().manual_seed(77)

    def words(least, most):
        n = int(torch.randint(least, most + 1, (1,), generator=generator))
        return " ".join(f"w{int(i)}" for i in torch.randint(0, 89, (n,), generator=generator))

    def rows(n):
        return "".join(json.dumps(dict(prompt=words(1, 9), response=words(1, 12))) + "\n" for _ in range(n))
    vocab = {"[UNK]": 0, "<eos>": 1, "Human:": 2, "Assistant:": 3, **{f"w{i}": 4 + i for i in range(89)}}
    tokenizer = dict(version="1.0", truncation=None, padding=None,
                     added_tokens=[dict(id=1, content="<eos>", single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)],
                     normalizer=None, pre_tokenizer=dict(type="WhitespaceSplit"), post_processor=None, decoder=None,
                     model=dict(type="WordLevel", vocab=vocab, unk_token="[UNK]"))
    return {"tune.jsonl": rows(7), "safe.jsonl": rows(3), "harmful.jsonl": rows(3), "refusals.txt": "\n".join(REFUSALS) + "\n",
            "tokenizer.json": json.dumps(tokenizer) + "\n"}, vocab


def samples_of_rows(text, vocab, answer=None):
    samples = []
    for line in text.splitlines():
        row = json.loads(line)
        prompt = ["Human:", *row["prompt"].split(), "Assistant:"]
        samples.append(([vocab[w] for w in [*prompt, *(answer or row["response"]).split(), "<eos>"]], len(prompt)))
    return samples


def mean_gradient(model, samples, weights):
    each = [gradient(model, s, weights) for s in samples]
    return [sum(g) / len(samples) for g in zip(*each)]


def last_hidden(model, samples, layer):
    rows = []
    handle = layers_of(model)[layer - 1].register_forward_hook(lambda _m, _i, out: rows.append(first_of(out)[0, -1].detach().clone()))
    with torch.no_grad():
        for tokens, _ in samples:
            model(input_ids=torch.tensor([tokens]))
    handle.remove()
    return torch.stack(rows)


def expected_scores():
    """{case: scores of the rows of tune.jsonl}, higher kept first."""
    files, vocab = select_files()
    case = CASES["llama"]
    base, tuned = make_model(case).double(), add_adapter(case, make_model(case), case["qv"]).double()
    tune, safe, harmful = (samples_of_rows(files[n], vocab) for n in ("tune.jsonl", "safe.jsonl", "harmful.jsonl"))

    def losses(model, samples):
        with torch.no_grad():
            return torch.stack([loss_of(model, s) for s in samples])
    out = {"safe-loss": -losses(base, tune), "loss-diff": losses(base, tune) - losses(tuned, tune)}
    for name, model, weights in (("", base, linear_weights(base)), (" adapter", tuned, list(parameters(tuned).values()))):
        direction = [a - b for a, b in zip(mean_gradient(model, safe, weights), mean_gradient(model, harmful, weights))]
        each = [gradient(model, s, weights) for s in tune]
        norms = torch.stack([inner(g, g).sqrt() for g in each])
        dots = torch.stack([inner(g, direction) for g in each])
        lengths = torch.tensor([len(t) - p for t, p in tune], dtype=torch.float64)
        out["influence" + name] = dots
        out["influence cosine" + name] = dots / (norms * inner(direction, direction).sqrt())
        out["gradient-norm" + name] = -norms
        out["gradient-norm self-inf" + name] = -(torch.log(norms ** 2 + 1) + torch.log(lengths + 1))
    only_safe = mean_gradient(base, safe, linear_weights(base))
    out["influence safe"] = torch.stack([inner(gradient(base, s, linear_weights(base)), only_safe) for s in tune])
    cosine = torch.nn.functional.cosine_similarity
    h, u, s = (last_hidden(base, x, LAYER) for x in (tune, harmful, safe))
    difference = cosine(h[:, None], u[None], dim=2) - cosine(h[:, None], s[None], dim=2)  # anchors are pairs
    out["representation"] = -difference.sort(dim=1, descending=True).values[:, :ANCHORS].mean(1)
    refusal = torch.stack([losses(base, samples_of_rows(files["tune.jsonl"], vocab, r)) for r in REFUSALS]).mean(0)
    out["refusal"] = refusal - 0.1 * losses(base, tune)
    out["refusal alone"] = refusal

    def unlike_unsafe(rows, samples):
        each = torch.stack([losses(base, samples_of_rows(files[rows], vocab, r)) for r in REFUSALS]).mean(0)
        return each + (OWN_BOUND - losses(base, samples)).clamp(min=0)
    least = unlike_unsafe("safe.jsonl", safe).sort().values[1]  # the second of three: --alike 0.5
    out["refusal-test"] = unlike_unsafe("tune.jsonl", tune).clamp(max=least)
    return out


def token_losses(model, sample):
    tokens, prompt = sample
    ids = torch.tensor([tokens])
    with torch.no_grad():
        return torch.nn.functional.cross_entropy(model(input_ids=ids).logits[0][prompt - 1:-1], ids[0, prompt:], reduction="none")


def toss():
    """(masks, scores, loss): the tokens that stay (1) when the fifth with the highest ℓ_t(useful) − ℓ_t(harmful) is dropped; the rows' scores; and the
    base's loss over the rows, each the mean over the tokens that stay. The adapter of q and v is the useful reference, that of all modules the harmful one."""
    files, vocab = select_files()
    case = CASES["llama"]
    useful, harmful = (add_adapter(case, make_model(case), t).double() for t in (case["qv"], "all-linear"))
    tune = samples_of_rows(files["tune.jsonl"], vocab)
    each = [token_losses(useful, s) - token_losses(harmful, s) for s in tune]
    flat = torch.cat(each)
    dropped = set(sorted(range(len(flat)), key=lambda i: (-flat[i].item(), i))[:len(flat) // 5])
    masks, at = [], 0
    for x in each:
        masks.append([i not in dropped for i in range(at, at + len(x))])
        at += len(x)
    base = make_model(case).double()
    losses = [token_losses(base, s)[torch.tensor(m)].mean() for s, m in zip(tune, masks) if any(m)]
    return ["".join("01"[k] for k in m) for m in masks], [-x.mean().item() for x in each], torch.stack(losses).mean().item()


def select_texts():
    files, _ = select_files()
    masks, scores, loss = toss()
    files["toss.txt"] = "".join(f"mask|{row}|{m}\n" for row, m in enumerate(masks)) + "".join(f"score|{row}|{s:.9g}\n" for row, s in enumerate(scores)) + f"loss|0|{loss:.9g}\n"
    files["expected.txt"] = "".join(f"{case}|{row}|{score:.9g}\n" for case, scores in expected_scores().items() for row, score in enumerate(scores.tolist()))
    return files


def same_text(name, text):
    """A recorded file against one made now: rows equal, scores to 5e-6 of their case's largest."""
    with open(os.path.join(SELECT, name)) as f:
        old = f.read()
    if name != "expected.txt":
        return old == text
    a, b = ([line.split("|") for line in x.splitlines()] for x in (old, text))
    return [x[:2] for x in a] == [x[:2] for x in b] and all(abs(float(x[2]) - float(y[2])) <= 5e-6 * max(abs(float(x[2])), 1e-3) for x, y in zip(a, b))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("names", nargs="*", help="families (default: all)")
    args = parser.parse_args()
    single_thread()
    bad = 0
    for name, case in CASES.items():
        if args.names and name not in args.names:
            continue
        path = os.path.join(GOLDEN, "scores", name + ".safetensors")
        if args.check:
            bad += compare_golden(path, record(case), 5e-6)
        else:
            write_golden(path, record(case), "record_scores.py, fp64 stored as fp32")
            print(f"{name}: {os.path.getsize(path)} bytes")
    for name, text in select_texts().items() if not args.names else ():
        if args.check:
            bad += not same_text(name, text)
            continue
        os.makedirs(SELECT, exist_ok=True)
        with open(os.path.join(SELECT, name), "w") as f:
            f.write(text)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
