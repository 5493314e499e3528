"""
One run of SEAL in PyTorch, written from the equations and not from the trainer: Algorithms 1 and 2 with softmax and sigmoid weights on a small GPT-2,
batches fixed by recorded lists, γ = linear:0,0.03 over three epochs. The gradient of ω comes from autograd, not from the closed formula that the
trainer uses, and is held against that formula here. Each run is done in fp32 and in fp64: the second says how much of a difference is rounding.

    python record_seal.py            writes golden/seal (a model, inputs.safetensors, one run_ALGORITHM_ACTIVATION.safetensors each, one
                                     for each variant: online weights, one ω for each file)
    python record_seal.py --check    runs everything again and compares with the files
    python record_seal.py --survey   how far fp32 in two orders of summation is from fp64, the drift of ω, what ω separates
"""
import argparse
import os
import shutil
import sys

from common import GOLDEN, compare_golden, gpt2, padded_losses, parameters, randomise, single_losses, single_thread, write_golden
import torch
from safetensors.torch import load_file

LAYERS, WIDTH, HEADS, VOCAB, POSITIONS, SEED = 2, 64, 2, 257, 32, 5
N, M, BATCH, EPOCHS = 84, 24, 4, 3
NEVER_DRAWN = (17, 60)                      # the reference leaves rows out as well: their ω shows the drift of Adam on a dense gradient
GAMMA_START, GAMMA_STEP = 0.0, 0.03
THETA = dict(lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0)
THETA_CLIP = 1.0
OMEGA = dict(lr=5e-3, betas=(0.9, 0.95), eps=1e-8)
OMEGA_CLIP = 10.0
OMEGA_START = {"softmax": 0.1, "sigmoid": -1e-4}
RUNS = [(algorithm, activation) for algorithm in (1, 2) for activation in ("softmax", "sigmoid")]
# Variants of Algorithm 2: `online` is one run whose model is kept, with both losses weighing alike from the first step; `file` has one logit for each of
# three files, `online_file` both.
ONLINE_GAMMA, FILES = 0.5, (31, 5, 48)  # rows of each file; N in all
VARIANTS = {"online_softmax": ("softmax", True, False), "online_sigmoid": ("sigmoid", True, False),
            "file_softmax": ("softmax", False, True), "file_sigmoid": ("sigmoid", False, True), "online_file_softmax": ("softmax", True, True)}


# ---- inputs --------------------------------------------------------------------------------------------------------------------------------

def make_samples(count, generator, bad_every):
    """[(tokens, prompt length)]: 6–30 tokens of a noisy affine walk over the vocabulary; every bad_every-th follows another walk in its response."""
    samples = []
    for i in range(count):
        length = int(torch.randint(6, 31, (1,), generator=generator))
        prompt = int(torch.randint(1, length, (1,), generator=generator))
        bad = bad_every and i % bad_every == 0
        tokens = [int(torch.randint(0, VOCAB, (1,), generator=generator))]
        while len(tokens) < length:
            noise = int(torch.randint(0, 3, (1,), generator=generator))
            tokens.append((tokens[-1] + 17 * (3 if bad and len(tokens) >= prompt else 1) + noise) % VOCAB)
        samples.append((tokens, prompt))
    return samples


def make_inputs():
    """Safe and tune samples and the rows of each step's batches. An epoch is one pass over the drawn tune rows, its last batch smaller."""
    generator = torch.Generator().manual_seed(SEED)
    safe, tune = make_samples(M, generator, 0), make_samples(N, generator, 4)
    drawn = torch.tensor([i for i in range(N) if i not in NEVER_DRAWN])
    safe_rows, tune_rows, epochs, pool = [], [], [], []
    for epoch in range(EPOCHS):
        order = drawn[torch.randperm(len(drawn), generator=generator)].tolist()
        for begin in range(0, len(order), BATCH):
            if len(pool) < BATCH:           # the safe set is cycled; M is a multiple of the batch
                pool = torch.randperm(M, generator=generator).tolist()
            safe_rows.append(pool[:BATCH])
            pool = pool[BATCH:]
            tune_rows.append(order[begin:begin + BATCH])
            epochs.append(epoch)
    return safe, tune, safe_rows, tune_rows, epochs


def packed(samples, prefix):
    cu = [0]
    for tokens, _ in samples:
        cu.append(cu[-1] + len(tokens))
    return {prefix + "_tokens": torch.tensor([t for tokens, _ in samples for t in tokens], dtype=torch.int32),
            prefix + "_cu_seqlens": torch.tensor(cu, dtype=torch.int32),
            prefix + "_prompt_len": torch.tensor([p for _, p in samples], dtype=torch.int32)}


def rows_tensor(rows):
    """(steps, BATCH), −1 where the batch is smaller."""
    return torch.tensor([r + [-1] * (BATCH - len(r)) for r in rows], dtype=torch.int32)


# ---- SEAL ----------------------------------------------------------------------------------------------------------------------------------

def sigma(omega, activation):
    """Weights of all N samples: softmax: N·exp(ω_i)/Σ exp(ω_k); sigmoid: 2/(1 + exp(−ω_i))."""
    return len(omega) * torch.softmax(omega, 0) if activation == "softmax" else 2.0 * torch.sigmoid(omega)


def closed_gradient(omega, rows, delta, activation):
    """The formula the trainer uses, for the check of autograd's."""
    weight, b = sigma(omega, activation), len(rows)
    grad = torch.zeros_like(omega)
    if activation == "softmax":
        grad -= weight / b * ((weight[rows] * delta).sum() / len(omega))
        grad[rows] += weight[rows] / b * delta
    else:
        s = torch.sigmoid(omega[rows])
        grad[rows] = 2.0 * s * (1.0 - s) * delta / b
    return grad


def norm(model):
    return torch.sqrt(sum((p.detach() ** 2).sum() for p in model.parameters()))


def step_parameters(model, optimizer, loss):
    """Backward, clip, AdamW; the gradient's norm before clipping."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), THETA_CLIP)
    optimizer.step()
    return grad_norm.detach()


def file_of_rows():
    """(N): the file of each fine-tuning row."""
    return torch.tensor([f for f, n in enumerate(FILES) for _ in range(n)])


def run_seal(algorithm, activation, dtype, losses_of, online=False, by_file=False):
    """One run. losses_of(model, samples) → mean response losses (b). Returns the recorded tensors, in dtype."""
    assert sum(FILES) == N
    unit = file_of_rows() if by_file else torch.arange(N)
    safe, tune, safe_rows, tune_rows, epochs = make_inputs()
    theta = make_model().to(dtype)
    optimizer = torch.optim.AdamW(theta.parameters(), **THETA)
    if algorithm == 1:
        theta_hat = make_model().to(dtype)
        optimizer_hat = torch.optim.AdamW(theta_hat.parameters(), **THETA)
    omega = torch.nn.Parameter(torch.full((int(unit.max()) + 1,), OMEGA_START[activation], dtype=dtype))
    optimizer_omega = torch.optim.Adam([omega], **OMEGA)

    log = {k: [] for k in ("gamma", "safe_loss", "tune_loss", "theta_grad_norm", "theta_norm", "omega_grad_norm", "weighted_loss")}
    if algorithm == 1:
        log.update(tune_loss_hat=[], theta_hat_grad_norm=[], theta_hat_norm=[], gap=[])
    history = [omega.detach().clone()]

    def pad(x):
        return torch.cat([x.detach(), x.new_zeros(BATCH - len(x))])

    for step, (rows_s, rows_f, epoch) in enumerate(zip(safe_rows, tune_rows, epochs)):
        gamma = ONLINE_GAMMA if online else min(max(GAMMA_START + GAMMA_STEP * epoch, 0.0), 1.0)
        batch_s, batch_f = [safe[i] for i in rows_s], [tune[i] for i in rows_f]
        weight = sigma(omega[unit], activation)[rows_f]     # with gradient for ω; everything else takes it as a constant
        fixed = weight.detach()

        # every loss at the parameters from before the step
        loss_s = losses_of(theta, batch_s)
        if gamma == 0.0:
            with torch.no_grad():
                loss_f = losses_of(theta, batch_f)
            objective = loss_s.mean()
        else:
            loss_f = losses_of(theta, batch_f)
            objective = (1.0 - gamma) * loss_s.mean() + gamma * (fixed * loss_f).mean()
        delta = loss_f.detach()
        if algorithm == 1:
            loss_hat = losses_of(theta_hat, batch_f)
            same = all(torch.equal(a, b) for a, b in zip(theta.parameters(), theta_hat.parameters()))
            assert same == (step == 0)
            delta = torch.zeros_like(delta) if same else delta - loss_hat.detach()
            log["tune_loss_hat"].append(pad(loss_hat))
            log["theta_hat_grad_norm"].append(step_parameters(theta_hat, optimizer_hat, (fixed * loss_hat).mean()))
            log["theta_hat_norm"].append(norm(theta_hat))
            log["gap"].append((fixed * delta).mean())
        log["theta_grad_norm"].append(step_parameters(theta, optimizer, objective))
        log["theta_norm"].append(norm(theta))

        optimizer_omega.zero_grad(set_to_none=True)
        (weight * delta).mean().backward()
        expected = torch.zeros_like(omega).index_add(0, unit, closed_gradient(omega.detach()[unit], rows_f, delta, activation)).detach()
        assert (omega.grad - expected).abs().max() <= 2e-6 * (expected.abs().max() + (fixed * delta.abs()).max()), "autograd against the closed form"
        log["omega_grad_norm"].append(torch.nn.utils.clip_grad_norm_([omega], OMEGA_CLIP).detach())
        optimizer_omega.step()
        history.append(omega.detach().clone())

        log["gamma"].append(torch.tensor(gamma, dtype=dtype))
        log["safe_loss"].append(pad(loss_s))
        log["tune_loss"].append(pad(loss_f))
        log["weighted_loss"].append((fixed * loss_f.detach()).mean())
    out = {k: torch.stack(v) for k, v in log.items()}
    out["omega"] = torch.stack(history)
    return out


# ---- files ---------------------------------------------------------------------------------------------------------------------------------

def make_model():
    model = gpt2(LAYERS, WIDTH, HEADS, VOCAB, POSITIONS)
    randomise(model, SEED, embedding=0.1, matrix=0.7, bias=0.05)
    return model


def make_tensors():
    """{file name: tensors}."""
    safe, tune, safe_rows, tune_rows, epochs = make_inputs()
    t, o = THETA, OMEGA
    files = {"inputs.safetensors": dict(
        packed(safe, "safe"), **packed(tune, "tune"), safe_rows=rows_tensor(safe_rows), tune_rows=rows_tensor(tune_rows),
        epoch=torch.tensor(epochs, dtype=torch.int32),
        theta_adamw=torch.tensor([t["lr"], *t["betas"], t["eps"], t["weight_decay"], THETA_CLIP], dtype=torch.float32),
        omega_adam=torch.tensor([o["lr"], *o["betas"], o["eps"], OMEGA_CLIP], dtype=torch.float32),
        gamma_linear=torch.tensor([GAMMA_START, GAMMA_STEP], dtype=torch.float32))}
    for algorithm, activation in RUNS:
        tensors = run_seal(algorithm, activation, torch.float32, single_losses)
        exact = run_seal(algorithm, activation, torch.float64, single_losses)
        for name in ("safe_loss", "tune_loss", "tune_loss_hat", "omega"):
            if name in exact:
                tensors["exact." + name] = exact[name]
        files[f"run_{algorithm}_{activation}.safetensors"] = tensors
    for name, (activation, online, by_file) in VARIANTS.items():
        tensors = run_seal(2, activation, torch.float32, single_losses, online, by_file)
        if by_file:
            tensors["unit"] = file_of_rows().int()
        files[f"run_{name}.safetensors"] = tensors
    return files


def write_model(folder):
    os.makedirs(folder, exist_ok=True)
    make_model().save_pretrained(folder + ".tmp")
    for name in ("config.json", "model.safetensors"):
        os.replace(os.path.join(folder + ".tmp", name), os.path.join(folder, name))
    shutil.rmtree(folder + ".tmp")


def apart(a, b):
    """max|a−b| / |b| over the losses of two runs."""
    names = [k for k in ("safe_loss", "tune_loss", "tune_loss_hat") if k in b]
    return max(((a[k].double() - b[k]).abs() / b[k].abs())[b[k] != 0].max().item() for k in names)


def survey():
    _, _, _, tune_rows, _ = make_inputs()
    steps = len(tune_rows)
    bad = torch.tensor([i % 4 == 0 for i in range(N)])
    for algorithm, activation in RUNS:
        exact = run_seal(algorithm, activation, torch.float64, single_losses)
        final = exact["omega"][-1]
        print(f"algorithm {algorithm}, {activation}: {steps} steps; safe loss {exact['safe_loss'][0].mean():.4f} → {exact['safe_loss'][-1].mean():.4f},"
              f" tune loss {exact['tune_loss'][0].mean():.4f} → {exact['tune_loss'][-2].mean():.4f}")
        for name in ("theta_grad_norm", "omega_grad_norm"):
            print(f"  {name} {exact[name].min():.3g}…{exact[name].max():.3g}")
        for name, losses_of in (("one sample at a time", single_losses), ("padded batches", padded_losses)):
            run = run_seal(algorithm, activation, torch.float32, losses_of)
            omega = (run["omega"].double() - exact["omega"]).abs().max()
            theta = (run["theta_norm"].double() / exact["theta_norm"] - 1.0).abs().max()
            print(f"  fp32, {name}, against fp64: ω within {omega:.1e}, losses within {apart(run, exact):.1e} relative, |θ| within {theta:.1e} relative")
        bound = OMEGA_START[activation] + OMEGA["lr"] * steps
        print(f"  ω {final.min():.4f}…{final.max():.4f}, largest at row {int(final.argmax())}, ω₀ + lr·steps = {bound:.4f}; rows never drawn",
              " ".join(f"{final[i]:.4f}" for i in NEVER_DRAWN), f"; means: the common walk {final[~bad].mean():.4f}, another walk {final[bad].mean():.4f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--survey", action="store_true")
    args = parser.parse_args()
    single_thread()
    if args.survey:
        return survey()
    folder = os.path.join(GOLDEN, "seal")
    bad = 0
    if args.check:
        stored = load_file(os.path.join(folder, "model.safetensors"))
        bad += sum(not torch.equal(stored[n], p) for n, p in parameters(make_model()).items())
    else:
        write_model(folder)
    for name, tensors in make_tensors().items():
        path = os.path.join(folder, name)
        if args.check:
            bad += compare_golden(path, tensors, 1e-4)     # another machine's BLAS, amplified by Adam over the run
        else:
            write_golden(path, tensors, "record_seal.py")
            print(f"{os.path.relpath(path, GOLDEN)}: {os.path.getsize(path)} bytes")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
