/* The options of train_seal. See train_options.h. */
#include "model_config.h"
#include "train_options.h"

#define INIT (1u << COMMAND_INIT)
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
    {"pretrain", "trains on all tokens of token files or texts", NULL},
    {"selector", "learns a weight for every fine-tuning sample (SEAL, Algorithms 1 and 2)", NULL},
    {"sft", "fine-tunes on prompts and responses", NULL},
    {"select", "writes the rows worth keeping, byte for byte, for any trainer", NULL},
    {"check", "tokens, rows cut or left out, steps and memory of a run to come", NULL},
    {"options", "prints this table as Markdown", NULL},
};

static const OptionRow options[] = {
    {"family", OPTION_CHOICE, AT(family), "gpt2", "gpt2|llama|mistral|gpt_neox|phi3", 0, 0, INIT, 0, "model family"},
    {"layers", OPTION_INT, AT(layers), "4", NULL, 1, 1024, INIT, 0, "layers"},
    {"width", OPTION_INT, AT(width), "128", NULL, 8, 131072, INIT, 0, "width C of the residual stream"},
    {"heads", OPTION_INT, AT(heads), "4", NULL, 1, 1024, INIT, 0, "attention heads"},
    {"kv-heads", OPTION_INT, AT(kv_heads), "0", NULL, 0, 1024, INIT, 0, "key-value heads, each shared by heads / kv-heads query heads; 0: as many as heads"},
    {"head-size", OPTION_INT, AT(head_size), "0", NULL, 0, 1024, INIT, 0, "one of 32, 64, 80, 96, 128, 256; 0: width / heads"},
    {"ff", OPTION_INT, AT(ff), "0", NULL, 0, 1048576, INIT, 0, "width of the MLP; 0: the family's own multiple of C"},
    {"vocab", OPTION_INT, AT(vocab), "0", NULL, 0, 16777216, INIT, 0, "vocabulary; 0: the tokenizer's"},
    {"rope-base", OPTION_FLOAT, AT(rope_base), "0", NULL, 0, 1e12, INIT, 0, "base of rotary positions; 0: the family's own"},
    {"positions", OPTION_INT, AT(positions), "1024", NULL, 1, 16777216, INIT, 0, "longest sample the model can read"},
    {"tokenizer", OPTION_STRING, AT(tokenizer), NULL, "PATH", 0, 0, INIT, 0, "tokenizer file, or directory with one, to put into the model's directory"},
    {"config-only", OPTION_FLAG, AT(config_only), NULL, NULL, 0, 0, INIT, 0, "write config.json and no weights: enough for --dry-run"},
    {"model", OPTION_STRING, AT(model), NULL, "DIR", 0, 0, TRAINS | SELECT | CHECK, TRAINS | CHECK, "Hugging Face directory of the model to train; select: of the model whose loss is the score, or is shown by --explain"},
    {"lora", OPTION_STRING, AT(lora), "none", "MODULES", 0, 0, TRAINS | CHECK, 0, "train adapters over the frozen model: some of q,k,v,o,gate,up,down, or all; none: the whole model is trained"},
    {"lora-rank", OPTION_INT, AT(lora_rank), "16", NULL, 1, 1024, TRAINS | CHECK, 0, "rank r of each adapter"},
    {"lora-alpha", OPTION_FLOAT, AT(lora_alpha), "16", NULL, 1e-6, 1e6, TRAINS | CHECK, 0, "an adapter's product is multiplied by alpha / r"},
    {"adapter", OPTION_STRING, AT(adapter), NULL, "DIR", 0, 0, TRAINS | SELECT | CHECK, 0, "PEFT directory of an adapter of --model to go on with; brings its modules, rank and alpha"},
    {"merge", OPTION_FLAG, AT(merge), NULL, NULL, 0, 0, TRAINS, 0, "write the model with the trained adapter added as well, in the dtype of --model"},
    {"tune", OPTION_LIST, AT(tune), NULL, "FILE", 0, 0, TRAINS | SELECT | CHECK, TRAINS | SELECT | CHECK, "training data; may be given several times"},
    {"safe", OPTION_LIST, AT(safe), NULL, "FILE", 0, 0, SELECTOR | CHECK, SELECTOR, "D_safe: what the model is to stay good at; may be given several times"},
    {"valid", OPTION_LIST, AT(valid), NULL, "FILE", 0, 0, PRETRAIN | SFT, 0, "held-out data; its loss is logged at the end of every epoch"},
    {"out", OPTION_STRING, AT(out), NULL, "DIR", 0, 0, INIT | TRAINS | SELECT, INIT | TRAINS | SELECT, "where the model, the run or the selected rows are written"},
    {"shard-gb", OPTION_FLOAT, AT(shard_gb), "5", NULL, 1e-6, 1e6, INIT | TRAINS, 0, "a model is saved in files of at most so many GB"},
    {"template", OPTION_STRING, AT(prompt_template), NULL, "TEXT", 0, 0, ROWS, 0, "of a prompt, holds {prompt}; default: Human: {prompt}, newline, Assistant:"},
    {"prompt-field", OPTION_STRING, AT(prompt_field), NULL, "TEXT", 0, 0, ROWS, 0, "a row's prompt: a field, or a text like {instruction} {input}; default: by the row's layout"},
    {"response-field", OPTION_STRING, AT(response_field), NULL, "TEXT", 0, 0, ROWS, 0, "a row's response, likewise"},
    {"compat", OPTION_FLAG, AT(compat), NULL, NULL, 0, 0, ROWS, 0, "count prompts, end epochs and drop batches as the reference does"},
    {"loss-mean", OPTION_CHOICE, AT(loss_mean), "sample", "sample|token", 0, 0, SFT, 0, "a batch's loss is the mean over samples, or over response tokens"},
    {"algorithm", OPTION_INT, AT(algorithm), "2", NULL, 1, 2, SELECTOR, 0, "1: with the auxiliary parameters theta_hat; 2: memory-efficient, the paper's default"},
    {"gamma", OPTION_STRING, AT(gamma), "linear:0,0.03", "SCHEDULE", 0, 0, SELECTOR, 0, "linear:START,STEP (per epoch), fixed:G, geometric:G0,RATIO, list:a,b,c, ramp:START,END (per step)"},
    {"gamma-scales-omega", OPTION_SWITCH, AT(gamma_scales_omega), "off", NULL, 0, 0, SELECTOR, 0, "multiply the selector's gradient by gamma (the paper; the reference does not)"},
    {"activation", OPTION_CHOICE, AT(activation), "softmax", "softmax|sigmoid", 0, 0, SELECTOR, 0, "from logits to weights"},
    {"selector-optimizer", OPTION_CHOICE, AT(selector_optimizer), "adam", "adam|sgd|centred|mean", 0, 0, SELECTOR, 0, "of the selector; adam is the reference's"},
    {"selector-lr", OPTION_FLOAT, AT(selector_lr), "5e-3", NULL, 0, 1e9, SELECTOR, 0, "learning rate of the selector"},
    {"selector-schedule", OPTION_CHOICE, AT(selector_schedule), "constant", "constant|linear|cosine", 0, 0, SELECTOR, 0, "of the selector's learning rate"},
    {"selector-clip", OPTION_FLOAT, AT(selector_clip), "10", NULL, 0, 1e9, SELECTOR, 0, "largest norm of the selector's gradient; 0: no clipping"},
    {"append", OPTION_LIST, AT(append), NULL, "FILE", 0, 0, SFT, 0, "rows to train on besides the selected ones (SafeInstr)"},
    {"selector", OPTION_STRING, AT(selector), NULL, "FILE", 0, 0, SFT | SELECT, 0, "selector.safetensors, or a published .pt"},
    {"method", OPTION_CHOICE, AT(method), "seal", "seal|random|safe-loss|dsir", 0, 0, SELECT, 0, "what scores a row"},
    {"target", OPTION_LIST, AT(target), NULL, "FILE", 0, 0, SELECT, 0, "dsir: rows whose words are wanted (D_safe); may be given several times"},
    {"noise", OPTION_SWITCH, AT(noise), "on", NULL, 0, 0, SELECT, 0, "dsir: Gumbel noise on the log weights, by --seed"},
    {"min-words", OPTION_INT, AT(min_words), "0", NULL, 0, BIG, SELECT, 0, "dsir: rows with fewer words are never kept (upstream: 100)"},
    {"top", OPTION_FLOAT, AT(top), "0.8", NULL, 1e-9, 1, SFT | SELECT, 0, "share of the rows to keep"},
    {"explain", OPTION_FLAG, AT(explain), NULL, NULL, 0, 0, SELECT, 0, "show the highest and lowest rows"},
    {"scores", OPTION_STRING, AT(scores), NULL, "FILE", 0, 0, SELECT, 0, "write every row's score as a selector (.safetensors)"},
    {"left-out", OPTION_STRING, AT(left_out), NULL, "FILE", 0, 0, CHECK, 0, "write every row that is left out: file, line, row, why"},
    {"lr-hat", OPTION_FLOAT, AT(lr_hat), "0", NULL, 0, 1e6, SELECTOR, 0, "learning rate of theta_hat; 0: --lr"},
    {"lr", OPTION_FLOAT, AT(lr), "1e-5", NULL, 0, 1e6, TRAINS, 0, "learning rate of the model"},
    {"schedule", OPTION_CHOICE, AT(schedule), "constant", "constant|linear|cosine", 0, 0, TRAINS, 0, "of the learning rate"},
    {"warmup", OPTION_FLOAT, AT(warmup), "0", NULL, 0, BIG, TRAINS, 0, "steps of linear warm-up; below 1: a share of the run"},
    {"clip", OPTION_FLOAT, AT(clip), "1.0", NULL, 0, 1e9, TRAINS, 0, "largest norm of the gradient; 0: no clipping"},
    {"weight-decay", OPTION_FLOAT, AT(weight_decay), "0", NULL, 0, 1e3, TRAINS, 0, "of matrices and embeddings (AdamW)"},
    {"beta1", OPTION_FLOAT, AT(beta1), "0.9", NULL, 0, 0.999999, TRAINS, 0, "AdamW"},
    {"beta2", OPTION_FLOAT, AT(beta2), "0.95", NULL, 0, 0.9999999, TRAINS, 0, "AdamW"},
    {"adam-eps", OPTION_FLOAT, AT(adam_eps), "1e-8", NULL, 1e-30, 1, TRAINS, 0, "AdamW"},
    {"epochs", OPTION_FLOAT, AT(epochs), "1", NULL, 0, 1e6, TRAINS | CHECK, 0, "passes over the training data"},
    {"max-steps", OPTION_INT, AT(max_steps), "0", NULL, 0, BIG, TRAINS | CHECK, 0, "end after so many steps; 0: at the end of the epochs"},
    {"batch", OPTION_INT, AT(batch), "64", NULL, 1, 1048576, TRAINS | SELECT | CHECK, 0, "samples of a step"},
    {"tokens", OPTION_INT, AT(tokens), "0", "N|auto", 0, 16777216, TRAINS | SELECT | CHECK, 0, "tokens of a packed stream; 0: --max-length; auto: what free device memory and a batch allow"},
    {"max-length", OPTION_INT, AT(max_length), "0", NULL, 0, 16777216, TRAINS | SELECT | CHECK, 0, "longest sample in tokens; 0: what the model can read"},
    {"head-rows", OPTION_INT, AT(head_rows), "1024", NULL, 8, 1048576, TRAINS | SELECT | CHECK, 0, "rows of logits that exist at once"},
    {"recompute", OPTION_FLAG, AT(recompute), NULL, NULL, 0, 0, TRAINS | CHECK, 0, "compute activations again in backward: less memory, a third more time, the same bits"},
    {"seed", OPTION_INT, AT(seed), "42", NULL, 0, BIG, INIT | TRAINS | SELECT, 0, "of every random choice"},
    {"save-every", OPTION_INT, AT(save_every), "0", NULL, 0, BIG, TRAINS, 0, "steps between checkpoints; 0: only when SIGTERM or SIGINT asks to leave"},
    {"keep", OPTION_INT, AT(keep), "2", NULL, 1, 1000, TRAINS, 0, "checkpoints that stay; older ones are removed"},
    {"resume", OPTION_FLAG, AT(resume), NULL, NULL, 0, 0, TRAINS | SELECT, 0, "go on from the newest checkpoint of --out (select: with the losses measured so far); begin where there is none"},
    {"ranks", OPTION_INT, AT(ranks), "0", NULL, 0, 4096, TRAINS, 0, "processes, one a GPU, that mpirun or srun starts; with --dry-run: plan for so many; 0: as many as there are"},
    {"dry-run", OPTION_FLAG, AT(dry_run), NULL, NULL, 0, 0, TRAINS | SELECT, 0, "print the memory plan and stop"},
    {"quiet", OPTION_FLAG, AT(quiet), NULL, NULL, 0, 0, INIT | TRAINS | SELECT | CHECK, 0, "no progress, no tables"},
};

static const OptionRule rules[] = {
    {"top", WITHOUT, "selector", SFT},
    {"lora-rank", BESIDE, "adapter", TRAINS | CHECK},
    {"lora-alpha", BESIDE, "adapter", TRAINS | CHECK},
    {"lora-rank", WITHOUT, "lora", TRAINS | CHECK},
    {"lora-alpha", WITHOUT, "lora", TRAINS | CHECK},
};

const OptionTable train_options = {"train_seal", "trains language models with SEAL, bilevel data selection", commands, N_TRAIN_COMMANDS, options,
                                   sizeof options / sizeof *options, rules, sizeof rules / sizeof *rules};
