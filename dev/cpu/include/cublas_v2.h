/* The cuBLAS types that cublasLt.h needs; the project calls cuBLASLt only. */
#pragma once
#include <cublasLt.h>
