#!/usr/bin/env bash
# The bf16 attention on a GPU whose blocks may have 99 KiB of shared memory (24 GB cards: RTX 4090, L4, A10), where its backward has one stage less.
set -u
program=build/cpu-bf16/dev/kernels/attention
[ -x $program ] || { echo "ok small_gpu # SKIP $program is not built"; exit 0; }
log=$(mktemp); trap 'rm -f "$log"' EXIT
CPU_SHARED_KIB=99 $program --check >"$log" 2>&1
status=$?
sed -E 's/^(ok|not ok) /\1 99 KiB: /' "$log"
exit $status
