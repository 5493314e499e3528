/*
A target outside the vocabulary. The data has been checked when it was read, so the host can only meet one where the
data changed since, and the device where memory was damaged. Either way the user gets one line and status 2, before a
result of that step is used: from the host while it packs, from the device with the losses that the next step reads.
*/
#include "check.h"
#include "refuses.h"
#include "base/error.h"
#include "kernels.h"
#include "trainer.h"

#define SAMPLES 4
#define LENGTH 9
#define VOCAB 61

typedef struct {
    int target;      // planted in place of the last token's
    int sample;      // of this sample
    bool on_device;  // after the host has packed it
    bool hat;        // two adapters in one pass; the sample is θ̂'s
    bool forward_only, capped;
} Plant;

static int32_t tokens[SAMPLES][LENGTH];
static BatchItem items[SAMPLES];
static ModelConfig config;
static TrainerSettings settings;

static void make(const Plant* x) {
    model_config_defaults(&config, "llama");
    config.L = 1;
    config.C = 32;
    config.NH = config.NKV = 1;
    config.FF = 64;
    config.V = VOCAB;
    config.max_positions = 16;
    config.logit_cap = x->capped ? 30.0f : 0.0f;
    model_config_complete(&config, "tiny");
    settings = {};
    settings.T = 256;        // two ranges, each of them rounded up to 128 rows on a GPU
    settings.head_rows = 8;  // less than a pack has: several chunks of logits
    settings.batch_max = SAMPLES;
    settings.with_hat = x->hat;
    settings.forward_only = x->forward_only;
    settings.adamw = {0.9f, 0.95f, 1e-8f, 0.0f, 1.0f};
    if (x->hat) snprintf(settings.lora.modules, sizeof settings.lora.modules, "q,v");
    settings.lora.rank = 8;
    settings.lora.scale = 1.0f;
    for (int s = 0; s < SAMPLES; s++) {
        for (int i = 0; i < LENGTH; i++) tokens[s][i] = (7 * s + 3 * i) % VOCAB;
        items[s].sample = {tokens[s], NULL, LENGTH, LENGTH - 1, 100 + s};
        items[s].coefficient = 0.25f;
    }
}

// A step as trainer_pass does it, with the target planted between the host's pack and its upload.
static void plant_on_device(Trainer* t, const Plant* x) {
    PackSample samples[SAMPLES];
    float coefficient[SAMPLES];
    int place[SAMPLES], first = x->hat ? SAMPLES / 2 : SAMPLES;
    for (int s = 0; s < SAMPLES; s++) {
        samples[s] = items[s].sample;
        coefficient[s] = 0.03f;
        place[s] = s < first ? s : s - first;
    }
    host_pack_build_split(&t->packed, samples, SAMPLES, first, VOCAB, config.longest);
    if (x->sample >= 0) t->packed.targets[t->packed.loss_start[x->sample + 1] - 1] = x->target;
    DevicePack s;
    pack_upload(&t->uploader, &s, &t->packed, coefficient, place, t->stream);
    const ParameterSet* model = t->with_lora ? &t->base : &t->theta;
    bool backward = !x->forward_only;
    if (backward)
        for (int i = 0; i < (x->hat ? 2 : 1); i++) gradients_zero(i ? &t->theta_hat : &t->theta, t->stream);
    if (t->with_lora) lora_publish(&t->lora, &t->base, t->stream);
    transformer_forward(&t->transformer, model, &s, t->stream);
    transformer_loss(&t->transformer, model, &s, t->loss, t->loss_hat, backward, t->stream);
    if (backward) transformer_backward(&t->transformer, model, &s, t->stream);
}

static void step(const void* context) {
    const Plant* x = (const Plant*)context;
    Trainer t;
    PassCounts counts = {};
    make(x);
    trainer_plan(&t, &config, &settings);
    trainer_allocate(&t);
    if (t.with_lora) parameters_init(&t.base, 1, true);
    parameters_init(&t.theta, 2, true);
    if (x->hat) parameters_copy(&t.theta_hat, &t.theta, t.stream);
    if (x->on_device) plant_on_device(&t, x);
    else {
        if (x->sample >= 0) tokens[x->sample][LENGTH - 1] = x->target;
        if (!x->forward_only) gradients_zero(&t.theta, t.stream);
        trainer_pass(&t, &t.theta, items, SAMPLES, 0, NULL, t.loss, !x->forward_only, &counts);
    }
    trainer_bring_back(&t, 0);
    StepResult r = trainer_result(&t, 0);
    bool finite = true;
    for (int s = 0; s < (x->hat ? SAMPLES / 2 : SAMPLES); s++) finite = finite && isfinite(r.loss[s]);
    if (!finite) program_error("a loss is not finite");
    trainer_free(&t);
    fatal("no target is bad");  // what `refuses` expects of a step without one
}

int main(void) {
    const struct {
        const char* name;
        Plant plant;
        const char* message;
    } cases[] = {
        {"none, trained", {0, -1, true, false, false, false}, "no target is bad"},
        {"none, by trainer_pass", {0, -1, false, false, false, false}, "no target is bad"},
        {"none, two adapters", {0, -1, true, true, false, false}, "no target is bad"},
        {"the host packs V",
         {VOCAB, 2, false, false, false, false},
         "row 102: token 9 of 9 is 61, outside the model's vocabulary of 61 tokens"},
        {"the host packs -1, forward only",
         {-1, 0, false, false, true, false},
         "row 100: token 9 of 9 is -1, outside the model's vocabulary"},
        {"the device meets V",
         {VOCAB, 2, true, false, false, false},
         "sample 2 of a batch reached the device with the target 61, outside the model's vocabulary of 61 tokens"},
        {"the device meets -1",
         {-1, 0, true, false, false, false},
         "sample 0 of a batch reached the device with the target -1,"},
        {"the device meets 2^31 - 1, forward only",
         {INT32_MAX, 3, true, false, true, false},
         "sample 3 of a batch reached the device with the target 2147483647,"},
        {"the device meets -2^31 under a capped head",
         {INT32_MIN, 1, true, false, false, true},
         "sample 1 of a batch reached the device with the target -2147483648,"},
        {"the device meets it in a sample of theta_hat",
         {VOCAB + 5, 3, true, true, false, false},
         "sample 1 of a batch reached the device with the target 66,"},
    };
    for (auto& c : cases) check(refuses(step, &c.plant, c.message), "%s: one line and status 2", c.name);
    return check_report();
}
