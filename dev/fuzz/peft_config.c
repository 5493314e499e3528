/* seal/peft_config.c. Input: adapter_config.json, beside matrices that fit q and v of a Llama. What is read is written
 * and read again: the same settings. */
#include <string.h>
#include "fuzz.h"
#include "peft_config.h"
#include "base/safetensors.h"

static ModelConfig config;

static void write_matrices(void) {
    char path[256];
    int64_t shape[2] = {1, 1};
    float one = 1.0f;
    StWriter w;
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", fuzz_directory());
    st_create(&w, path);
    st_declare(&w, "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", ST_F32, 2, shape);
    st_declare(&w, "base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight", ST_F32, 2, shape);
    st_write(&w, &one, sizeof one);
    st_write(&w, &one, sizeof one);
    st_commit(&w);
}

static void body(void* directory) {
    LoraSettings first, second;
    peft_settings(directory, &config, &first);
    MUST(!strcmp(first.modules, "q,v") && first.rank >= 1 && first.rank <= LORA_RANK_MOST && first.scale > 0);
    char* text = peft_config_json(&first, &config, "base");
    fuzz_file("adapter_config.json", (const uint8_t*)text, strlen(text));
    free(text);
    peft_settings(directory, &config, &second);
    MUST(!strcmp(first.modules, second.modules) && first.rank == second.rank && first.scale == second.scale);
    free((void*)first.table);
    free((void*)second.table);
}

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t n) {
    if (!config.family[0]) {
        fuzz_file("adapter_config.json", data, n);  // makes the directory
        write_matrices();
        model_config_defaults(&config, "llama");
    }
    fuzz_file("adapter_config.json", data, n);
    if (!survive(body, (void*)fuzz_directory())) fuzz_unmap();
    return 0;
}
