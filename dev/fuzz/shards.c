/* The index of a model in shards (seal/base/safetensors.c, st_open_model). Input: model.safetensors.index.json, beside
 * two files of a tensor each. */
#include <string.h>
#include "fuzz.h"
#include "base/safetensors.h"

static StModel m;

static void write_shard(const char* name, const char* tensor) {
    char path[256];
    int64_t shape[1] = {1};
    float one = 1.0f;
    StWriter w;
    snprintf(path, sizeof path, "%s/%s", fuzz_directory(), name);
    st_create(&w, path);
    st_declare(&w, tensor, ST_F32, 1, shape);
    st_write(&w, &one, sizeof one);
    st_commit(&w);
}

static void body(void* directory) {
    const StReader* file;
    st_open_model(&m, directory, "model");
    MUST(m.n_files >= 1 && m.n_files <= 2);
    for (int i = 0; i < m.n_files; i++)
        for (int k = 0; k < m.files[i].n_tensors; k++)
            MUST(st_model_find(&m, m.files[i].tensors[k].name, &file) == &m.files[i].tensors[k] && file == &m.files[i]);
    st_close_model(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t n) {
    static bool begun;
    fuzz_file("model.safetensors.index.json", data, n);
    if (!begun) {
        write_shard("one.safetensors", "a");
        write_shard("two.safetensors", "b");
        begun = true;
    }
    memset(&m, 0, sizeof m);
    if (!survive(body, (void*)fuzz_directory())) fuzz_unmap();
    return 0;
}
