#!/usr/bin/env bash
# What the fuzzers' inputs reach, a target's seeds and what build/fuzz/corpus keeps of it: the functions entered of the
# files that the target is about (the rest writes, prints or belongs to another target), and how much of those functions
# was run, in regions of straight code. A Markdown table.
#   dev/fuzz/coverage.sh [TARGET…]      needs clang and llvm-cov (Debian: clang, llvm); LLVM=-14 where the tools bear a
#                                       version
set -eu
cd "$(dirname "$0")/../.." || exit 1
out=build/fuzz-coverage llvm=${LLVM:-}
files() {  # of a target
    case $1 in
        tokenizer_json) echo tokenizer/{load_json,bpe,split,text,table,tokenizer,encode,decode}.c ;;
        directories) echo tokenizer/{load_config,load_json,load_tiktoken,unigram,decode,split}.c ;;
        vocab_merges) echo tokenizer/{load_ranks,bpe}.c ;;
        tiktoken) echo tokenizer/{load_tiktoken,load_ranks,bpe}.c ;;
        sentencepiece) echo tokenizer/{load_sentencepiece,bpe}.c ;;
        texts) echo tokenizer/{bpe,encode,decode,split,text,utf8}.c ;;
        safetensors | shards) echo seal/base/safetensors.c ;;
        model_config) echo seal/{model_config,model_family}.c ;;
        peft_config) echo seal/peft_config.c ;;
        pt) echo seal/commands/pt_reader.c ;;
        checkpoint) echo seal/run/{checkpoint,run_record}.c ;;
        options) echo seal/base/options.c ;;
        jinja)
            echo tokenizer/{chat,jinja}.c \
                tokenizer/jinja_{builtin,filter,format,lex,names,object,parse,print,text,value}.c ;;
        gguf) echo seal/base/gguf.c seal/commands/{gguf_model,gguf_tokenizer}.c ;;
        rows) echo seal/rows/{dataset,layouts}.c ;;
        own_files) echo seal/rows/{tokens,token_cache}.c seal/commands/{report,chart,winrate,selector_file}.c ;;
        *) echo "dev/fuzz/coverage.sh: $1 is not a target" >&2; exit 2 ;;
    esac
}
[ $# -gt 0 ] || set -- $(ls dev/fuzz/seeds)
dev/fuzz/build.sh --coverage
echo "| target | files | functions entered | regions run in them | |"
echo "|---|---|---|---|---|"
for target; do
    rm -f "$out/$target".*.profraw
    find "dev/fuzz/seeds/$target" "build/fuzz/corpus/$target" -type f 2>/dev/null |
        LLVM_PROFILE_FILE="$out/$target.%p.profraw" ASAN_OPTIONS=detect_leaks=0 xargs -n 500 "$out/$target" \
        >"$out/$target.log" 2>&1 ||
        { echo "dev/fuzz/coverage.sh: $target stops: $out/$target.log" >&2; exit 1; }
    "llvm-profdata$llvm" merge -o "$out/$target.profdata" "$out/$target".*.profraw
    "llvm-cov$llvm" export -instr-profile="$out/$target.profdata" "$out/$target" $(files "$target") |
        python3 -c 'import json, sys
entered, functions, run, regions = 0, 0, 0, 0
for f in json.load(sys.stdin)["data"][0]["functions"]:
    if not any(f["filenames"][0].endswith(name) for name in sys.argv[2:]): continue
    functions += 1
    if not f["count"]: continue
    # of the function itself, not of a macro; code, not gaps
    code = [r[4] for r in f["regions"] if r[5] == 0 and r[7] == 0]
    entered, run, regions = entered + 1, run + sum(count > 0 for count in code), regions + len(code)
names = " ".join(n.split("/")[-1] for n in sys.argv[2:])
print("| %s | %s | %d of %d | %d of %d | %.0f%% |" %
      (sys.argv[1], names, entered, functions, run, regions, 100 * run / regions))' "$target" $(files "$target")
done
