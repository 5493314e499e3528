#!/usr/bin/env bash
# The costs of the emulation's operations, as the table of dev/cpu/README.md has them. About ten seconds.
set -eu
cd "$(dirname "$0")/../.." || exit 1
. dev/cpu/build.sh
build_program plain build/cpu-test dev/cpu/bench.cu
CPU_THREADS=1 build/cpu-test/plain/bench
