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

#define SIZES3                                                                                                       \
    "\"num_hidden_layers\":3,\"hidden_size\":64,\"num_attention_heads\":4,\"num_key_value_heads\":2,\"intermediate_" \
    "size\":96,\"vocab_size\":99,\"max_position_embeddings\":512"
#define QWEN3 "\"model_type\":\"qwen3\"," SIZES3
#define GEMMA3 "\"model_type\":\"gemma3_text\"," SIZES3
#define SMOLLM3 "\"model_type\":\"smollm3\"," SIZES3

static void read_text(const char* text, ModelConfig* c) {
    write_file("config.json", text);
    model_config_read(c, directory);
}
static bool kinds_are(const ModelConfig* c, const unsigned char* kinds) {
    return !memcmp(c->layers, kinds, (size_t)c->L);
}

// Which layers have a window, which rotary positions.
static void test_layers(void) {
    ModelConfig c;
    enum { W = LAYER_WINDOW, G = LAYER_WINDOW | LAYER_LOCAL_ROPE, N = LAYER_NO_ROPE };
    read_text("{" QWEN3 "}", &c);
    check(kinds_are(&c, (unsigned char[]){0, 0, 0}) && c.HS == 128 && c.qk_norm == QK_NORM_HEAD,
          "Qwen3: no window unless it is switched on; heads of 128 where the file says nothing");
    read_text("{" QWEN3 ",\"use_sliding_window\":true,\"sliding_window\":64,\"max_window_layers\":1}", &c);
    check(kinds_are(&c, (unsigned char[]){0, W, W}) && layer_window(&c, 0) == 0 && layer_window(&c, 2) == 64,
          "Qwen3: layers from max_window_layers on have a window");
    read_text("{" QWEN3
              ",\"use_sliding_window\":true,\"layer_types\":[\"sliding_attention\",\"full_attention\",\"full_"
              "attention\"]}",
              &c);
    check(kinds_are(&c, (unsigned char[]){W, 0, 0}) && c.window == 4096, "a list of kinds replaces the rule");
    read_text("{\"model_type\":\"gemma2\"," SIZES3 "}", &c);
    check(kinds_are(&c, (unsigned char[]){W, 0, W}) && c.attention_cap == 50.0f && c.logit_cap == 30.0f &&
              c.attention_scale == 1.0f / 16.0f && c.pad_id == 0 && c.tied_head,
          "Gemma 2: every other layer has a window; caps, scale, padding and head where the file says nothing");
    read_text("{\"model_type\":\"gemma2\"," SIZES3 ",\"final_logit_softcapping\":null}", &c);
    check(c.logit_cap == 0.0f && c.attention_cap == 50.0f, "Gemma 2: null means no cap");
    read_text("{" GEMMA3
              ",\"sliding_window_pattern\":2,\"sliding_window\":512,\"rope_scaling\":{\"rope_type\":\"linear\","
              "\"factor\":8.0}}",
              &c);
    check(kinds_are(&c, (unsigned char[]){G, 0, G}) && layer_rope(&c, 0)->base == 10000.0f &&
              layer_rope(&c, 1)->base == 1e6f && layer_rope(&c, 1)->scaling == ROPE_LINEAR &&
              layer_rope(&c, 0)->scaling == ROPE_PLAIN && c.logit_cap == 0.0f,
          "Gemma 3: layers with a window turn by a base of their own, without the scaling");
    read_text("{" GEMMA3
              ",\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"linear\",\"factor\":4.0,\"rope_theta\":"
              "2000000.0},\"sliding_attention\":{\"rope_type\":\"default\",\"rope_theta\":5000.0}}}",
              &c);
    check(c.rope.base == 2e6f && c.rope.factor == 4.0f && c.rope_local.base == 5000.0f,
          "Gemma 3 by transformers 5: one object of positions for each kind of layer");
    read_text(
        "{\"model_type\":\"gemma3\",\"eos_token_id\":7,\"vision_config\":{\"hidden_size\":9},\"text_config\":{" GEMMA3
        ",\"query_pre_attn_scalar\":64}}",
        &c);
    char* kept = model_config_json(&c, directory, "float32");
    check(!strcmp(c.family, "gemma3_text") && c.eos_id == 7 && c.attention_scale == 0.125f &&
              strstr(kept, "Gemma3ForCausalLM") && !strstr(kept, "vision_config"),
          "a model of text and pictures: its text_config is the model, and is what is saved");
    free(kept);
    read_text("{\"model_type\":\"olmo3\"," SIZES3
              ",\"sliding_window\":32,\"rope_theta\":500000.0,\"rope_scaling\":{\"rope_type\":"
              "\"yarn\",\"factor\":8.0,\"original_max_position_embeddings\":64}}",
              &c);
    check(kinds_are(&c, (unsigned char[]){G, G, G}) && c.rope_local.base == 500000.0f &&
              c.rope_local.scaling == ROPE_PLAIN && c.rope.scaling == ROPE_YARN && c.qk_norm == QK_NORM_ALL,
          "OLMo 3: layers with a window keep the plain positions");
    read_text("{" SMOLLM3 "}", &c);
    check(kinds_are(&c, (unsigned char[]){0, 0, 0}) && c.rope.base == 2e6f,
          "SmolLM3: the fourth layer would have no positions");
    read_text("{" SMOLLM3 ",\"no_rope_layer_interval\":2}", &c);
    check(kinds_are(&c, (unsigned char[]){0, N, 0}) && !layer_rope(&c, 1), "SmolLM3: its interval");
    read_text("{" SMOLLM3 ",\"no_rope_layers\":[0,1,0]}", &c);
    check(kinds_are(&c, (unsigned char[]){N, 0, N}), "SmolLM3: 1 in no_rope_layers is a layer with positions");
    read_text("{\"model_type\":\"granite\"," SIZES3
              ",\"embedding_multiplier\":12,\"residual_multiplier\":0.22,\"attention_multiplier\":0.0078125,\"logits_"
              "scaling\":8}",
              &c);
    check(c.embedding_scale == 12.0f && c.residual_scale == 0.22f && c.attention_scale == 0.0078125f &&
              c.logit_divisor == 8.0f,
          "Granite: four scalars");
    read_text(
        "{\"model_type\":\"phi3\",\"num_hidden_layers\":1,\"hidden_size\":5120,\"num_attention_heads\":40,"
        "\"num_key_value_heads\":10,\"intermediate_size\":17920,\"vocab_size\":100352,\"max_position_embeddings\":"
        "16384,"
        "\"rope_theta\":250000,\"rope_scaling\":null,\"sliding_window\":null,\"pad_token_id\":100349,\"rms_norm_eps\":"
        "1e-05,\"hidden_act\":\"silu\",\"attention_bias\":false,\"original_max_position_embeddings\":16384,\"bos_token_"
        "id\":100257,\"eos_token_id\":100265,\"tie_word_embeddings\":false}",
        &c);
    check(c.HS == 128 && c.rope.base == 250000.0f && c.rope.rotary == 128 && c.longest == 16384 && !c.window &&
              c.pad_id == 100349,
          "Phi-4's config.json");
    read_text("{" LLAMA ",\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2.0}}", &c);
    check(c.rope.scaling == ROPE_DYNAMIC && c.longest == 512,
          "dynamic positions are the plain ones, and end with them");
    read_text(
        "{" LLAMA ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4.0,\"original_max_position_embeddings\":512}}", &c);
    check(c.longest == 2048, "YaRN reaches factor times the original positions");
}

static void test_configs(void) {
    static const struct {
        const char *name, *json, *expected;
    } bad[] = {
        {"an activation that is not supported", "{" LLAMA ",\"hidden_act\":\"gelu\"}",
         "only \"silu\" is supported for llama"},
        {"key-value heads that do not divide", "{" LLAMA ",\"num_key_value_heads\":3}",
         "do not share 3 key-value heads"},
        {"a scaling of positions that is not supported",
         "{" LLAMA ",\"rope_scaling\":{\"rope_type\":\"mrope\",\"factor\":4.0}}",
         "rope_scaling \"mrope\" is not supported"},
        {"a scaling without its factor", "{" LLAMA ",\"rope_scaling\":{\"rope_type\":\"llama3\"}}",
         "has no \"factor\""},
        {"a scaling in one object with the base",
         "{" LLAMA ",\"rope_parameters\":{\"rope_type\":\"proportional\",\"rope_theta\":500000.0}}",
         "rope_parameters \"proportional\" is not supported"},
        {"YaRN without its factor", "{" LLAMA ",\"rope_scaling\":{\"rope_type\":\"yarn\"}}", "has no \"factor\""},
        {"a cap of scores that a Llama has not", "{" LLAMA ",\"attn_logit_softcapping\":50.0}",
         "\"attn_logit_softcapping\" is set, but a llama model has no such setting"},
        {"a scalar that a Llama has not", "{" LLAMA ",\"residual_multiplier\":0.22}", "\"residual_multiplier\" is set"},
        {"experts", "{" LLAMA ",\"num_local_experts\":8}", "\"num_local_experts\" is set"},
        {"a norm of queries and keys that a Llama has not", "{" LLAMA ",\"use_qk_norm\":true}",
         "\"use_qk_norm\" is set"},
        {"layers of a kind that no kernel has",
         "{" QWEN3 ",\"layer_types\":[\"full_attention\",\"linear_attention\",\"full_attention\"]}",
         "\"layer_types\" has \"linear_attention\""},
        {"kinds of too few layers", "{" QWEN3 ",\"layer_types\":[\"full_attention\"]}", "must list 3 layers"},
        {"layers with a window that is switched off",
         "{" QWEN3 ",\"layer_types\":[\"full_attention\",\"sliding_attention\",\"full_attention\"]}",
         "there is no \"sliding_window\""},
        {"a window for some layers of a Llama",
         "{" LLAMA ",\"layer_types\":[\"full_attention\",\"sliding_attention\"]}", "there is no \"sliding_window\""},
        {"an activation that Gemma has not", "{" GEMMA3 ",\"hidden_activation\":\"gelu\"}",
         "only \"gelu_pytorch_tanh\" is supported for gemma3_text"},
        {"attention both ways", "{" GEMMA3 ",\"use_bidirectional_attention\":true}",
         "\"use_bidirectional_attention\" must be"},
        {"a list of layers without positions that is too short", "{" SMOLLM3 ",\"no_rope_layers\":[1,0]}",
         "\"no_rope_layers\" must list 3 layers"},
        {"a window in SmolLM3", "{" SMOLLM3 ",\"use_sliding_window\":true}", "\"use_sliding_window\" must be false"},
        {"positions by the kind of a layer",
         "{" LLAMA ",\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"default\"}}}",
         "its own positions for some layers, \"full_attention\""},
        {"a scaling that is not an object", "{" LLAMA ",\"rope_scaling\":\"linear\"}",
         "\"rope_scaling\" is not an object"},
        {"a part of a head where heads turn whole", "{" LLAMA ",\"partial_rotary_factor\":0.5}",
         "a llama model rotates whole heads"},
        {"quantised weights", "{" LLAMA ",\"quantization_config\":{\"quant_method\":\"awq\"}}",
         "\"quantization_config\" is set"},
        {"too few short factors",
         "{" PHI3 ",\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":[1,1],\"long_factor\":[1,1]}}",
         "\"short_factor\" has 2 numbers but a head has 16 rotary frequencies"},
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
    check(c.window == 100 && c.longest == 512 && layer_window(&c, 0) == 100 && layer_window(&c, 1) == 100,
          "Mistral's window is every layer's, and a sample may be longer");
    strcpy(strstr(mistral, ":100}"), ":null}");
    write_file("config.json", mistral);
    model_config_read(&c, directory);
    check(c.window == 0 && c.longest == 512, "null means no window");
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

static const Turn yarn[] = {
    {1, 0, 0.615204155f, 0.958123624f},      {1, 10, 1.13104594f, 0.131194845f},
    {1, 25, 1.13861978f, 0.00470450521f},    {1, 30, 1.13862884f, 0.00121191249f},
    {1, 40, 1.13862944f, 5.06200304e-05f},   {1, 63, 1.13862944f, 3.53242058e-07f},
    {100, 0, 0.981861651f, -0.576562822f},   {100, 10, 0.597325563f, -0.969370484f},
    {100, 25, 1.04281509f, 0.457180291f},    {100, 30, 1.13218594f, 0.120962583f},
    {100, 40, 1.13861811f, 0.00506198686f},  {100, 63, 1.13862944f, 3.53242067e-05f},
    {8000, 0, 0.0747454762f, 1.13617349f},   {8000, 10, 1.116521f, 0.223288909f},
    {8000, 25, -0.0764385834f, 1.13606083f}, {8000, 30, -0.698927701f, 0.898875475f},
    {8000, 40, 1.06737208f, 0.396476775f},   {8000, 63, 1.13862586f, 0.00282593351f},
    {60000, 0, -0.328544259f, 1.09019983f},  {60000, 10, -0.102581814f, -1.13399911f},
    {60000, 25, -1.09380078f, 0.316349328f}, {60000, 30, 0.586380124f, 0.976030409f},
    {60000, 40, -1.0130049f, 0.519901931f},  {60000, 63, 1.13843226f, 0.0211933013f},
};
static const Turn yarn_whole[] = {
    {1, 0, 0.505937755f, 0.787951291f},      {1, 20, 0.934917331f, 0.0526297465f},
    {1, 33, 0.936387599f, 0.00430028792f},   {1, 50, 0.936397493f, 4.38874413e-05f},
    {4000, 0, -0.683520496f, -0.640031278f}, {4000, 20, 0.288003564f, -0.891007423f},
    {4000, 33, 0.830582559f, -0.432403713f}, {4000, 50, 0.919990182f, 0.174523249f},
};

static void check_turns(const char* name, const ModelConfig* c, const Turn* turns, int n, int P) {
    float* table = malloc((size_t)P * c->rope.rotary * sizeof(float));
    double worst = 0;
    model_rope_table(&c->rope, P, table);
    for (int k = 0; k < n; k++) {
        const float* at = table + ((size_t)turns[k].p * (c->rope.rotary / 2) + turns[k].i) * 2;
        // a last bit of the frequency turns the angle by position · 2^-24 of it
        double allowed = 2e-7 + turns[k].p * 1.2e-7;
        worst = larger(worst, fmax(fabs(at[0] - turns[k].cos), fabs(at[1] - turns[k].sin)) / allowed);
    }
    check(worst <= 1, "%s: cos and sin within %.2f of a frequency's last bit of transformers'", name, worst);
    free(table);
}

// A Llama 3.1 as transformers 4 and 5 write it; the base is in the object that transformers 5 writes.
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
    read_text("{" LLAMA
              ",\"head_dim\":128,\"rope_theta\":1e6,\"rope_scaling\":{\"factor\":4.0,\"original_max_position_"
              "embeddings\":32768,\"type\":\"yarn\"}}",
              &c);
    check_turns("YaRN as Qwen's cards give it", &c, yarn, sizeof yarn / sizeof *yarn, 60001);
    read_text("{" LLAMA
              ",\"head_dim\":128,\"rope_theta\":10000.0,\"rope_scaling\":{\"factor\":16.0,\"original_max_position_"
              "embeddings\":4096,\"rope_type\":\"yarn\",\"mscale\":0.707,\"mscale_all_dim\":1.0,\"beta_fast\":16,"
              "\"beta_slow\":2,"
              "\"truncate\":false}}",
              &c);
    check_turns("YaRN with all that it may say", &c, yarn_whole, sizeof yarn_whole / sizeof *yarn_whole, 4001);
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
    outside[3] = ' ';  // the object ends after them instead
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
        {"a duplicate name",
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
        {"\"rank_pattern\":{\"q_proj\":0.5}", "gives a value that is not a number from 1"},
        {"\"rank_pattern\":{\"(\":8}", "is not a regular expression"},
        {"\"alpha_pattern\":{\"q_proj\":\"8\"}", "gives a value that is not a number"},
        {"\"layer_replication\":[[0,1]]", "replicated layers"},
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
    test_layers();
    test_rope();
    test_shards();
    test_adapters();
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", directory);
    if (system(command)) return 1;
    return check_report();
}
