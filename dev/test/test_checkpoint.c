/*
Checkpoint files without a device: parts of several ranks put together again for any number of ranks, what counts as
finished and as whole, which ones are kept, what is left after a write that failed, and runs that a checkpoint does not
belong to.
*/
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include "check.h"
#include "run/checkpoint.h"
#include "base/error.h"
#include "refuses.h"
#include "run/run_record.h"
#include "scratch.h"

#define COUNT 1000
static float state[COUNT], moments[7];

// One rank's file of a checkpoint; ranks share `state` in parts of unequal size, rank 0 has the moments.
static bool write_rank(const char* run, int64_t step, int rank, int ranks, const char* json) {
    CheckpointWriter w;
    int64_t from = COUNT * (int64_t)(rank * rank) / (ranks * ranks),
            to = COUNT * (int64_t)((rank + 1) * (rank + 1)) / (ranks * ranks);
    CheckpointPart parts[] = {{"state", COUNT, from, to - from}, {"moments", 7, 0, rank ? 0 : 7}};
    bool good = checkpoint_create(&w, run, step, rank, parts, 2) &&
                checkpoint_write(&w, state + from, (size_t)(to - from) * sizeof(float)) &&
                (rank || checkpoint_write(&w, moments, sizeof moments)) && checkpoint_commit(&w, rank ? NULL : json);
    if (!good) printf("# %s\n", w.error);
    return good;
}
static bool write_step(const char* run, int64_t step, int ranks, const char* extra) {
    char json[512];
    mkdir(run, 0700);
    snprintf(json, sizeof json,
             "{\"command\":\"sft\",\"ranks\":%d,\"step\":%lld,\"loss\":null,\"options\":{\"lr\":1e-5},\"facts\":{"
             "\"tune data\":\"abc\"}%s}",
             ranks, (long long)step, extra);
    bool good = true;
    for (int r = ranks - 1; r >= 0; r--) good = write_rank(run, step, r, ranks, json) && good;
    return good;
}
static bool exists(const char* run, const char* path) {
    char whole[512];
    snprintf(whole, sizeof whole, "%s/checkpoint/%s", run, path);
    return file_exists(whole);
}

static void test_parts(void) {
    for (int ranks = 1; ranks <= 5; ranks++) {
        const char* run = in_directory("parts");
        Checkpoint c;
        float got[COUNT], few[7];
        int good = write_step(run, ranks, ranks, "");
        check(good && checkpoint_open(&c, run, -1) && c.step == ranks && c.ranks == ranks,
              "a checkpoint of %d ranks is written and opened", ranks);
        checkpoint_read(&c, "state", COUNT, 0, COUNT, got);
        good = !memcmp(got, state, sizeof state);
        for (int other = 1; other <= 7; other++)  // as that many ranks would read it
            for (int r = 0; r < other; r++) {
                int64_t from = COUNT * r / other, to = COUNT * (r + 1) / other;
                checkpoint_read(&c, "state", COUNT, from, to - from, got);
                good &= !memcmp(got, state + from, (size_t)(to - from) * sizeof(float));
            }
        checkpoint_read(&c, "moments", 7, 0, 7, few);
        check(good && !memcmp(few, moments, sizeof moments), "and read by 1 to 7 ranks, each its part");
        check(checkpoint_integer(&c, "step") == ranks && isnan(checkpoint_number(&c, "loss")),
              "with the numbers of run.json");
        checkpoint_close(&c);
    }
}

static void read_other_size(const void* run) {
    Checkpoint c;
    float got[COUNT + 1];
    if (checkpoint_open(&c, run, -1)) checkpoint_read(&c, "state", COUNT + 1, 0, COUNT + 1, got);
}
static void read_absent(const void* run) {
    Checkpoint c;
    float got[1];
    if (checkpoint_open(&c, run, -1)) checkpoint_read(&c, "nothing", 1, 0, 1, got);
}
static void read_number(const void* run) {
    Checkpoint c;
    if (checkpoint_open(&c, run, -1)) checkpoint_integer(&c, "tokens");
}
static void test_refusals(void) {
    const char* run = in_directory("refusals");
    check(write_step(run, 3, 2, ""), "a checkpoint");
    check(refuses(read_other_size, run, "state has 1000 elements but this run needs 1001"),
          "a buffer of another size is refused");
    check(refuses(read_absent, run, "only 0 of 1 elements of nothing"), "an absent buffer is refused");
    check(refuses(read_number, run, "tokens is missing"), "a number that run.json lacks is refused");
}

static void test_finished(void) {
    const char *run = in_directory("finished"), *json = "{\"ranks\":3}";
    Checkpoint c;
    check(!checkpoint_any(run) && !checkpoint_open(&c, run, -1), "where nothing is, nothing is found");
    check(write_step(run, 10, 3, ""), "a checkpoint of three ranks");
    for (int last = 0; last < 3; last++) {  // whichever rank comes last
        for (int r = 0; r < 3; r++)
            if (r != last) write_rank(run, 20, r, 3, json);
        checkpoint_prune(run, 1);
        check(exists(run, "step-10/rank-0.sha256") && exists(run, "step-20"),
              "the one before stays until rank %d has written too", last);
        write_rank(run, 20, last, 3, json);
        checkpoint_prune(run, 1);
        check(!exists(run, "step-10") && exists(run, "step-20/rank-0.sha256"), "then it goes");
        write_step(run, 10, 3, "");
        char gone[512];
        snprintf(gone, sizeof gone, "rm -r %s/checkpoint/step-20", run);
        if (system(gone)) check(0, "%s", gone);
    }
    for (int step = 11; step < 15; step++) write_step(run, step, 1, "");
    write_rank(run, 12, 1, 2, NULL);  // a file too many does no harm
    checkpoint_prune(run, 2);
    check(!exists(run, "step-10") && !exists(run, "step-12") && exists(run, "step-13") && exists(run, "step-14"),
          "the newest two are kept");
    check(checkpoint_bytes_held(run) > 2 * sizeof state && checkpoint_bytes_held(run) < 4 * sizeof state,
          "and what they hold is counted");
    check(checkpoint_open(&c, run, 13) && c.step == 13, "one of several is opened by its step");
    checkpoint_close(&c);
    // a run that continues from 13, as 14 is damaged, writes 14 again under other steps first
    checkpoint_discard(run, 13);
    check(exists(run, "step-14") && exists(run, "step-13/rank-0.sha256") && !exists(run, "step-14/rank-0.sha256"),
          "what comes after the step resumed from does not count any more");
    write_rank(run, 15, 0, 2, json);
    checkpoint_prune(run, 1);
    check(exists(run, "step-13/rank-0.sha256") && exists(run, "step-15"),
          "and neither displaces a good one nor what is being written");
    checkpoint_discard(run, -1);
    check(!checkpoint_any(run), "nothing counts for a run that starts again");
}

// A disk that refuses: the limit on the size of a file stands in for it.
static void test_failing_write(void) {
    const char* run = in_directory("failing");
    struct rlimit limit, old;
    write_step(run, 1, 1, "");
    getrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, SIG_IGN);
    limit = old;
    limit.rlim_cur = 2000;
    setrlimit(RLIMIT_FSIZE, &limit);
    CheckpointWriter w;
    CheckpointPart part = {"state", COUNT, 0, COUNT};
    bool good = checkpoint_create(&w, run, 2, 0, &part, 1) && checkpoint_write(&w, state, sizeof state);
    setrlimit(RLIMIT_FSIZE, &old);
    check(!good && strstr(w.error, "step-2/.rank-0.safetensors cannot be written: File too large"),
          "a write that fails says where and why: %s", w.error);
    check(exists(run, "step-1/rank-0.sha256") && !exists(run, "step-2/.rank-0.safetensors"),
          "the checkpoint before is there, nothing half-written");
    Checkpoint c;
    check(checkpoint_open(&c, run, 1), "and whole");
    checkpoint_close(&c);
    const char* file = in_directory("file");
    file_write(file, "x", 1);
    check(!checkpoint_create(&w, file, 1, 0, &part, 1) && strstr(w.error, "cannot make the directory"),
          "a run that is a file: %s", w.error);
}

typedef struct {
    const char *run, *command, *options, *fact;
} Meeting;
static void meet(const void* context) {
    const Meeting* m = context;
    Checkpoint c;
    RunRecord r = {0};
    r.command = m->command;
    r.options = strdup(m->options);
    record_fact(&r, "tune data", m->fact);
    if (!checkpoint_open(&c, m->run, -1)) return;
    record_check(&r, &c);
    checkpoint_close(&c);
    record_free(&r);
}
static void test_records(void) {
    const char* run = in_directory("records");
    write_step(run, 1, 1, "");
    const struct {
        Meeting m;
        const char* expected;
    } cases[] = {
        {{run, "selector", "{\"lr\":1e-5}", "abc"}, "the checkpoint is of the command sft but this is selector"},
        {{run, "sft", "{\"lr\":2e-5}", "abc"}, "--lr is 2e-05 here but 1e-05 in the checkpoint"},
        {{run, "sft", "{\"lr\":1e-5,\"seed\":3}", "abc"}, "--seed is 3 here but absent in the checkpoint"},
        {{run, "sft", "{}", "abc"}, "--lr is absent here but 1e-05 in the checkpoint"},
        {{run, "sft", "{\"lr\":2e-5}", "abd"}, "in the checkpoint; the tune data is \"abd\" here"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check(refuses(meet, &cases[i].m, cases[i].expected), "another run is refused: %s", cases[i].expected);
    Meeting same = {run, "sft", "{\"lr\":1e-5,\"quiet\":true,\"tune\":[\"elsewhere\"],\"keep\":3}", "abc"};
    meet(&same);
    check(1, "the same run with other paths is taken");
}

static void test_model_digest(void) {
    Hex a, b;
    mkdir(in_directory("model"), 0700);
    put("model/config.json", "{}");
    put("model/model.safetensors", "weights");
    model_directory_digest(in_directory("model"), a);
    put("model/notes.txt", "a file that says nothing about the model");
    model_directory_digest(in_directory("model"), b);
    check(!strcmp(a, b), "a model's digest is of its config and weights");
    put("model/model.safetensors", "weightz");
    model_directory_digest(in_directory("model"), b);
    check(strcmp(a, b), "and another for other weights");
}

int main(void) {
    program_name = "test_checkpoint";
    strcpy(directory, "/tmp/seal.checkpoint.XXXXXX");
    if (!mkdtemp(directory)) return 1;
    for (int i = 0; i < COUNT; i++) state[i] = (float)i + 0.25f;
    for (int i = 0; i < 7; i++) moments[i] = -(float)i;
    test_parts();
    test_refusals();
    test_finished();
    test_failing_write();
    test_records();
    test_model_digest();
    char command[96];
    snprintf(command, sizeof command, "rm -rf %s", directory);
    if (system(command)) check(0, "%s", command);
    return check_report();
}
