/* seal/model_config.c. Input: config.json. What is read is written and read again: the same model. */
#include <string.h>
#include "fuzz.h"
#include "model_config.h"

static void body(void* directory) {
    ModelConfig first, second;
    memset(&first, 0, sizeof first);
    memset(&second, 0, sizeof second);
    model_config_read(&first, directory);
    MUST(first.L > 0 && first.NKV > 0 && first.NH % first.NKV == 0 && first.HS > 0 && first.Vp >= first.V &&
         first.rope.rotary <= first.HS);
    free(model_config_json(&first, directory, "float32"));
    char* text = model_config_json(&first, NULL, NULL);
    fuzz_file("config.json", (const uint8_t*)text, strlen(text));
    free(text);
    model_config_read(&second, directory);
    MUST(first.L == second.L && first.C == second.C && first.NKV == second.NKV && first.FF == second.FF &&
         first.V == second.V && first.norm_eps == second.norm_eps);
    MUST(first.HS == second.HS && first.rope.base == second.rope.base && first.rope.rotary == second.rope.rotary &&
         first.rope.scaling == second.rope.scaling && first.window == second.window);
}

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t n) {
    fuzz_file("config.json", data, n);
    survive(body, (void*)fuzz_directory());
    return 0;
}
