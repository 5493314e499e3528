/*
What a run is, beyond its state: its command, its options, and facts (fingerprint of the model, digests of the data). A
checkpoint holds the record, and --resume compares it with that of the run that is to continue. Independent of the
device.
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
// Ends the program where the checkpoint belongs to another run; the message names every option and fact that differs.
// Paths may differ, because the digests identify the files, and so may options that change no result: --quiet,
// --save-every, --keep.
void record_check(const RunRecord* r, const Checkpoint* c);
// The same of a run that has ended, by the options that its log begins with; what its data were is not compared.
void record_check_ended(const RunRecord* r, const char* out);
void record_free(RunRecord* r);

#ifdef __cplusplus
}
#endif
#endif
