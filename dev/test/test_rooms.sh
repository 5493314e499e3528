#!/usr/bin/env bash
# Arrows between rooms point one way: the table says who may include whom, and every #include line is held to it. A
# violation of each kind is planted in a copy and must be found.
set -u
cd "$(dirname "$0")/../.." || exit 1
# ROOM: the rooms it may include besides itself. `trainer` is the flat part of seal/, `programs` are the mains in the
# root, `workshop` is dev/ but for the emulator. Nobody but the workshop includes the workshop.
rooms='
base:       -
rows:       base tokenizer
trainer:    rows base tokenizer kernels
run:        trainer rows base tokenizer kernels
commands:   run trainer rows base tokenizer kernels
programs:   commands run trainer rows base tokenizer kernels
data:       rows base tokenizer
tokenizer:  -
kernels:    -
emulator:   -
workshop:   programs commands run trainer rows base tokenizer kernels data emulator
'
# FILE ROOM: ranks are part of base and send what is in device memory.
exceptions='
seal/base/ranks.h kernels
'
# check FOLDER: a line for each #include that the table does not allow; status 1 where there is one.
check() {
    (cd "$1" && find . -name .git -prune -o -path ./build -prune -o \( -name '*.c' -o -name '*.h' -o -name '*.cu' -o \
        -name '*.cpp' \) -print |
        sed 's|^\./||' | sort >"$work/files" &&
        xargs grep -HoE '^[ 	]*#[ 	]*include[ 	]*"[^"]+"' <"$work/files" >"$work/includes"
        awk -v rooms="$rooms" -v exceptions="$exceptions" '
            function room(file) {
                if (file ~ /^seal\/(base|rows|run|commands)\//) { split(file, part, "/"); return part[2] }
                if (file ~ /^seal\//) return "trainer"
                if (file ~ /^seal_kernels\//) return "kernels"
                if (file ~ /^(tokenizer|data)\//) { split(file, part, "/"); return part[1] }
                if (file ~ /^dev\/cpu\// && file !~ /^dev\/cpu\/(test_|bench)/) return "emulator"
                return file ~ /^dev\/|^test_/ ? "workshop" : "programs"
            }
            function plain(path) { while (sub(/[^\/]+\/\.\.\//, "", path)) {} return path }
            BEGIN {
                n = split(rooms, line, "\n")
                for (i = 1; i <= n; i++) {
                    m = split(line[i], word, /[: ]+/); for (j = 2; j <= m; j++) may[word[1], word[j]] = 1 }
                n = split(exceptions, line, "\n")
                for (i = 1; i <= n; i++) excepted[line[i]] = 1
                # where the compiler looks, after the folder of the file itself
                n_folders = split("seal_kernels/ seal/ tokenizer/ data/ dev/test/ dev/kernels/ dev/cpu/include/ dev/reference/", folder, " ")
            }
            FNR == NR { there[$0] = 1; next }
            {
                file = $0; sub(/:.*/, "", file); name = $0; sub(/^[^"]*"/, "", name); sub(/"$/, "", name)
                own = file; if (!sub(/[^\/]*$/, "", own)) own = ""
                target = plain(own name)
                for (i = 1; i <= n_folders && !(target in there); i++) target = plain(folder[i] name)
                if (!(target in there)) next  # a header of the system, in quotes
                from = room(file); to = room(target)
                if (from == to || (from, to) in may || (file " " to) in excepted) next
                print file " (" from ") includes " target " (" to ")"; bad = 1
            }
            END { exit bad }' "$work/files" "$work/includes")
}

failed=0
ok() { echo "ok $1"; }
not_ok() { echo "not ok $1"; failed=1; }
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
if found=$(check "$PWD"); then
    ok "arrows between rooms point one way"
else
    not_ok "arrows between rooms point one way"; sed 's/^/# /' <<<"$found"
fi

mkdir "$work/copy"
xargs cp --parents -t "$work/copy" <"$work/files"
planted() {  # NAME FILE INCLUDE
    cp "$work/copy/$2" "$work/kept"
    echo "#include \"$3\"" >>"$work/copy/$2"
    if found=$(check "$work/copy") || ! grep -qF "$2 (" <<<"$found"; then not_ok "found: $1"; else ok "found: $1"; fi
    mv "$work/kept" "$work/copy/$2"
}
planted "base looks up at rows" seal/base/file.c rows/tokens.h
planted "rows look up at the trainer" seal/rows/tokens.c trainer.h
planted "the trainer looks up at run" seal/trainer.cu run/run.h
planted "run looks up at commands" seal/run/run.cu commands/select.h
planted "the tokenizer knows of seal" tokenizer/bpe.c base/error.h
planted "a kernel knows of seal" seal_kernels/gelu.cu base/error.h
planted "a command includes a header of the tests" seal/commands/judge.cu golden.h
planted "the data programs include a header of the tests" data/mix_main.c scratch.h
planted "a program includes a header of dev/kernels" train_seal.cu harness.h
planted "a header includes one of the tests by its path" seal/trainer.h ../dev/test/scratch.h
exit $failed
