/*
Model directories without a device: config.json of each family and what it may not say, tables of rotary positions
against transformers' own, files in shards and the lies an index may tell, adapter_config.json and what it may not ask.
*/
#include <math.h>
#include <stdlib.h>
#include "check.h"
#include "base/error.h"
#include "base/file.h"
#include "model_config.h"
#include "peft_config.h"
#include "refuses.h"
#include "base/safetensors.h"

static char directory[64];
static void write_file(const char* name, const char* text) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    file_write(path, text, strlen(text));
}
static void read_config(const void* path) {
    ModelConfig c;
    model_config_read(&c, path);
}

#define LLAMA                                                                                                       \
    "\"model_type\":\"llama\",\"num_hidden_layers\":2,\"hidden_size\":64,\"num_attention_heads\":4,\"intermediate_" \
    "size\":96,\"vocab_size\":99,\"max_position_embeddings\":512"
#define PHI3                                                                                                       \
    "\"model_type\":\"phi3\",\"num_hidden_layers\":2,\"hidden_size\":64,\"num_attention_heads\":2,\"intermediate_" \
    "size\":96,\"vocab_size\":99,\"max_position_embeddings\":512"

static void test_configs(void) {
    static const struct {
        const char *name, *json, *expected;
    } bad[] = {
        {"an activation that is not supported", "{" LLAMA ",\"hidden_act\":\"gelu\"}",
         "only \"silu\" is supported for llama"},
        {"key-value heads that do not divide", "{" LLAMA ",\"num_key_value_heads\":3}",
         "do not share 3 key-value heads"},
        {"a scaling of positions that is not served",
         "{" LLAMA ",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4.0}}",
         "rope_scaling \"yarn\" is not supported"},
        {"a scaling without its factor", "{" LLAMA ",\"rope_scaling\":{\"rope_type\":\"llama3\"}}",
         "has no \"factor\""},
        {"a scaling in one object with the base",
         "{" LLAMA ",\"rope_parameters\":{\"rope_type\":\"yarn\",\"rope_theta\":500000.0}}",
         "rope_parameters \"yarn\" is not supported"},
        {"positions by the kind of a layer",
         "{" LLAMA ",\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"default\"}}}",
         "its own positions for some layers, \"full_attention\""},
        {"a scaling that is no object", "{" LLAMA ",\"rope_scaling\":\"linear\"}", "\"rope_scaling\" is not an object"},
        {"a part of a head where heads turn whole", "{" LLAMA ",\"partial_rotary_factor\":0.5}",
         "a llama model rotates whole heads"},
        {"quantised weights", "{" LLAMA ",\"quantization_config\":{\"quant_method\":\"awq\"}}",
         "\"quantization_config\" is set"},
        {"too few short factors",
         "{" PHI3 ",\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":[1,1],\"long_factor\":[1,1]}}",
         "\"short_factor\" has 2 numbers but a head has 16 rotations"},
        {"a head that turns by an odd number", "{" PHI3 ",\"partial_rotary_factor\":0.1}", "3 of a head's 32 elements"},
        {"a bias that is neither true nor false", "{" LLAMA ",\"attention_bias\":1}", "neither true nor false"},
        {"a head size out of range", "{" LLAMA ",\"head_dim\":1e9}", "\"head_dim\" is 1e+09"},
    };
    ModelConfig c;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_file("config.json", bad[i].json);
        check(refuses(read_config, directory, bad[i].expected), "config.json: %s is refused", bad[i].name);
    }
    write_file("config.json", "{" LLAMA
                              ",\"num_key_value_heads\":2,\"head_dim\":null,\"tie_word_embeddings\":true,\"attention_"
                              "bias\":true,\"rope_theta\":500000.0,\"eos_token_id\":[3,4]}");
    model_config_read(&c, directory);
    check(c.NKV == 2 && c.HS == 16 && c.tied_head && c.attention_bias && !c.mlp_bias && c.rope.base == 500000.0f &&
              c.rope.rotary == 16 && c.eos_id == -1 && c.norm == NORM_RMSNORM,
          "config.json of a Llama: grouped heads, tied head, base; of several ends the tokenizer says which");
    char* kept = model_config_json(&c, directory, "float32");
    check(strstr(kept, "500000.0") && strstr(kept, "\"torch_dtype\":\t\"float32\"") && strstr(kept, "[3, 4]"),
          "a saved config.json keeps what the model came with");
    free(kept);
    char mistral[1024] = "{" LLAMA "}", *at = strstr(mistral, "llama");
    memmove(at + 7, at + 5, strlen(at + 5) + 1);
    memcpy(at, "mistral", 7);
    write_file("config.json", mistral);
    model_config_read(&c, directory);
    check(c.window == 4096 && c.longest == 512, "Mistral's window is 4096 where the file says nothing");
    strcpy(strrchr(mistral, '}'), ",\"sliding_window\":100}");
    write_file("config.json", mistral);
    model_config_read(&c, directory);
    check(c.longest == 100, "a sample is no longer than the window");
    strcpy(strstr(mistral, ":100}"), ":null}");
    write_file("config.json", mistral);
    model_config_read(&c, directory);
    check(c.window == 0 && c.longest == 512, "null is no window");
}

// From transformers 4.57: LlamaRotaryEmbedding and Phi3RotaryEmbedding in fp32. {position, frequency, cos, sin}
typedef struct {
    int p, i;
    float cos, sin;
} Turn;
static const Turn llama3[] = {
    {1, 0, 0.540302336f, 0.841470957f},      {1, 20, 0.99986285f, 0.0165596846f},
    {1, 35, 1.0f, 9.55621217e-05f},          {1, 40, 1.0f, 3.42810235e-05f},
    {1, 63, 1.0f, 3.06892588e-07f},          {100, 0, 0.862318873f, -0.506365657f},
    {100, 20, -0.0851445869f, 0.996368587f}, {100, 35, 0.999954343f, 0.00955606718f},
    {100, 40, 0.999994099f, 0.00342809572f}, {8000, 0, 0.0656451285f, 0.997843027f},
    {8000, 20, 0.859436929f, 0.511241794f},  {8000, 35, 0.721730649f, 0.692174017f},
    {8000, 40, 0.96262908f, 0.2708233f},     {8000, 63, 0.99999702f, 0.00245513814f},
};
static const Turn longrope[] = {
    {1, 0, 0.64308846f, 1.00155079f},        {1, 1, 0.841035187f, 0.84221524f},
    {1, 20, 1.1901691f, 0.012821205f},       {1, 47, 1.19023812f, 4.30449654e-05f},
    {100, 0, 1.0263648f, -0.602695704f},     {100, 1, -1.18731427f, -0.0833768472f},
    {100, 20, 0.563911796f, 1.04817474f},    {100, 47, 1.19023037f, 0.00430448679f},
    {4000, 0, -0.868810713f, -0.813532293f}, {4000, 1, -1.12318051f, 0.393868268f},
    {4000, 20, 0.745817721f, -0.927589715f}, {4000, 47, 1.17780614f, 0.171579957f},
};

static void check_turns(const char* name, const ModelConfig* c, const Turn* turns, int n, int P) {
    float* table = malloc((size_t)P * c->rope.rotary * sizeof(float));
    double worst = 0;
    model_rope_table(c, P, table);
    for (int k = 0; k < n; k++) {
        const float* at = table + ((size_t)turns[k].p * (c->rope.rotary / 2) + turns[k].i) * 2;
        // a last bit of the frequency turns the angle by position · 2^-24 of it
        double allowed = 2e-7 + turns[k].p * 1.2e-7;
        worst = fmax(worst, fmax(fabs(at[0] - turns[k].cos), fabs(at[1] - turns[k].sin)) / allowed);
    }
    check(worst <= 1, "%s: cos and sin within %.2f of a frequency's last bit of transformers'", name, worst);
    free(table);
}

// A Llama 3.1 as transformers 4 and 5 write it; the base stands in the object that transformers 5 writes.
static void check_llama3(const char* version, const char* positions) {
    ModelConfig c;
    char text[1024];
    snprintf(text, sizeof text,
             "{" LLAMA
             ",\"head_dim\":128,%s,\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_"
             "factor\":4.0,\"original_max_position_embeddings\":8192}}",
             positions);
    write_file("config.json", text);
    model_config_read(&c, directory);
    check_turns(version, &c, llama3, sizeof llama3 / sizeof *llama3, 8192);
}

static void test_rope(void) {
    ModelConfig c;
    char text[4096] = "{" PHI3 ",\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":[";
    check_llama3("Llama 3.1", "\"rope_theta\":500000.0,\"rope_scaling\":{\"attention_factor\":null");
    check_llama3("Llama 3.1 by transformers 5", "\"rope_parameters\":{\"rope_theta\":500000.0");
    check_llama3("rope_scaling beside rope_parameters",
                 "\"rope_theta\":500000.0,\"rope_parameters\":{\"rope_theta\":1e6,\"rope_type\":\"default\"},\"rope_"
                 "scaling\":{\"type\":\"llama3\"");
    write_file("config.json", "{" PHI3 ",\"rope_parameters\":{\"rope_theta\":250000,\"partial_rotary_factor\":0.5}}");
    model_config_read(&c, directory);
    char* kept = model_config_json(&c, directory, "float32");
    check(c.rope.base == 250000 && c.rope.rotary == 16 && c.rope.scaling == ROPE_PLAIN && strstr(kept, "250000.0"),
          "rope_parameters: base and the part of a head that turns; a base stays a float");
    free(kept);
    for (int i = 0; i < 96; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%.2f",
                 i == 48 ? "],\"long_factor\":["
                 : i     ? ","
                         : "",
                 1.0 + 0.05 * (i % 48));
    strcat(text, "]},\"original_max_position_embeddings\":4096}");
    memcpy(strstr(text, "\"hidden_size\":64,"), "\"hidden_size\":192", 17);  // one digit more takes the comma's place
    char* comma = strstr(text, "\"hidden_size\":192") + 17;
    memmove(comma + 1, comma, strlen(comma) + 1);
    *comma = ',';
    char wide[4200], *positions = strstr(text, "\"max_position_embeddings\":512");
    snprintf(wide, sizeof wide, "%.*s\"max_position_embeddings\":131072%s", (int)(positions - text), text,
             positions + strlen("\"max_position_embeddings\":512"));
    write_file("config.json", wide);
    model_config_read(&c, directory);
    check(c.longest == 4096, "a longrope model reads what its short factors serve");
    check_turns("Phi-3's short factors", &c, longrope, sizeof longrope / sizeof *longrope, 4096);
    char *scaling = strstr(wide, "rope_scaling"), *outside = strstr(wide, "},\"original_max");
    memmove(scaling + 15, scaling + 12, strlen(scaling + 12) + 1);
    memcpy(scaling, "rope_parameters", 15);
    outside[3] = ' ';  // the object ends behind them instead
    strcpy(strrchr(wide, '}'), "}}");
    write_file("config.json", wide);
    model_config_read(&c, directory);
    check(c.longest == 4096, "what a model was first trained on may stand in rope_parameters");
    check_turns("Phi-3 by transformers 5", &c, longrope, sizeof longrope / sizeof *longrope, 4096);
}

// ---------------------------------------------------------------------------------------------------

static void write_shard(const char* name, const char* tensor, float value) {
    char path[256];
    int64_t one[1] = {1};
    StWriter w;
    snprintf(path, sizeof path, "%s/%s", directory, name);
    st_create(&w, path);
    st_declare(&w, tensor, ST_F32, 1, one);
    st_write(&w, &value, sizeof value);
    st_commit(&w);
}
static void open_model(const void* path) {
    StModel m;
    st_open_model(&m, path, "model");
}

static void test_shards(void) {
    check(refuses(open_model, directory, "neither model.safetensors nor model.safetensors.index.json"),
          "a directory without weights is refused");
    write_shard("one.safetensors", "a", 1);
    write_shard("two.safetensors", "b", 2);
    static const struct {
        const char *name, *json, *expected;
    } bad[] = {
        {"an index that is none", "{\"weights\":1}", "not an index of safetensors files"},
        {"an empty map", "{\"weight_map\":{}}", "not an index of safetensors files"},
        {"a file outside the directory", "{\"weight_map\":{\"a\":\"../one.safetensors\"}}",
         "not the name of a file in this directory"},
        {"a hidden file", "{\"weight_map\":{\"a\":\"..\"}}", "not the name of a file in this directory"},
        {"a file that is not there", "{\"weight_map\":{\"a\":\"three.safetensors\"}}", "three.safetensors"},
        {"a tensor in another file", "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"one.safetensors\"}}",
         "tensor b is not in"},
        {"a name that stands twice",
         "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\",\"b\":\"two.safetensors\"}}",
         "names 3 tensors but its files hold 2"},
        {"a tensor without a file", "{\"weight_map\":{\"a\":3}}", "tensor a has no file"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_file("model.safetensors.index.json", bad[i].json);
        check(refuses(open_model, directory, bad[i].expected), "index: %s is refused", bad[i].name);
    }
    write_file(
        "model.safetensors.index.json",
        "{\"metadata\":{\"total_size\":8},\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\"}}");
    StModel m;
    st_open_model(&m, directory, "model");
    const StReader* file;
    const StTensor* b = st_model_find(&m, "b", &file);
    float value = 0;
    if (b) st_to_float(file, b, 0, 1, &value);
    if (b) st_forget(file, b);
    float again = 0;
    if (b) st_to_float(file, b, 0, 1, &again);
    check(m.n_files == 2 && value == 2 && again == 2 && !st_model_find(&m, "c", &file),
          "tensors of two files are found, also after their pages have gone");
    st_close_model(&m);
    write_shard("two.safetensors", "a", 2);
    write_file("model.safetensors.index.json",
               "{\"weight_map\":{\"a\":\"one.safetensors\",\"a\":\"two.safetensors\"}}");
    check(refuses(open_model, directory, "as well"), "a tensor in two files is refused");
}

// ---------------------------------------------------------------------------------------------------

static ModelConfig llama;
static void read_adapter(const void* path) {
    LoraSettings s;
    peft_settings(path, &llama, &s);
}

static void test_adapters(void) {
    char text[1024];
    LoraSettings s;
    model_config_defaults(&llama, "llama");
    write_shard("adapter_model.safetensors", "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", 1);
    static const struct {
        const char *json, *expected;
    } bad[] = {
        {"\"use_dora\":true", "DoRA is not supported"},
        {"\"rank_pattern\":{\"q_proj\":8}", "other ranks for some modules"},
        {"\"layers_to_transform\":0", "adapters on some layers only"},
        {"\"modules_to_save\":[\"lm_head\"]", "other trained modules"},
        {"\"alora_invocation_tokens\":[1,2]", "\"alora_invocation_tokens\" is set"},
        {"\"init_lora_weights\":\"pissa_niter_4\"",
         "\"init_lora_weights\" is pissa_niter_4, which changes the model's own weights"},
        {"\"init_lora_weights\":{}", "not a known word"},
        {"\"use_rslora\":\"yes\"", "neither true nor false"},
        {"\"use_what_comes\":true", "\"use_what_comes\" is set, which this trainer does not know"},
        {"\"what_comes\":{\"size\":1}", "\"what_comes\" is set"},
        {"\"bias\":\"lora_only\"", "\"bias\" must be \"none\""},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(text, sizeof text, "{\"peft_type\":\"LORA\",\"r\":12,\"lora_alpha\":16,%s}", bad[i].json);
        write_file("adapter_config.json", text);
        check(refuses(read_adapter, directory, bad[i].expected), "adapter_config.json: %s is refused", bad[i].json);
    }
    // as PEFT writes it, with what says nothing of a finished adapter
    write_file(
        "adapter_config.json",
        "{\"peft_type\":\"LORA\",\"task_type\":\"CAUSAL_LM\",\"auto_mapping\":{\"base_model_class\":"
        "\"LlamaForCausalLM\"},\"bias\":\"none\",\"fan_in_fan_out\":false,\"inference_mode\":true,"
        "\"init_lora_weights\":\"gaussian\",\"layers_pattern\":null,\"loftq_config\":{},\"lora_alpha\":16,\"lora_"
        "bias\":false,\"lora_dropout\":0.05,\"megatron_core\":\"megatron.core\",\"peft_version\":\"0.20.0\","
        "\"qalora_group_size\":16,\"r\":12,\"rank_pattern\":{},\"revision\":\"main\",\"target_modules\":\"all-linear\","
        "\"use_dora\":false,\"use_rslora\":false}");
    peft_settings(directory, &llama, &s);
    check(s.rank == 12 && s.scale == 16.0f / 12.0f && s.dropout == 0.05f && !strcmp(s.modules, "q"),
          "an adapter_config.json of PEFT: rank, scale, dropout; its modules are those of the tensors");
    char* written = peft_config_json(&s, &llama, "base");
    check(strstr(written, "\"lora_alpha\":\t16,") && strstr(written, "[\"q_proj\"]"),
          "16/12 is written as alpha 16, not as what a float makes of it");
    free(written);
    s.scale = 2.5f / 12.0f;
    written = peft_config_json(&s, &llama, "base");
    check(strstr(written, "\"lora_alpha\":\t2.5,") != NULL, "2.5 as 2.5");
    free(written);
}

int main(void) {
    program_name = "test_models";
    snprintf(directory, sizeof directory, "/tmp/test_models.XXXXXX");
    if (!mkdtemp(directory)) return 1;
    test_configs();
    test_rope();
    test_shards();
    test_adapters();
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", directory);
    if (system(command)) return 1;
    return check_report();
}
