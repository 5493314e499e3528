/* The options of eval_seal. See eval_options.h. */
#include "commands/eval_options.h"

#define GENERATE (1u << EVAL_GENERATE)
#define JUDGE (1u << EVAL_JUDGE)
#define LOSS (1u << EVAL_LOSS)
#define WINRATE (1u << EVAL_WINRATE)
#define REFUSALS (1u << EVAL_REFUSALS)
#define REPORT (1u << EVAL_REPORT)
#define AT(field) offsetof(EvalOptions, field)

static const CommandRow commands[N_EVAL_COMMANDS] = {
    {"generate", "answers prompts; writes outputs.json as AlpacaEval reads it", NULL},
    {"judge", "a local model compares two models' outputs, or calls one's unsafe; writes annotations.json", NULL},
    {"loss", "held-out response loss and perplexity", NULL},
    {"winrate", "win rate and standard error of annotations, ours or AlpacaEval's", "FILE…"},
    {"refusals", "share of answers that begin like a refusal, by data set, with its standard error", "FILE…"},
    {"report",
     "one self-contained page about runs: tables, curves, what selectors learned; or about rows and their scores",
     "RUN…"},
    {"options", "prints this table as Markdown", NULL},
};

static const OptionRow options[] = {
    {"model", OPTION_STRING, AT(model), NULL, "DIR", 0, 0, GENERATE | LOSS, GENERATE | LOSS,
     "Hugging Face directory of the model"},
    {"adapter", OPTION_STRING, AT(adapter), NULL, "DIR", 0, 0, GENERATE | JUDGE | LOSS, 0,
     "PEFT directory of an adapter of the model, or of the judge"},
    {"base", OPTION_CHOICE, AT(base), "bf16", "bf16|fp8|nf4", 0, 0, GENERATE | JUDGE | LOSS, 0,
     "linear layers of the model, or of the judge: as the build computes, bf16 or fp32, in fp8, or in 4 bits as "
     "train_seal --base has them"},
    {"prompts", OPTION_LIST, AT(prompts), NULL, "FILE", 0, 0, GENERATE, GENERATE,
     "rows whose prompts are answered; may be given several times"},
    {"data", OPTION_LIST, AT(data), NULL, "FILE", 0, 0, LOSS | REPORT, LOSS,
     "rows with prompts and responses; may be given several times; report: those of --rows"},
    {"judge", OPTION_STRING, AT(judge), NULL, "DIR", 0, 0, JUDGE, JUDGE, "Hugging Face directory of the judge"},
    {"outputs", OPTION_STRING, AT(outputs), NULL, "FILE", 0, 0, JUDGE, JUDGE,
     "outputs of the model in question, as generate writes them"},
    {"baseline", OPTION_STRING, AT(baseline), NULL, "FILE", 0, 0, JUDGE, 0, "outputs of the model it is compared with"},
    {"guard", OPTION_FLAG, AT(guard), NULL, NULL, 0, 0, JUDGE, 0,
     "the probability that the judge begins its answer with unsafe (Llama-Guard style)"},
    {"rubric", OPTION_STRING, AT(rubric), "pairwise", "NAME|FILE", 0, 0, JUDGE, 0,
     "what the judge is asked: pairwise, guard, llama-guard3, wildguard, harmbench, qwen3guard, strongreject, or a "
     "file "
     "of your own (docs/evaluation.md)"},
    {"judge-template", OPTION_STRING, AT(judge_template), NULL, "FILE", 0, 0, JUDGE, 0,
     "the question, contains {instruction}, {output_1}, {output_2} (guard and others: {output}); default: the "
     "rubric's, data/judge.txt and others"},
    {"words", OPTION_STRING, AT(words), "m,M", "A,B", 0, 0, JUDGE, 0,
     "what the judge may answer: for {output_1}, for {output_2}"},
    {"single-order", OPTION_FLAG, AT(single_order), NULL, NULL, 0, 0, JUDGE, 0,
     "ask in one order, drawn by --seed, as AlpacaEval does; otherwise both orders are averaged"},
    {"out", OPTION_STRING, AT(out), NULL, "FILE", 0, 0, GENERATE | JUDGE | LOSS | REPORT, GENERATE | JUDGE | REPORT,
     "where the result is written; loss: the loss of every row"},
    {"template", OPTION_STRING, AT(prompt_template), NULL, "TEXT", 0, 0, GENERATE | LOSS, 0,
     "template of a prompt, contains {prompt}; default: Human: {prompt}, newline, Assistant:"},
    {"chat", OPTION_STRING, AT(chat), NULL, "FILE", 0, 0, GENERATE | JUDGE | LOSS, 0,
     "chat template: auto (the model's own), none (the reference's text), a file, llama3, mistral, mistral-v0.2, phi3; "
     "default: auto where the model has one and --template is not given"},
    {"loss-on", OPTION_CHOICE, AT(loss_on), "last", "last|all", 0, 0, LOSS, 0,
     "with a chat template: which of the assistant's turns are measured, each with its end-of-turn token"},
    {"parse-special", OPTION_FLAG, AT(parse_special), NULL, NULL, 0, 0, GENERATE | LOSS, 0,
     "with a chat template: special tokens in a row's own text are read as such, as Hugging Face does; otherwise they "
     "are text, and a row cannot end a turn"},
    {"prompt-field", OPTION_STRING, AT(prompt_field), NULL, "TEXT", 0, 0, GENERATE | LOSS | REPORT, 0,
     "a row's prompt: a field, or a text like {instruction} {input}; default: by the row's layout"},
    {"response-field", OPTION_STRING, AT(response_field), NULL, "TEXT", 0, 0, LOSS | REPORT, 0,
     "a row's response, likewise"},
    {"greedy", OPTION_FLAG, AT(greedy), NULL, NULL, 0, 0, GENERATE, 0,
     "always the likeliest token; otherwise tokens are drawn, by default as the reference draws them"},
    {"temperature", OPTION_FLOAT, AT(temperature), "1", NULL, 1e-3, 1e3, GENERATE, 0, "logits are divided by it"},
    {"top-p", OPTION_FLOAT, AT(top_p), "0.9", NULL, 1e-6, 1, GENERATE, 0,
     "draw from the likeliest tokens that together have this probability; 1: all"},
    {"top-k", OPTION_INT, AT(top_k), "0", NULL, 0, 16777216, GENERATE, 0,
     "draw from this many likeliest tokens; 0: all"},
    {"repetition-penalty", OPTION_FLOAT, AT(repetition_penalty), "0", NULL, 0, 100, GENERATE, 0,
     "penalty on tokens that the text already contains; 0: 1.2, or 1 (none) with --greedy"},
    {"seed", OPTION_INT, AT(seed), "42", NULL, 0, 9e15, GENERATE | JUDGE, 0,
     "seed of every random choice; a prompt has its own random numbers, whatever the batch"},
    {"skip-long", OPTION_FLAG, AT(skip_long), NULL, NULL, 0, 0, GENERATE, 0,
     "a prompt longer than the model reads gets an empty answer and is counted; otherwise it is refused"},
    {"name", OPTION_STRING, AT(name), NULL, "TEXT", 0, 0, GENERATE, 0,
     "what the result calls the generator; default: the adapter's or model's directory"},
    {"resume", OPTION_FLAG, AT(resume), NULL, NULL, 0, 0, GENERATE | JUDGE | LOSS, 0,
     "continue a run that was stopped; nothing to do if the result exists (loss, which prints it, measures again)"},
    {"max-new-tokens", OPTION_INT, AT(max_new_tokens), "256", NULL, 1, 16777216, GENERATE, 0,
     "longest answer in tokens"},
    {"batch", OPTION_INT, AT(batch), "64", NULL, 1, 1048576, GENERATE | JUDGE | LOSS, 0,
     "prompts answered, or samples measured, at once"},
    {"tokens", OPTION_INT, AT(tokens), "0", NULL, 0, 16777216, GENERATE | JUDGE | LOSS, 0,
     "tokens per pack; 0: 2048, or the longest sample if that is more"},
    {"max-length", OPTION_INT, AT(max_length), "0", NULL, 0, 16777216, LOSS, 0,
     "longest sample in tokens; 0: what the model can read"},
    {"head-rows", OPTION_INT, AT(head_rows), "1024", NULL, 8, 1048576, LOSS, 0,
     "rows of logits held in memory at once"},
    {"each-token", OPTION_FLAG, AT(each_token), NULL, NULL, 0, 0, LOSS, 0,
     "--out also has the text and the loss of every token that carries loss"},
    {"json", OPTION_FLAG, AT(json), NULL, NULL, 0, 0, LOSS | WINRATE | REFUSALS, 0,
     "print the result as one JSON object per line"},
    {"length-controlled", OPTION_FLAG, AT(length_controlled), NULL, NULL, 0, 0, WINRATE, 0,
     "also the win rate at outputs of one length, by a logistic regression on the difference of lengths"},
    {"phrases", OPTION_STRING, AT(phrases), NULL, "FILE", 0, 0, REFUSALS, 0,
     "what refusals begin with, one phrase per line, ^ before one that must be at the very beginning; default: a list "
     "of 40, docs/evaluation.md"},
    {"harmful", OPTION_LIST, AT(harmful), NULL, "FILE", 0, 0, REFUSALS, 0,
     "answers to harmful prompts: attack success, beside over-refusal of --harmless"},
    {"harmless", OPTION_LIST, AT(harmless), NULL, "FILE", 0, 0, REFUSALS, 0, "answers to harmless prompts"},
    {"labels", OPTION_STRING, AT(labels), NULL, "FILE", 0, 0, REPORT, 0,
     "true kinds of the fine-tuning rows, one object per line: {\"row\":0,\"kind\":\"unsafe\"}"},
    {"table", OPTION_STRING, AT(table), NULL, "FILE", 0, 0, REPORT, 0,
     "table.json: a list of objects, one per method, with refusal and task_accuracy or benign_loss; FIELD_se is the "
     "standard error of FIELD"},
    {"rows", OPTION_LIST, AT(rows), NULL, "FILE", 0, 0, REPORT, 0,
     "a page about rows in place of runs: their scores, as select --scores or a selector writes them; a second file is "
     "set against the first"},
    {"top", OPTION_FLOAT, AT(top), "0.8", NULL, 1e-9, 1, REPORT, 0,
     "the share of --rows that is kept: where the cut is"},
    {"show", OPTION_INT, AT(show), "50", NULL, 0, 100000, REPORT, 0,
     "rows whose texts are in the page: so many from either end, on either side of the cut, and where two files differ "
     "most; of the others it has the numbers"},
    {"losses", OPTION_LIST, AT(losses), NULL, "FILE", 0, 0, REPORT, 0,
     "losses of the rows, as loss --out writes them; with --each-token tokens are coloured by them, with a second file "
     "by the difference"},
    {"token-mask", OPTION_STRING, AT(token_mask), NULL, "FILE", 0, 0, REPORT, 0,
     "a mask of select --method toss: the dropped tokens in colour; needs --losses of --each-token"},
    {"title", OPTION_STRING, AT(title), "SEAL: report", "TEXT", 0, 0, REPORT, 0, "title of the page"},
    {"dry-run", OPTION_FLAG, AT(dry_run), NULL, NULL, 0, 0, GENERATE | JUDGE | LOSS, 0,
     "print the memory plan and stop"},
    {"quiet", OPTION_FLAG, AT(quiet), NULL, NULL, 0, 0, GENERATE | JUDGE | LOSS | REPORT, 0, "no progress, no tables"},
};

static const OptionRule rules[] = {
    {"temperature", BESIDE, "greedy", GENERATE},
    {"top-p", BESIDE, "greedy", GENERATE},
    {"top-k", BESIDE, "greedy", GENERATE},
    {"template", BESIDE, "chat", GENERATE | LOSS},
    {"parse-special", WITHOUT, "chat", GENERATE},
    {"resume", WITHOUT, "out", LOSS},
    {"each-token", WITHOUT, "out", LOSS},
    {"resume", BESIDE, "each-token", LOSS},
    {"table", BESIDE, "rows", REPORT},
    {"data", WITHOUT, "rows", REPORT},
    {"top", WITHOUT, "rows", REPORT},
    {"show", WITHOUT, "rows", REPORT},
    {"losses", WITHOUT, "rows", REPORT},
    {"token-mask", WITHOUT, "losses", REPORT},
    {"prompt-field", WITHOUT, "rows", REPORT},
    {"response-field", WITHOUT, "rows", REPORT},
    {"baseline", BESIDE, "guard", JUDGE},
    {"words", BESIDE, "guard", JUDGE},
    {"single-order", BESIDE, "guard", JUDGE},
    {"rubric", BESIDE, "guard", JUDGE},
};

const OptionTable eval_options = {
    "eval_seal", "generates and measures",         commands, N_EVAL_COMMANDS,
    options,     sizeof options / sizeof *options, rules,    sizeof rules / sizeof *rules};
