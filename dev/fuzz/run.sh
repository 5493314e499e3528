#!/usr/bin/env bash
# Fuzzes: dev/fuzz/run.sh TARGET SECONDS, or dev/fuzz/run.sh all SECONDS [ROUNDS]: the targets in turn, SECONDS each, so
# many rounds (default: 1).
#         dev/fuzz/run.sh table: what the log says of all runs so far, as Markdown.
# FUZZ_SEED: the random numbers of libFuzzer, for a run that can be repeated (default: others each time).
# FUZZ_TIMEOUT: seconds after which an input counts as hanging (10); more where other work takes the processor.
# Starts from dev/fuzz/seeds/TARGET and what earlier runs kept in build/fuzz/corpus/TARGET. Inputs that crash, hang (10
# s) or take 2 GB are in build/fuzz/found/TARGET afterwards; once fixed they go to the seeds as found_N.
# build/fuzz/log.tsv has one line per run.
set -u
cd "$(dirname "$0")/../.." || exit 1
out=build/fuzz
if [ "${1:-}" = table ]; then
    printf '| target | CPU s | executions | edges | inputs kept | stops |\n|---|---:|---:|---:|---:|---:|\n'
    awk -F'\t' '{ s[$2] += $3; n[$2] += $4; if ($5 + 0 > e[$2]) e[$2] = $5; k[$2] = $7; f[$2] += $8 }
                END { for (t in s)
                        printf "| %s | %d | %d | %d | %d | %d |\n", t, s[t], n[t], e[t], k[t], f[t] }' \
        "$out/log.tsv" | sort
    exit
fi
[ $# -ge 2 ] || { sed -n '2,/^[^#]/s/^# \{0,1\}//p' dev/fuzz/run.sh; exit 2; }
targets=$(cd dev/fuzz/seeds && ls)
[ "$1" = all ] || targets=$1

run() {  # TARGET SECONDS
    mkdir -p "$out/corpus/$1" "$out/found/$1"
    local dictionary='' leaks=1 log=$out/$1.log before after cpu
    case $1 in rows | own_files) leaks=0 ;; esac  # libcrypto's: survive() frees its contexts, which it does not know
    case $1 in
        tokenizer_json | directories | vocab_merges | safetensors | model_config | peft_config | shards | rows | \
            checkpoint | own_files) dictionary=-dict=dev/fuzz/json.dict ;;
        gguf | jinja) dictionary=-dict=dev/fuzz/$1.dict ;;
    esac
    before=$(ls "$out/found/$1" | wc -l)
    read -r _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ a b _ </proc/$$/stat
    ASAN_OPTIONS=detect_leaks=$leaks "$out/$1" "$out/corpus/$1" "dev/fuzz/seeds/$1" -max_total_time="$2" \
        -timeout="${FUZZ_TIMEOUT:-10}" -rss_limit_mb=2048 -max_len=16384 \
        -print_final_stats=1 ${FUZZ_SEED:+-seed=$FUZZ_SEED} \
        $dictionary -artifact_prefix="$out/found/$1/" >"$log" 2>&1
    read -r _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ c d _ </proc/$$/stat
    after=$(ls "$out/found/$1" | wc -l)
    cpu=$(((c + d - a - b) / $(getconf CLK_TCK)))
    # date, target, seconds of this process, executions, edges, features, inputs kept, findings
    printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$(date +%FT%T)" "$1" "$cpu" \
        "$(grep -oE 'number_of_executed_units: [0-9]+|^#[0-9]+' "$log" | grep -oE '[0-9]+$' | tail -1)" \
        "$(grep -oE 'cov: [0-9]+' "$log" | tail -1 | grep -oE '[0-9]+')" \
        "$(grep -oE 'ft: [0-9]+' "$log" | tail -1 | grep -oE '[0-9]+')" \
        "$(ls "$out/corpus/$1" | wc -l)" $((after - before)) | tee -a "$out/log.tsv"
}

for round in $(seq "${3:-1}"); do
    for target in $targets; do run "$target" "$2"; done
done
