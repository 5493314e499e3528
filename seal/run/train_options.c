/* The options of train_seal. See train_options.h. */
#include <string.h>
#include "base/error.h"
#include "model_config.h"
#include "run/train_options.h"

#define INIT (1u << COMMAND_INIT)
#define IMPORT (1u << COMMAND_IMPORT)
#define PRETRAIN (1u << COMMAND_PRETRAIN)
#define SELECTOR (1u << COMMAND_SELECTOR)
#define SFT (1u << COMMAND_SFT)
#define SELECT (1u << COMMAND_SELECT)
#define CHECK (1u << COMMAND_CHECK)
#define TRAINS (PRETRAIN | SELECTOR | SFT)
#define ROWS (SELECTOR | SFT | SELECT | CHECK)
#define AT(field) offsetof(TrainOptions, field)
#define BIG 9e15

static const CommandRow commands[N_TRAIN_COMMANDS] = {
    {"init", "makes a random model as a Hugging Face directory", NULL},
    {"import", "turns a GGUF file of llama.cpp into a Hugging Face directory", NULL},
    {"pretrain", "trains on all tokens of token files or texts", NULL},
    {"selector", "learns a weight for every fine-tuning sample (SEAL, Algorithms 1 and 2)", NULL},
    {"sft", "fine-tunes on prompts and responses", NULL},
    {"select", "writes the rows worth keeping, byte for byte, for any trainer", NULL},
    {"check", "reports tokens, rows cut or left out, steps and memory of a planned run", NULL},
    {"options", "prints this table as Markdown", NULL},
};

static const OptionRow options[] = {
    {"family", OPTION_CHOICE, AT(family), "gpt2",
     "gpt2|llama|mistral|gpt_neox|phi3|qwen2|qwen3|smollm3|olmo2|olmo3|gemma2|gemma3_text|granite", 0, 0, INIT, 0,
     "model family"},
    {"layers", OPTION_INT, AT(layers), "4", NULL, 1, 1024, INIT, 0, "layers"},
    {"width", OPTION_INT, AT(width), "128", NULL, 8, 131072, INIT, 0, "width C of the residual stream"},
    {"heads", OPTION_INT, AT(heads), "4", NULL, 1, 1024, INIT, 0, "attention heads"},
    {"kv-heads", OPTION_INT, AT(kv_heads), "0", NULL, 0, 1024, INIT, 0,
     "key-value heads, each shared by heads / kv-heads query heads; 0: as many as heads"},
    {"head-size", OPTION_INT, AT(head_size), "0", NULL, 0, 1024, INIT, 0,
     "one of 32, 64, 80, 96, 128, 256; 0: width / heads"},
    {"ff", OPTION_INT, AT(ff), "0", NULL, 0, 1048576, INIT, 0, "width of the MLP; 0: the family's own multiple of C"},
    {"vocab", OPTION_INT, AT(vocab), "0", NULL, 0, 16777216, INIT, 0, "vocabulary; 0: the tokenizer's"},
    {"rope-base", OPTION_FLOAT, AT(rope_base), "0", NULL, 0, 1e12, INIT, 0,
     "base of rotary positions; 0: the family's own"},
    {"positions", OPTION_INT, AT(positions), "1024", NULL, 1, 16777216, INIT, 0, "longest sample the model can read"},
    {"tokenizer", OPTION_STRING, AT(tokenizer), NULL, "PATH", 0, 0, INIT, 0,
     "tokenizer file, or directory with one, to put into the model's directory"},
    {"config-only", OPTION_FLAG, AT(config_only), NULL, NULL, 0, 0, INIT, 0,
     "write config.json and no weights: enough for --dry-run"},
    {"gguf", OPTION_LIST, AT(gguf), NULL, "FILE", 0, 0, IMPORT, IMPORT,
     "the file; of several splits or pieces any one, by whose name the others are found, or all in order"},
    {"dtype", OPTION_CHOICE, AT(dtype), "bf16", "bf16|fp16|fp32", 0, 0, IMPORT, 0,
     "type of the weights that are written"},
    {"model", OPTION_STRING, AT(model), NULL, "DIR", 0, 0, TRAINS | SELECT | CHECK, TRAINS | CHECK,
     "Hugging Face directory of the model to train; select: of the model whose loss is the score, or is shown by "
     "--explain"},
    {"lora", OPTION_STRING, AT(lora), "none", "MODULES", 0, 0, TRAINS | SELECT | CHECK, 0,
     "train adapters over the frozen model: some of q,k,v,o,gate,up,down, or all; none: the whole model is trained; "
     "select: gradients are those of such adapters, fresh, A random by --seed"},
    {"lora-rank", OPTION_INT, AT(lora_rank), "16", NULL, 1, 1024, TRAINS | SELECT | CHECK, 0, "rank r of each adapter"},
    {"lora-alpha", OPTION_FLOAT, AT(lora_alpha), "16", NULL, 1e-6, 1e6, TRAINS | SELECT | CHECK, 0,
     "an adapter's product is multiplied by alpha / r"},
    {"base", OPTION_CHOICE, AT(base), "bf16", "bf16|fp8|nf4", 0, 0, TRAINS | SELECT | CHECK, 0,
     "linear layers of the model under adapters: as the build computes, bf16 or fp32; multiplied in fp8, for speed "
     "(compute capability 8.9 or newer); or in 4 bits as bitsandbytes has them (QLoRA); select: also of a model "
     "without adapters"},
    {"adapter", OPTION_STRING, AT(adapter), NULL, "DIR", 0, 0, TRAINS | SELECT | CHECK, 0,
     "PEFT directory of an adapter of --model to train further; brings its modules, rank and alpha; select: the model "
     "is "
     "--model with it"},
    {"merge", OPTION_FLAG, AT(merge), NULL, NULL, 0, 0, TRAINS, 0,
     "also write the model with the trained adapter added, in the dtype of --model"},
    {"tune", OPTION_LIST, AT(tune), NULL, "FILE", 0, 0, TRAINS | SELECT | CHECK, TRAINS | SELECT | CHECK,
     "training data; may be given several times"},
    {"safe", OPTION_LIST, AT(safe), NULL, "FILE", 0, 0, SELECTOR | SFT | SELECT | CHECK, SELECTOR,
     "D_safe: rows that show how the model should keep answering; may be given several times; sft: of --weights "
     "learn; select: of influence and refusal, and the safe anchors of representation"},
    {"valid", OPTION_LIST, AT(valid), NULL, "FILE", 0, 0, PRETRAIN | SFT, 0,
     "held-out data; its loss is logged at the end of every epoch"},
    {"out", OPTION_STRING, AT(out), NULL, "DIR", 0, 0, INIT | IMPORT | TRAINS | SELECT, INIT | IMPORT | TRAINS | SELECT,
     "where the model, the run or the selected rows are written"},
    {"shard-gb", OPTION_FLOAT, AT(shard_gb), "5", NULL, 1e-6, 1e6, INIT | IMPORT | TRAINS, 0,
     "save the model in files of at most this many GB"},
    {"template", OPTION_STRING, AT(prompt_template), NULL, "TEXT", 0, 0, ROWS, 0,
     "template of a prompt, contains {prompt}; default: Human: {prompt}, newline, Assistant:"},
    {"chat", OPTION_STRING, AT(chat), NULL, "FILE", 0, 0, ROWS, 0,
     "chat template that writes a row: auto (the model's own), none (the reference's text), a file, llama3, mistral, "
     "mistral-v0.2, phi3; default: auto where the model has one and neither --template nor --compat is given"},
    {"loss-on", OPTION_CHOICE, AT(loss_on), "last", "last|all", 0, 0, ROWS, 0,
     "with a chat template: which of the assistant's turns carry loss, each with its end-of-turn token"},
    {"parse-special", OPTION_FLAG, AT(parse_special), NULL, NULL, 0, 0, ROWS, 0,
     "with a chat template: special tokens in a row's own text are read as such, as Hugging Face does; otherwise they "
     "are text, and a row cannot end a turn"},
    {"prompt-field", OPTION_STRING, AT(prompt_field), NULL, "TEXT", 0, 0, ROWS, 0,
     "a row's prompt: a field, or a text like {instruction} {input}; default: by the row's layout"},
    {"response-field", OPTION_STRING, AT(response_field), NULL, "TEXT", 0, 0, ROWS, 0, "a row's response, likewise"},
    {"compat", OPTION_FLAG, AT(compat), NULL, NULL, 0, 0, ROWS, 0,
     "count prompts, end epochs and drop batches as the reference does"},
    {"loss-mean", OPTION_CHOICE, AT(loss_mean), "sample", "sample|token", 0, 0, SFT, 0,
     "a batch's loss is the mean over samples, or over response tokens"},
    {"algorithm", OPTION_INT, AT(algorithm), "2", NULL, 1, 2, SELECTOR, 0,
     "1: with the auxiliary parameters theta_hat; 2: memory-efficient, the paper's default"},
    {"gamma", OPTION_STRING, AT(gamma), "linear:0,0.03", "SCHEDULE", 0, 0, SELECTOR | SFT, 0,
     "linear:START,STEP (per epoch), fixed:G, geometric:G0,RATIO, list:a,b,c, ramp:START,END (per step); sft --weights "
     "learn: fixed:0.5, which weighs safe and fine-tuning samples alike"},
    {"weights", OPTION_CHOICE, AT(weights), "rows", "rows|learn", 0, 0, SFT, 0,
     "of the fine-tuning rows: rows: those that the files give; learn: learned in this run with --safe, as the "
     "selector learns them; the model is the result, without a second stage"},
    {"gamma-scales-omega", OPTION_SWITCH, AT(gamma_scales_omega), "off", NULL, 0, 0, SELECTOR | SFT, 0,
     "multiply the selector's gradient by gamma (the paper; the reference does not)"},
    {"activation", OPTION_CHOICE, AT(activation), "softmax", "softmax|sigmoid", 0, 0, SELECTOR | SFT, 0,
     "how logits become weights"},
    {"selector-optimizer", OPTION_CHOICE, AT(selector_optimizer), "adam", "adam|sgd|centred|mean", 0, 0, SELECTOR | SFT,
     0, "optimizer of the selector; adam is what the reference uses"},
    {"selector-unit", OPTION_CHOICE, AT(selector_unit), "row", "row|file", 0, 0, SELECTOR | SFT, 0,
     "what has a logit: each row, or each file of --tune, whose rows share it"},
    {"selector-lr", OPTION_FLOAT, AT(selector_lr), "5e-3", NULL, 0, 1e9, SELECTOR | SFT, 0,
     "learning rate of the selector"},
    {"selector-schedule", OPTION_CHOICE, AT(selector_schedule), "constant", "constant|linear|cosine", 0, 0,
     SELECTOR | SFT, 0, "schedule of the selector's learning rate"},
    {"selector-clip", OPTION_FLOAT, AT(selector_clip), "10", NULL, 0, 1e9, SELECTOR | SFT, 0,
     "largest norm of the selector's gradient; 0: no clipping"},
    {"append", OPTION_LIST, AT(append), NULL, "FILE", 0, 0, SFT, 0,
     "rows to train on besides the selected ones (SafeInstr)"},
    {"selector", OPTION_STRING, AT(selector), NULL, "FILE", 0, 0, SFT | SELECT, 0,
     "selector.safetensors, or a published .pt"},
    {"method", OPTION_CHOICE, AT(method), "seal",
     "seal|random|safe-loss|dsir|loss-diff|influence|gradient-norm|representation|refusal|refusal-test|toss", 0, 0,
     SELECT, 0, "what scores a row"},
    {"reference", OPTION_STRING, AT(reference), NULL, "DIR", 0, 0, SELECT, 0,
     "loss-diff: the model to compare with, as it was before the training on D_safe; without it --model without its "
     "--adapter"},
    {"reference-adapter", OPTION_STRING, AT(reference_adapter), NULL, "DIR", 0, 0, SELECT, 0,
     "loss-diff: an adapter of that model"},
    {"harmful", OPTION_LIST, AT(harmful), NULL, "FILE", 0, 0, SELECT, 0,
     "rows with answers that must not be learned: influence turns away from their mean gradient, representation has "
     "them as unsafe anchors; may be given several times"},
    {"matrices", OPTION_STRING, AT(matrices), "all", "MODULES", 0, 0, SELECT, 0,
     "influence, gradient-norm: whose gradients count, some of q,k,v,o,gate,up,down, or all; with adapters theirs"},
    {"form", OPTION_CHOICE, AT(form), "plain", "plain|cosine|self-inf", 0, 0, SELECT, 0,
     "influence: the product, or the cosine; gradient-norm: the norm, or log(norm^2 + 1) + log(answer's tokens + 1)"},
    {"layer", OPTION_STRING, AT(layer), "probe", "N|probe", 0, 0, SELECT, 0,
     "representation: after which layer, from 1; probe: the one whose scaling changes the loss of refusals most"},
    {"probe", OPTION_LIST, AT(probe), NULL, "FILE", 0, 0, SELECT, 0,
     "representation: the refusals of the probe; default: --safe"},
    {"anchors", OPTION_INT, AT(anchors), "100", NULL, 1, BIG, SELECT, 0,
     "representation: how many pairs of anchors count for a row, those that say most against it"},
    {"refusals", OPTION_LIST, AT(refusals), NULL, "FILE", 0, 0, SELECT, 0,
     "refusal: texts that refuse, one per line of a .txt, or the commonest answers of data files; default: those of "
     "--safe that begin as refusals do"},
    {"refusal-texts", OPTION_INT, AT(refusal_texts), "2", NULL, 1, 16, SELECT, 0,
     "refusal: how many different answers of data files are taken; the score is their mean, each costs a pass"},
    {"own-loss", OPTION_FLOAT, AT(own_loss), "0.1", NULL, 0, 1e6, SELECT, 0,
     "refusal: the share of the row's own loss that is taken off, so that rows that refuse are kept; 0: none"},
    {"own-bound", OPTION_FLOAT, AT(own_bound), "1", NULL, 0, 1e6, SELECT, 0,
     "refusal-test: the loss per token below which a row's own answer speaks for it"},
    {"alike", OPTION_FLOAT, AT(alike), "0.01", NULL, 0, 0.999, SELECT, 0,
     "refusal-test: the share of D_safe's rows whose scores are too low to pass; rows above them are equals"},
    {"useful", OPTION_LIST, AT(useful), NULL, "FILE", 0, 0, SELECT, 0,
     "toss: rows worth learning, on which the useful reference is trained; the harmful one on --harmful"},
    {"useful-adapter", OPTION_STRING, AT(useful_adapter), NULL, "DIR", 0, 0, SELECT, 0,
     "toss: a reference that is there already, as an adapter of --model"},
    {"harmful-adapter", OPTION_STRING, AT(harmful_adapter), NULL, "DIR", 0, 0, SELECT, 0, "toss: the harmful one"},
    {"drop-tokens", OPTION_FLOAT, AT(drop_tokens), "0.2", NULL, 0, 0.999, SELECT, 0,
     "toss: the share of all response tokens that is not trained"},
    {"refine", OPTION_INT, AT(refine), "0", NULL, 0, 100, SELECT, 0,
     "toss: how often the harmful reference is trained further on the tokens that were found, and all tokens are "
     "scored again (TOSS-Pro)"},
    {"token-mask", OPTION_STRING, AT(token_mask), NULL, "FILE", 0, 0, SELECT | SFT, 0,
     "select: where toss writes which tokens of --out are trained (default: OUT.mask.safetensors); sft: trains those "
     "alone"},
    {"reverse", OPTION_FLAG, AT(reverse), NULL, NULL, 0, 0, SELECT, 0,
     "keep the rows with the lowest scores; --scores has them with the other sign"},
    {"target", OPTION_LIST, AT(target), NULL, "FILE", 0, 0, SELECT, 0,
     "dsir: rows that the selection should resemble (D_safe); may be given several times"},
    {"noise", OPTION_SWITCH, AT(noise), "on", NULL, 0, 0, SELECT, 0,
     "dsir: Gumbel noise on the log weights, by --seed"},
    {"min-words", OPTION_INT, AT(min_words), "0", NULL, 0, BIG, SELECT, 0,
     "dsir: rows with fewer words are never kept (upstream: 100)"},
    {"top", OPTION_FLOAT, AT(top), "0.8", NULL, 1e-9, 1, SFT | SELECT, 0, "share of the rows to keep"},
    {"explain", OPTION_FLAG, AT(explain), NULL, NULL, 0, 0, SELECT, 0, "show the highest and lowest rows"},
    {"scores", OPTION_STRING, AT(scores), NULL, "FILE", 0, 0, SELECT, 0,
     "write every row's score as a selector (.safetensors)"},
    {"left-out", OPTION_STRING, AT(left_out), NULL, "FILE", 0, 0, CHECK, 0,
     "write every row that is left out: file, line, row, why"},
    {"show", OPTION_INT, AT(show), "0", NULL, 0, BIG, CHECK, 0,
     "print the first N samples of each list of files as they are trained, the tokens that carry loss marked"},
    {"lr-hat", OPTION_FLOAT, AT(lr_hat), "0", NULL, 0, 1e6, SELECTOR, 0, "learning rate of theta_hat; 0: --lr"},
    {"lr", OPTION_FLOAT, AT(lr), "1e-5", NULL, 0, 1e6, TRAINS | SELECT, 0,
     "learning rate of the model; select: of toss's references"},
    {"schedule", OPTION_CHOICE, AT(schedule), "constant", "constant|linear|cosine", 0, 0, TRAINS, 0,
     "schedule of the learning rate"},
    {"warmup", OPTION_FLOAT, AT(warmup), "0", NULL, 0, BIG, TRAINS, 0,
     "steps of linear warm-up; below 1: a share of the run"},
    {"clip", OPTION_FLOAT, AT(clip), "1.0", NULL, 0, 1e9, TRAINS, 0, "largest norm of the gradient; 0: no clipping"},
    {"weight-decay", OPTION_FLOAT, AT(weight_decay), "0", NULL, 0, 1e3, TRAINS, 0,
     "weight decay of matrices and embeddings (AdamW)"},
    {"beta1", OPTION_FLOAT, AT(beta1), "0.9", NULL, 0, 0.999999, TRAINS, 0, "AdamW"},
    {"beta2", OPTION_FLOAT, AT(beta2), "0.95", NULL, 0, 0.9999999, TRAINS, 0, "AdamW"},
    {"adam-eps", OPTION_FLOAT, AT(adam_eps), "1e-8", NULL, 1e-30, 1, TRAINS, 0, "AdamW"},
    {"epochs", OPTION_FLOAT, AT(epochs), "1", NULL, 0, 1e6, TRAINS | SELECT | CHECK, 0,
     "passes over the training data; select: of toss's references (2)"},
    {"max-steps", OPTION_INT, AT(max_steps), "0", NULL, 0, BIG, TRAINS | CHECK, 0,
     "stop after this many steps; 0: at the end of the epochs"},
    {"batch", OPTION_INT, AT(batch), "64", NULL, 1, 1048576, TRAINS | SELECT | CHECK, 0, "samples per step"},
    {"tokens", OPTION_INT, AT(tokens), "0", "N|auto", 0, 16777216, TRAINS | SELECT | CHECK, 0,
     "tokens per pack; auto: as many as a batch needs and free device memory allows, or as the resumed run began with; "
     "0: auto on a GPU, --max-length on a CPU"},
    {"max-length", OPTION_INT, AT(max_length), "0", NULL, 0, 16777216, TRAINS | SELECT | CHECK, 0,
     "longest sample in tokens; 0: what the model can read"},
    {"head-rows", OPTION_INT, AT(head_rows), "1024", NULL, 8, 1048576, TRAINS | SELECT | CHECK, 0,
     "rows of logits held in memory at once"},
    {"recompute", OPTION_FLAG, AT(recompute), NULL, NULL, 0, 0, TRAINS | SELECT | CHECK, 0,
     "compute activations again in backward: less memory, a third more time, the same bits"},
    {"algorithms", OPTION_STRING, AT(algorithms), NULL, "FILE", 0, 0, TRAINS, 0,
     "time cuBLASLt's algorithms once per shape and keep the fastest in FILE; the next run takes them from there"},
    {"seed", OPTION_INT, AT(seed), "42", NULL, 0, BIG, INIT | TRAINS | SELECT, 0, "seed of every random choice"},
    {"save-every", OPTION_INT, AT(save_every), "0", NULL, 0, BIG, TRAINS, 0,
     "steps between checkpoints; 0: only when SIGTERM or SIGINT stops the run"},
    {"keep", OPTION_INT, AT(keep), "2", NULL, 1, 1000, TRAINS, 0, "checkpoints to keep; older ones are removed"},
    {"resume", OPTION_FLAG, AT(resume), NULL, NULL, 0, 0, TRAINS | SELECT, 0,
     "continue from the newest checkpoint of --out (select: with the losses measured so far), or start if there is "
     "none"},
    {"ranks", OPTION_INT, AT(ranks), "0", NULL, 0, 4096, TRAINS | SELECT, 0,
     "processes, one per GPU, started by mpirun or srun; with --dry-run: plan for this many; 0: as many as were "
     "started"},
    {"dry-run", OPTION_FLAG, AT(dry_run), NULL, NULL, 0, 0, TRAINS | SELECT, 0, "print the memory plan and stop"},
    {"quiet", OPTION_FLAG, AT(quiet), NULL, NULL, 0, 0, INIT | IMPORT | TRAINS | SELECT | CHECK, 0,
     "no progress, no tables"},
};

static const OptionRule rules[] = {
    {"safe", NEEDS, "weights", SFT},
    {"gamma", NEEDS, "weights", SFT},
    {"gamma-scales-omega", NEEDS, "weights", SFT},
    {"activation", NEEDS, "weights", SFT},
    {"selector-optimizer", NEEDS, "weights", SFT},
    {"selector-unit", NEEDS, "weights", SFT},
    {"selector-lr", NEEDS, "weights", SFT},
    {"selector-schedule", NEEDS, "weights", SFT},
    {"selector-clip", NEEDS, "weights", SFT},
    {"top", WITHOUT, "selector", SFT},
    {"template", BESIDE, "chat", ROWS},
    {"lora-rank", BESIDE, "adapter", TRAINS | SELECT | CHECK},
    {"lora-alpha", BESIDE, "adapter", TRAINS | SELECT | CHECK},
    {"lora-rank", WITHOUT, "lora", TRAINS | SELECT | CHECK},
    {"lora-alpha", WITHOUT, "lora", TRAINS | SELECT | CHECK},
};

const OptionTable train_options = {"train_seal", "trains language models with SEAL, bilevel data selection",
                                   commands,     N_TRAIN_COMMANDS,
                                   options,      sizeof options / sizeof *options,
                                   rules,        sizeof rules / sizeof *rules};

bool learns_weights(const TrainOptions* o, int command) {
    return command == COMMAND_SELECTOR || (command == COMMAND_SFT && !strcmp(o->weights, "learn"));
}

void train_options_settle(TrainOptions* o, int command) {
    static const char* const useless[] = {"selector", "append", "valid", "loss-mean", "token-mask"};
    if (command != COMMAND_SFT || !options_given(&train_options, "weights")) return;
    if (!learns_weights(o, command)) {
        for (int i = 0; i < train_options.n_rules; i++)
            if (train_options.rules[i].how == NEEDS && options_given(&train_options, train_options.rules[i].option))
                fatal("sft: --%s has no effect without --weights learn", train_options.rules[i].option);
        return;
    }
    if (!o->safe.n) fatal("sft: --weights learn needs --safe");
    for (size_t i = 0; i < sizeof useless / sizeof *useless; i++)
        if (options_given(&train_options, useless[i]))
            fatal("sft: --%s does not go with --weights learn, which trains on all rows of --tune and --safe",
                  useless[i]);
    if (!options_given(&train_options, "gamma")) o->gamma = "fixed:0.5";
}
