/* A model of random weights. See init.h. */
#include <string.h>
#include "base/error.h"
#include "base/text.h"
#include "base/file.h"
#include "commands/init.h"
#include "memory.h"
#include "model.h"
#include "run/samples.h"
#include "tokenizer.h"

int init_command(const TrainOptions* o) {
    ModelConfig config;
    if (!model_config_defaults(&config, o->family))
        fatal("init: model family \"%s\" is not supported; supported are: %s", o->family, model_families());
    config.L = (int)o->layers;
    config.C = (int)o->width;
    config.NH = (int)o->heads;
    config.NKV = (int)o->kv_heads;
    config.HS = (int)o->head_size;
    config.FF = (int)o->ff;
    config.V = (int)o->vocab;
    config.max_positions = (int)o->positions;
    if (o->rope_base > 0) config.rope.base = (float)o->rope_base;
    if (o->tokenizer) {
        char error[512];
        Tokenizer* tokenizer = tokenizer_open(o->tokenizer, error, sizeof error);
        if (!tokenizer) fatal("%s", error);
        int vocab = tokenizer_vocab_size(tokenizer);
        if (!config.V) config.V = vocab;
        if (config.V < vocab) fatal("init: --vocab is %d but %s has %d tokens", config.V, o->tokenizer, vocab);
        config.bos_id = tokenizer_bos(tokenizer);
        config.eos_id = tokenizer_eos(tokenizer);
        tokenizer_close(tokenizer);
    }
    if (!config.V) fatal("init: --vocab or --tokenizer is required");
    model_config_complete(&config, "init");
    check_sizes(&config);
    model_refuse_existing(o->out);
    directory_probe(o->out);
    ModelLayout layout;
    model_layout(&layout, &config, NULL);
    if (o->config_only) {
        char* text = model_config_json(&config, NULL, "float32");
        Path path = path_of(o->out, "config.json");
        file_write(path.s, text, strlen(text));
        free(text);
    } else {
        MemoryPlan plan = {};
        ParameterSet theta;
        parameters_plan(&theta, &layout, "theta", false, NULL, &plan);
        memory_allocate(&plan);
        parameters_init(&theta, (uint64_t)o->seed, o->quiet);
        parameters_save(&theta, o->out, NULL, (int64_t)(o->shard_gb * 1e9), o->quiet);
        memory_free(&plan);
    }
    if (o->tokenizer) tokenizer_copy(o->tokenizer, o->out);
    if (!o->quiet) {
        model_print(&layout, stdout);
        printf("wrote %s/config.json%s\n", o->out, o->config_only ? "" : " and the weights");
    }
    model_layout_free(&layout);
    return 0;
}
