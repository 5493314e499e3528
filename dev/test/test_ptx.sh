#!/usr/bin/env bash
# The translator of nvcc's PTX: single opcodes, what it must report, what it must refuse (no nvcc needed; docs/ptx.md).
# The kernels themselves are run by make test-ptx, a sample of them in CI.
set -u
cd "$(dirname "$0")/../.." || exit 1
dev/ptx/test.sh --opcodes
