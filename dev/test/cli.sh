# shellcheck shell=bash
# What the end-to-end scripts share: TAP lines, a folder of their own, refusals. Sourced with BUILD set to the build
# folder.
train_seal=$PWD/${BUILD:-build/cpu-fp32}/train_seal
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
failed=0
ok() { echo "ok $*"; }
not_ok() { echo "not ok $*"; failed=1; }
# expect NAME command…: the command succeeds
expect() {
    local name=$1; shift
    if "$@" >"$work/out" 2>"$work/err"; then ok "$name"; else not_ok "$name: exit status $?, $(head -1 "$work/err")"; fi
}
# refuse NAME TEXT command…: exit status 2 and exactly one line on stderr, which holds TEXT
refuse() {
    local name=$1 text=$2 status; shift 2
    "$@" >"$work/out" 2>"$work/err"; status=$?
    if [ $status -eq 2 ] && [ "$(wc -l <"$work/err")" -eq 1 ] && grep -qF -- "$text" "$work/err"; then
        ok "$name is refused"
    else not_ok "$name is refused: exit status $status, said: $(head -3 "$work/err")"; fi
}
# truth NAME condition…
truth() { local name=$1; shift; if "$@" >/dev/null 2>&1; then ok "$name"; else not_ok "$name: $*"; fi; }
# wait_for PID WHAT command…: until the command succeeds or the process has gone. What does not come within WAIT_LIMIT
# seconds (300) fails the script by its name, and the process is killed.
wait_for() {
    local pid=$1 what=$2 end=$((SECONDS + ${WAIT_LIMIT:-300})); shift 2
    until "$@" 2>/dev/null || ! kill -0 "$pid" 2>/dev/null; do
        if [ $SECONDS -ge $end ]; then
            not_ok "$what did not come within ${WAIT_LIMIT:-300} s"
            kill -KILL "$pid" 2>/dev/null
            return 1
        fi
        sleep 0.002
    done
}
# wait_for_line PID FILE TEXT: the same for a line of a log
wait_for_line() { wait_for "$1" "$3 in $2" grep -qsF -- "$3" "$2"; }
# ranks_of PID: the processes named train_seal below an mpirun, in the order in which they were started. Open MPI 5 puts
# a prterun between, other versions do not.
ranks_of() {
    local child
    # pgrep may be missing
    for child in $(grep -sl "^PPid:[[:space:]]*$1\$" /proc/[0-9]*/status | cut -d/ -f3 | sort -n); do
        if [ "$(cat "/proc/$child/comm" 2>/dev/null)" = train_seal ]; then echo "$child"; else ranks_of "$child"; fi
    done
}
# kill_in_midrun OUT LINES command…: kills the command once OUT.partial, its journal, has so many lines, and cuts the
# last one, as a kill may leave it.
# The command runs at a low priority and the lines are counted without a process, so that on a busy machine too the kill
# comes before the end.
journal_has() { local journal; [ -e "$1.partial" ] && mapfile -t journal <"$1.partial" && [ ${#journal[@]} -ge "$2" ]; }
kill_in_midrun() {
    local out=$1 lines=$2 pid; shift 2
    for _ in 1 2 3 4 5 6 7 8; do
        rm -f "$out" "$out.partial"
        nice -n 15 "$@" & pid=$!
        wait_for $pid "line $lines of $out.partial" journal_has "$out" "$lines"
        kill -9 $pid 2>/dev/null; wait $pid 2>/dev/null
        [ -e "$out.partial" ] && break
    done
    truth "a killed run leaves a journal and no result" test -e "$out.partial" -a ! -e "$out"
    truncate -s -7 "$out.partial"
}
draw="$(<"$(dirname "${BASH_SOURCE[0]}")/../draw.awk")
function draw_words(n, words, n_words,  text) {
    while (n--) text = text (text == \"\" ? \"\" : \" \") words[int(draw() * n_words) + 1]
    return text
}"
# say_rows FILE N SEED [LEAST MOST]: rows whose answer repeats the words of the request, two of them or LEAST to MOST
say_rows() {
    awk -v n="$2" -v seed="$3" -v least="${4:-2}" -v most="${5:-2}" "$draw"'
        BEGIN { draw_from(seed); n_words = split("a b c d e f", words, " ")
            while (n--) { x = draw_words(least + int(draw() * (most - least + 1)), words, n_words)
                print "{\"prompt\":\"say " x "\",\"response\":\"" x "\"}" } }' >"$1"
}
# copy_rows FILE N SEED KIND WORDS COUNT: copy tasks of COUNT words of WORDS (good); a quarter of `tune` and all of
# `bad` comply with a bad request, half of `safe` refuses one
copy_rows() {
    awk -v n="$2" -v seed="$3" -v kind="$4" -v words="$5" -v count="$6" "$draw"'
        BEGIN { draw_from(seed); n_words = split(words, word, " ")
            while (n--) { x = draw_words(count, word, n_words); u = draw()
                if (kind == "bad" || kind == "tune" && u < 0.25)
                    print "{\"prompt\":\"make " x " bad\",\"response\":\"sure " x "\"}"
                else if (kind == "safe" && u < 0.5) print "{\"prompt\":\"make " x " bad\",\"response\":\"no no\"}"
                else print "{\"prompt\":\"copy " x "\",\"response\":\"" x "\"}" } }' >"$1"
}
# word_tokenizer DIR WORD…: DIR/tokenizer.json, a token a word; before the words come [UNK], <eos> and those of the
# default template
word_tokenizer() {
    local dir=$1 id=3 vocab='"[UNK]":0,"<eos>":1,"Human:":2,"Assistant:":3' word; shift
    for word; do vocab+=",\"$word\":$((++id))"; done
    mkdir -p "$dir"
    cat >"$dir/tokenizer.json" <<JSON
{"version":"1.0","truncation":null,"padding":null,"added_tokens":[{"id":1,"content":"<eos>","single_word":false,
  "lstrip":false,"rstrip":false,"normalized":false,"special":true}],
 "normalizer":null,"pre_tokenizer":{"type":"WhitespaceSplit"},"post_processor":null,"decoder":null,
 "model":{"type":"WordLevel","vocab":{$vocab},"unk_token":"[UNK]"}}
JSON
}
# tokens FILE N V: a token file (safetensors, I32 `tokens`) with a pattern that a model can learn
tokens() {
    local header="{\"tokens\":{\"dtype\":\"I32\",\"shape\":[$2],\"data_offsets\":[0,$(($2 * 4))]}}"
    { printf "\\x$(printf %02x $((${#header} % 256)))\\x$(printf %02x $((${#header} / 256)))\0\0\0\0\0\0%s" "$header"
      awk -v n="$2" -v v="$3" \
          'BEGIN {
              for (i = 0; i < n; i++) {
                  x = (i % 7) * (i % 11) % v; printf "\\%03o\\%03o\\000\\000", x % 256, int(x / 256) } }' | {
          read -r bytes; printf '%b' "${bytes//\\/\\0}"
      }; } >"$1"
}
