/*
A Hugging Face GPT-2 directory for the oracle of dev/reference/seal_reference.c, which reads no files: its kinds of
tensors have the file's order, (in, out), so a tensor is a copy. Included after seal_reference.c.
*/
#ifndef SEAL_REFERENCE_IO_H
#define SEAL_REFERENCE_IO_H

#include "base/error.h"
#include "base/safetensors.h"

// The name that a checkpoint gives a tensor.
static void reference_name(char* name, size_t size, int kind, int layer) {
    static const char* const names[KINDS] = {
        "wte.weight",         "wpe.weight",       "ln_1.weight", "ln_1.bias", "attn.c_attn.weight", "attn.c_attn.bias",
        "attn.c_proj.weight", "attn.c_proj.bias", "ln_2.weight", "ln_2.bias", "mlp.c_fc.weight",    "mlp.c_fc.bias",
        "mlp.c_proj.weight",  "mlp.c_proj.bias",  "ln_f.weight", "ln_f.bias"};
    if (per_layer(kind)) snprintf(name, size, "transformer.h.%d.%s", layer, names[kind]);
    else snprintf(name, size, "transformer.%s", names[kind]);
}

// Every tensor of the model, none missing, of the shape that the configuration says.
__attribute__((unused)) static void reference_load(Model* model, const char* directory) {
    char path[512], name[160];
    StReader file;
    snprintf(path, sizeof path, "%s/model.safetensors", directory);
    st_open(&file, path);
    int loaded = 0;
    for (int kind = 0; kind < KINDS; kind++)
        for (int l = 0; l < (per_layer(kind) ? model->config.L : 1); l++, loaded++) {
            int64_t n = (int64_t)model->size[kind];
            reference_name(name, sizeof name, kind, l);
            const StTensor* t = st_need(&file, name);
            if (t->count != n)
                fatal("%s: %s has %lld numbers, expected %lld", path, name, (long long)t->count, (long long)n);
            float* values = (float*)malloc((size_t)n * sizeof(float));
            st_to_float(&file, t, 0, n, values);
            for (int64_t i = 0; i < n; i++) weight_of(model, kind, l)[i] = values[i];
            free(values);
        }
    if (loaded != file.n_tensors) fatal("%s has %d tensors, expected %d", path, file.n_tensors, loaded);
    st_close(&file);
}

#endif
