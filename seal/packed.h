/*
A frozen model in fewer bytes: the weights of its linear layers are packed once, when they are loaded. In 4 bits (nf4.h)
they are unpacked into one shared scratch before each product that reads them, forward and backward (QLoRA). What a
product then reads is a matrix like any other, with the tail of adapters beside it, so nothing else knows of it. In
fp8 (fp8.h) products read them as they are. Embeddings, norms, biases and the head stay as they are.
*/
#ifndef SEAL_PACKED_H
#define SEAL_PACKED_H

#include "base/text.h"
#include "model.h"

// As --base names them.
const char* base_name(BasePrecision base);
BasePrecision base_find(const char* name);
// To what decides the numbers that a journal holds; nothing for a plain one.
void base_decides(Text* decides, BasePrecision base);

// Fatal where a linear layer cannot be packed so.
void packed_check(const ModelLayout* layout);
// Bytes before the first piece, and of a file tensor's piece, each a multiple of MEMORY_ALIGNMENT.
int64_t packed_tables_bytes(const ModelLayout* layout);
int64_t packed_piece_bytes(const ModelLayout* layout, const FileTensor* f);
// After memory_allocate: the tables that all pieces share.
void packed_bind(ParameterSet* set);
// Packs rows [row, row + n) of a tensor, (n, cols) on the host: whole tensors of the file, because their scales depend
// on all of their weights. The order is the file's, in which bitsandbytes packs them.
void packed_set(ParameterSet* set, int tensor, int64_t row, int64_t n, const float* host);
// What whole tensors of the file became, on the host; fp8.
void packed_get(const ParameterSet* set, int tensor, int64_t row, int64_t n, float* host);
// Not fp8. The weight of a linear layer as its product reads it, (rows, cols; ld) with its tail: where the set has it,
// or unpacked into the set's scratch, where it stays until the next one.
const floatX* weight_matrix(const ParameterSet* set, TensorKind kind, int layer, cudaStream_t stream);

#endif
