/*
What a run is, beyond its state: its command, its options, and facts (fingerprint of the model, digests of the data). A
checkpoint carries the record, and
--resume holds it against the run that wants to continue. Knows no device.
*/
#ifndef SEAL_RUN_RECORD_H
#define SEAL_RUN_RECORD_H

#include "run/checkpoint.h"

#ifdef __cplusplus
extern "C" {
#endif

#define RECORD_FACTS 16
typedef struct {
    const char* command;
    char* options;  // an object as text (options_json)
    struct {
        char name[32], value[72];
    } facts[RECORD_FACTS];
    int n_facts;
} RunRecord;

void record_fact(RunRecord* r, const char* name, const char* value);
cJSON* record_json(const RunRecord* r);
// Fatal where the checkpoint belongs to another run: the line names every option and fact that differs. Paths may
// differ (the digests speak for the files), and what changes no result: --quiet, --save-every, --keep.
void record_check(const RunRecord* r, const Checkpoint* c);
void record_free(RunRecord* r);

#ifdef __cplusplus
}
#endif
#endif
