/* What a run is. See run_record.h. */
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "run/run_record.h"

// Options that a resumed run may change.
static const char* const free_options[] = {"model",      "adapter",  "tune",       "safe",  "valid",
                                           "append",     "selector", "token-mask", "out",   "resume",
                                           "save-every", "keep",     "ranks",      "quiet", "dry-run"};

void record_fact(RunRecord* r, const char* name, const char* value) {
    if (r->n_facts == RECORD_FACTS) program_error("more than %d facts of a run", RECORD_FACTS);
    snprintf(r->facts[r->n_facts].name, sizeof r->facts[0].name, "%s", name);
    snprintf(r->facts[r->n_facts++].value, sizeof r->facts[0].value, "%s", value);
}

cJSON* record_json(const RunRecord* r) {
    cJSON* json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "command", r->command);
    cJSON* facts = cJSON_AddObjectToObject(json, "facts");
    for (int i = 0; i < r->n_facts; i++) cJSON_AddStringToObject(facts, r->facts[i].name, r->facts[i].value);
    cJSON_AddItemToObject(json, "options", cJSON_Parse(r->options));
    return json;
}

static bool is_free(const char* name) {
    for (size_t i = 0; i < sizeof free_options / sizeof *free_options; i++)
        if (!strcmp(free_options[i], name)) return true;
    return false;
}

typedef struct {
    char text[2048];
    size_t n;
} Differences;
static void differs(Differences* d, const char* what, const cJSON* now, const cJSON* then, const char* there) {
    bool values = !(cJSON_IsString(now) && strlen(now->valuestring) == 64);  // a digest says nothing to a reader
    char *a = now && values ? cJSON_PrintUnformatted(now) : NULL,
         *b = then && values ? cJSON_PrintUnformatted(then) : NULL;
    int n = snprintf(d->text + d->n, sizeof d->text - d->n, "%s%s", d->n ? "; " : "", what);
    if (n > 0) d->n = d->n + (size_t)n < sizeof d->text ? d->n + (size_t)n : sizeof d->text - 1;
    if (values) {
        n = snprintf(d->text + d->n, sizeof d->text - d->n, " is %.80s here but %.80s in %s", a ? a : "absent",
                     b ? b : "absent", there);
        if (n > 0) d->n = d->n + (size_t)n < sizeof d->text ? d->n + (size_t)n : sizeof d->text - 1;
    }
    cJSON_free(a);
    cJSON_free(b);
}

// Every key of either object.
static void compare(Differences* d, const cJSON* now, const cJSON* then, bool options, const char* there) {
    char what[64];
    for (int side = 0; side < 2; side++)
        for (const cJSON* item = side ? (then ? then->child : NULL) : (now ? now->child : NULL); item;
             item = item->next) {
            const cJSON *a = cJSON_GetObjectItemCaseSensitive(now, item->string),
                        *b = cJSON_GetObjectItemCaseSensitive(then, item->string);
            if ((side && a) || (options && is_free(item->string)) || (a && b && cJSON_Compare(a, b, true))) continue;
            snprintf(what, sizeof what, "%s%.48s", options ? "--" : "the ", item->string);
            differs(d, what, a, b, there);
        }
}

void record_check(const RunRecord* r, const Checkpoint* c) {
    Differences d = {{0}, 0};
    cJSON* now = record_json(r);
    const cJSON* command = cJSON_GetObjectItemCaseSensitive(c->json, "command");
    if (!cJSON_IsString(command) || strcmp(command->valuestring, r->command))
        fatal("%s: the checkpoint is of the command %.20s but this is %s", c->path,
              cJSON_IsString(command) ? command->valuestring : "?", r->command);
    compare(&d, cJSON_GetObjectItemCaseSensitive(now, "options"), cJSON_GetObjectItemCaseSensitive(c->json, "options"),
            true, "the checkpoint");
    compare(&d, cJSON_GetObjectItemCaseSensitive(now, "facts"), cJSON_GetObjectItemCaseSensitive(c->json, "facts"),
            false, "the checkpoint");
    cJSON_Delete(now);
    if (d.n)
        fatal(
            "%s: the checkpoint is of another run; what differs: %s; give the same as then, or start again in another "
            "--out",
            c->path, d.text);
}

void record_check_ended(const RunRecord* r, const char* out) {
    // what the header has besides
    static const char* const no_options[] = {"rows", "left_out", "cut", "data", "chat_template", "pack_tokens"};
    Differences d = {{0}, 0};
    Path log = path_of(out, "log.jsonl");
    FILE* f = fopen(log.s, "r");
    char* line = NULL;
    size_t room = 0;
    ssize_t n = f ? getline(&line, &room, f) : -1;
    cJSON *then = n > 0 ? cJSON_ParseWithLength(line, (size_t)n) : NULL, *now = cJSON_Parse(r->options);
    if (f) fclose(f);
    free(line);
    if (!cJSON_IsObject(then))
        fatal("%s: its first line, which would say how the run was made, cannot be read; remove %s to run again", log.s,
              out);
    for (size_t i = 0; i < sizeof no_options / sizeof *no_options; i++)
        cJSON_DeleteItemFromObjectCaseSensitive(then, no_options[i]);
    compare(&d, now, then, true, "its log");
    if (d.n) fatal("%s is a run that has ended, but another one; what differs: %s; give another --out", out, d.text);
    cJSON_Delete(now);
    cJSON_Delete(then);
}

void record_free(RunRecord* r) {
    free(r->options);
    memset(r, 0, sizeof *r);
}
