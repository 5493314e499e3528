#!/usr/bin/env bash
# Builds dev/cpu/test_nccl.cu and runs it on three ranks, then once for each planted bug, which must end in a message
# and not in a hang. TAP on stdout.
set -u
cd "$(dirname "$0")/../.." || exit 1
command -v mpicc >/dev/null && command -v mpirun >/dev/null || {
    echo "ok NCCL on the CPU # SKIP MPI is not there (apt-get install libopenmpi-dev)"; exit 0
}
. dev/cpu/build.sh
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 \
    PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe OMPI_MCA_mpi_yield_when_idle=1 CPU_THREADS=1
dir=build/cpu-test
includes+=" $(mpicc -show | tr ' ' '\n' | grep '^-I' | tr '\n' ' ') -DOMPI_SKIP_MPICXX -DMPICH_SKIP_MPICXX"
libs=$(mpicc -show | tr ' ' '\n' | grep '^-[Ll]' | tr '\n' ' ')
build_object plain $dir dev/cpu/nccl.cpp &&
    build_program plain $dir dev/cpu/test_nccl.cu $dir/plain/dev/cpu/nccl.cpp.o $libs || {
    echo "not ok dev/cpu/test_nccl: the build failed"; exit 1
}
status=0
mpirun -n 3 $dir/plain/test_nccl || status=1
log=$dir/plain/nccl.log
plant() {
    timeout 60 mpirun -n 3 $dir/plain/test_nccl "$1" >$log 2>&1
    local code=$?
    if [ $code -ne 0 ] && [ $code -ne 124 ] && grep -q "$2" $log; then echo "ok a planted bug, $1: \"$2\""
    else echo "not ok a planted bug, $1: status $code, $(grep CUDA $log | head -1)"; status=1; fi
}
plant count "ranks disagree: rank . calls ncclAllReduce of"
plant call "ncclBroadcast of 8"
plant root "root 1"
plant host "is not in device memory"
plant bounds "36 bytes at"
exit $status
