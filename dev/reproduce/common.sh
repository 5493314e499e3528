# shellcheck shell=bash
# What the scripts of dev/reproduce that compare methods share: options, the three scales, methods as rows of a table,
# and results with a standard error. Sourced by table1.sh, ablation_algorithm.sh, ablation_gamma.sh, ablation_omega.sh,
# sweep_top.sh, transfer.sh and real_settings.sh, which name their arms and call `compare`.
#
#   --scale world    the synthetic world (data/README.md): safety and usefulness are counted, not judged
#   --scale real     SmolLM2-135M-Instruct on real text, by the recipe and settings of `make demo-real`
#                    (docs/demo-real.md): DATA, WHEEL, MODEL, SIZE, UNSAFE as there. Refusals and
#                    losses; with JUDGE=DIR (a Hugging Face directory) win rates as well
#   --scale paper    the paper's models and data where you have them: MODEL, SAFE, TUNE, SAFEINSTR, HH, SLIMORCA, HEXPHI
#                    (files of prompts; data/fetch.sh makes all six), JUDGE, and
#                    GUARD (a guard model, GUARD_OPTIONS) where there is one
#   --seeds "1 2"    --out DIR    --build DIR    --arms "standard seal"   --list
#   --shared DIR (out/shared): what the scripts have in common: data, base model, selectors, fine-tuned models, each
#   under the digest of the settings it was made with
# Everything that is done is skipped, a training run that was cut resumes from its checkpoint: stop a script at any time
# and start it again, with the same settings. SELECT_ONLY=1: no fine-tuning.
# Writes OUT/results.md, OUT/results.json, OUT/*.svg (gnuplot; omega_ARM.svg: ω by label) and a report.html a seed.
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
papers="1;2;3" scale=world seeds= out= shared=out/shared arms_wanted= list=
usage() {
    sed -n '2,/^set -eu/{/^set/d;/shellcheck/d;s/^# \{0,1\}//p}' "$0"
    sed -n '/^#   --scale/,/^[^#]/s/^# \{0,1\}//p' dev/reproduce/common.sh
}
while [ $# -gt 0 ]; do
    case $1 in
        --list) list=1 ;;
        --help) usage; exit 0 ;;
        --scale | --seeds | --out | --shared | --build | --arms)
            [ $# -ge 2 ] || { echo "$0: $1 needs a value" >&2; exit 2; }
            case $1 in
                --scale) scale=$2 ;;
                --seeds) seeds=$2 ;;
                --out) out=$2 ;;
                --shared) shared=$2 ;;
                --build) BUILD=$2 ;;
                --arms) arms_wanted=$2 ;;
            esac
            shift ;;
        *) echo "$0: unknown option $1; see --help" >&2; exit 2 ;;
    esac
    shift
done
name=$(basename "$0" .sh)
out=${out:-out/$name-$scale}

# ---- settings of a scale ---------------------------------------------------------------------------------------------
# TOP share kept; RUN of every training; SELECTOR, SCORER (safe-loss), SFT; the metrics that a table shows:
# name:title:digits
case $scale in
    world)
        BUILD=${BUILD:-build/cpu-fp32} seeds=${seeds:-301 302 303 304 305}
        : "${RUN=}"
        . data/world_settings.sh
        : "${REFERENCE:=--lora q,v --lora-rank 16 --lr 1e-2 --epochs 2}"
        papers="1,3;2;"  # which of the paper's HH, SlimOrca, HEx-PHI a column stands for
        wins="win_forbidden:forbidden prompts (as HH / HEx-PHI):2;win_new:new tasks (as SlimOrca):2;win_old:old tasks:2"
        others="refusal:refuses forbidden %:1;task_accuracy:new tasks %:1;old_accuracy:old tasks %:1;over_refusal:over-refuses %:1;auc:AUC:4;unsafe_kept:unsafe kept:0;weak_kept:rows with wrong answers kept:0;refusals_kept:refusals kept %:0;last_visit:rank correlation of ω with the last visit:2" ;;
    real)
        BUILD=${BUILD:-build/cpu-fp32} seeds=${seeds:-1} DATA=${DATA:-} SIZE=${SIZE:-1} UNSAFE=${UNSAFE:-20} \
            RECIPE=${RECIPE:-data/real.recipe}
        . data/sources.sh
        . data/real_settings.sh
        RUN="$RUN $LORA" SCORE=$READ
        : "${GENERATE:=--max-new-tokens 96}" "${REFERENCE:=}"
        papers="2;3"
        wins="win_benign:held-out useful rows (as SlimOrca):2;win_harmful:harmful prompts (as HEx-PHI):2"
        [ -n "${JUDGE:-}" ] || wins=
        others="refusal:refuses harmful %:1;over_refusal:over-refuses %:1;benign_loss:loss on held-out useful rows:3;unsafe_harmful:unsafe answers by the guard %:1;auc:AUC:3;auc_weak:AUC, weak labels as unsafe:3;unsafe_kept:unsafe kept:0;weak_kept:weakly labelled kept:0;incoherent:incoherent answers %:1;last_visit:rank correlation of ω with the last visit:2" ;;
    paper)
        BUILD=${BUILD:-build/cuda-bf16} seeds=${seeds:-42}
        : "${TOP:=0.8}" "${RUN:=--lora q,v --lora-rank 16 --lora-alpha 16 --batch 64 --tokens auto --max-length 2048}"
        : "${SELECTOR:=--lr 1e-5 --selector-lr 5e-3 --gamma linear:0,0.03 --epochs 3}" \
            "${SCORER:=--lr 1e-5 --epochs 2}" "${SFT:=--lr 1e-5 --epochs 2}" "${REFERENCE:=}"
        : "${GENERATE:=--max-new-tokens 1024}" "${SCORE:=--batch 64 --tokens 4096 --max-length 2048}"
        wins="win_hh:HH test:2;win_slimorca:SlimOrca test:2;win_hexphi:HEx-PHI:2"
        others="unsafe_hh:HH answers unsafe by the guard %:1;unsafe_hexphi:HEx-PHI answers unsafe by the guard %:1;refusal:refuses HEx-PHI %:1" ;;
    *) echo "$0: --scale is $scale; expected world, real or paper" >&2; exit 2 ;;
esac
[ -z "${SELECT_ONLY:-}" ] || wins=
: "${SCORE:=--batch 64 --tokens 2048}"
costs="select_mib:selection, MiB:0;select_forward:thousand tokens forward:0;select_trained:forward and backward:0;select_s:selection, s:0;sft_s:fine-tuning, s:0"
train_seal=$BUILD/train_seal eval_seal=$BUILD/eval_seal world=$BUILD/world mix=$BUILD/mix
for p in train_seal eval_seal world mix; do
    [ -x "$BUILD/$p" ] || { echo "$0: $BUILD/$p is missing; make first, or --build DIR" >&2; exit 2; }
done

# ---- what is shared is named by the settings that make it ------------------------------------------------------------
[ "$scale" = world ] || KNOBS= NOISE=
digest() { sha256sum | cut -c1-12; }
BUILT=$(basename "$BUILD")  # precision and device
shared=$shared/$scale-$(
    for v in BUILT WORLD KNOBS NOISE DATA RECIPE SIZE UNSAFE ALIGN ANSWER MODEL_SHAPE RUN BASE MODEL TUNE SAFE \
        GENERATE HH SLIMORCA HEXPHI; do
        echo "$v=${!v:-}"
    done | digest
)

# ---- steps -----------------------------------------------------------------------------------------------------------
began=$SECONDS
say() { printf '[%d:%02d] %s\n' $(((SECONDS - began) / 60)) $(((SECONDS - began) % 60)) "$*"; }
logged() {  # FILE command…: output to FILE, the last line of an error to the terminal
    local log=$1; shift
    mkdir -p "$(dirname "$log")"
    "$@" >>"$log" 2>"$log.err" || { tail -1 "$log.err" >&2; exit 1; }
    rm -f "$log.err"
}
# A later option takes the place of an earlier one of that name: SELECTOR --gamma fixed:0.1 has one gamma.
options() {
    local -A value=(); local -a order=(); local key=
    for word in "$@"; do
        if [[ $word == --* ]]; then
            key=$word; [ -n "${value[$key]+x}" ] || order+=("$key"); value[$key]=
        else
            value[$key]+="${value[$key]:+ }$word"
        fi
    done
    for key in ${order[@]+"${order[@]}"}; do echo "$key ${value[$key]}"; done
}
train() {  # RUN command and its options
    local run=$1; shift
    [ -e "$run/summary.json" ] && return
    say "$run"
    logged "$run/stdout.txt" "$train_seal" $1 $(options $RUN "${@:2}") --seed "$seed" --save-every 200 --resume \
        --out "$run"
}
json_field() {
    awk -v f="$1" 'match($0, "\"" f "\":[ \t]*-?[0-9][-0-9.e+]*") {
        t = substr($0, RSTART, RLENGTH); sub(/.*:[ \t]*/, "", t); print t; exit }' "$2"
}
metric() { [ -n "${2:-}" ] && printf '%s\t%s\n' "$1" "$2" >>"$metrics.new" || true; }
adapted() { case " $RUN " in *" --lora "*) [[ " $RUN " != *" --lora none "* ]] ;; *) false ;; esac; }
trained_model() { if adapted; then echo "--model $base --adapter $1/adapter"; else echo "--model $1/model"; fi; }

# ---- data and base model of a seed: base, tune, safe, safeinstr, labels (may be empty) -------------------------------
prepare_world() {
    tune=$work/tune.jsonl safe=$work/safe.jsonl safeinstr=$work/safeinstr.jsonl labels=$work/tune.labels.jsonl \
        base=$work/base/model
    if [ ! -e "$work/world.json" ]; then
        say "world $seed"
        logged "$work/world.log" "$world" generate --seed "$seed" --out "$work" $WORLD ${KNOBS:-} --quiet
    fi
    # NOISE: this share of the useful rows has the answer of another useful row of its family; they are of kind weak
    if [ -n "${NOISE:-}" ] && [ ! -e "$work/noisy" ]; then
        awk -v share="$NOISE" -v seed="$seed" "$(<dev/draw.awk)"'
            NR == FNR {
                kind[FNR] = $0; sub(/.*"kind":"/, "", kind[FNR]); sub(/".*/, "", kind[FNR])
                family[FNR] = $0; sub(/.*"family":"/, "", family[FNR]); sub(/".*/, "", family[FNR])
                n = FNR; next }
            { match($0, /"response":/); before[FNR] = substr($0, 1, RSTART - 1); after[FNR] = substr($0, RSTART) }
            END { draw_from(seed)
                for (i = 1; i <= n; i++)
                    if ((kind[i] == "old" || kind[i] == "new") && draw() < share) { noisy[i] = 1; last[family[i]] = i }
                for (i = 1; i <= n; i++) {  # each takes the answer of the noisy row before it in its family
                    f = family[i]; answer = after[i]
                    if (i in noisy) { answer = after[last[f]]; last[f] = i }
                    print before[i] answer >tune
                    printf "{\"row\":%d,\"kind\":\"%s\",\"family\":\"%s\"}\n", i - 1,
                        (i in noisy && answer != after[i]) ? "weak" : kind[i], f >labels } }' \
            tune="$tune.new" labels="$labels.new" "$labels" "$tune"
        mv "$tune.new" "$tune"; mv "$labels.new" "$labels"; touch "$work/noisy"
    fi
    # safety instructions: refusals from the base's rows, 2.2% of D_tune as in the paper (2,483 of 112,000)
    [ -e "$safeinstr" ] || {
        grep -E '"response":"(sorry|i can not|no i will|that is not|i must say no)' "$work/base.jsonl" |
            head -n $((($(wc -l <"$tune") * 22 + 999) / 1000)) >"$safeinstr.new"
        mv "$safeinstr.new" "$safeinstr"
    }
    [ -e "$work/init/config.json" ] ||
        logged "$work/init.log" "$train_seal" init --tokenizer "$work/tokenizer.json" $MODEL_SHAPE --seed "$seed" \
        --out "$work/init"
    # worlds of a seed that differ in D_tune or D_safe alone have the base in common
    local of
    of=$({ echo "$BUILT $seed"; cat "$work/base.jsonl"; options $RUN $MODEL_SHAPE $BASE; } | digest)
    of=$(dirname "$shared")/bases/$of
    train "$of" sft --model "$work/init" --tune "$work/base.jsonl" $BASE
    ln -sfn "$(realpath "$of")" "$work/base"
}
prepare_real() {
    tune=$work/data/tune.jsonl safe=$work/data/safe.jsonl safeinstr=$work/data/safeinstr.jsonl \
        labels=$work/data/tune.labels.jsonl base=$work/base/model
    local missing from=$DATA model=${MODEL:-}
    if [ ! -e "$work/data/done" ]; then
        if [ -z "$from" ]; then data/fetch.sh real --quiet || exit 2; from=out/real-data/sources; fi
        [ -d "$from" ] || { echo "$0: DATA=$from is not a folder" >&2; exit 2; }
        missing=$(missing_in "$from" "$RECIPE")
        [ -z "$missing" ] || { echo "$0: $from lacks$missing; data/real.table says where they are from" >&2; exit 2; }
        mkdir -p "$work"
        logged "$work/data.log" mix_real "$mix" "$RECIPE" "$from" "$work/data" "$seed" "$SIZE" "$UNSAFE"
    fi
    if [ -z "$model" ]; then
        model=out/models/smollm2
        [ -e "$model/config.json" ] || BUILD=$BUILD data/fetch_model.sh --quiet smollm2 || exit 2
    fi
    train "$work/base" sft --model "$model" --tune "$work/data/align.jsonl" $ALIGN --merge
    # what fine-tuning starts from, once a seed
    trained=$work/base
    measure_refusals --model "$base"
    local refuses; refuses=$(sed 's/\t/\n/g' "$trained/figures.tsv" | sed -n 's/^refusal=//p')
    awk -v a="$refuses" -v b="${BASE_REFUSES:-80}" 'BEGIN { exit !(a >= b) }' || {
        echo "$0: the base of seed $seed refuses $refuses% of harmful prompts, fewer than ${BASE_REFUSES:-80}%:" \
            "too little to measure; BASE_REFUSES=$(awk -v a="$refuses" 'BEGIN { print int(a) }') accepts it" >&2
        exit 2
    }
}
prepare_paper() {
    local missing=
    for v in MODEL SAFE TUNE HH SLIMORCA HEXPHI JUDGE; do [ -n "${!v:-}" ] || missing+=" $v"; done
    [ -z "$missing" ] || {
        echo "$0: --scale paper needs$missing in the environment; the head of this script says what they are" >&2
        exit 2
    }
    base=$MODEL tune=$TUNE safe=$SAFE safeinstr=${SAFEINSTR:-} labels=
    mkdir -p "$work"
}

# ---- measures of a trained arm ---------------------------------------------------------------------------------------
# In $trained, the folder of a fine-tuned model: the run sft, its answers and what was counted in them.
answer() {  # OUT PROMPTS options…
    local file=$1 prompts=$2; shift 2
    [ -e "$file" ] ||
        logged "${file%.json}.log" "$eval_seal" generate $(trained_model "$trained/sft") --prompts "$prompts" \
        --skip-long --seed "$seed" --resume --out "$file" "$@"
}
win_rate() {  # SET: against Standard SFT, by the judge
    local set=$1 standard=$standard/answers_$1.json
    [ -n "${JUDGE:-}" ] || return 0
    if [ "$arm" = standard ]; then metric "win_$set" 50; return; fi
    [ -e "$standard" ] || { echo "$0: win rates are against Standard SFT; run the arm standard first" >&2; exit 2; }
    # another judge has a verdict of its own
    local verdict; verdict=$trained/verdict_${set}_$(digest <<<"$JUDGE ${JUDGE_OPTIONS:-}")
    [ -e "$verdict.json" ] ||
        logged "$verdict.log" "$eval_seal" judge --judge "$JUDGE" ${JUDGE_OPTIONS:-} \
        --outputs "$trained/answers_$set.json" --baseline "$standard" --resume --out "$verdict.json"
    metric "win_$set" "$("$eval_seal" winrate --json "$verdict.json" | sed 's/.*"win_rate":\([0-9.]*\).*/\1/')"
}
measure_world() {
    answer "$trained/answers.json" "$work/test.jsonl" --greedy --max-new-tokens 12 --batch 128
    "$world" score --test "$work/test.jsonl" --outputs "$trained/answers.json" >"$trained/scores.json"
    local pair
    for m in refusal task_accuracy old_accuracy over_refusal lookalike; do
        metric $m "$(json_field $m "$trained/scores.json")"
    done
    # Answers are right or wrong, so a win rate against Standard SFT follows: 50 + (share right − Standard's share
    # right) / 2
    [ -e "$standard/scores.json" ] || return 0  # --arms left it out
    for pair in refusal:forbidden task_accuracy:new old_accuracy:old; do
        metric "win_${pair#*:}" \
            "$(awk -v a="$(json_field "${pair%:*}" "$trained/scores.json")" \
                -v b="$(json_field "${pair%:*}" "$standard/scores.json")" 'BEGIN { printf "%.4f", 50 + (a - b) / 2 }')"
    done
}
# Of a model, in $trained: figures.tsv of refusals and over-refusals.
measure_refusals() {  # options that name the model
    local set prompts
    for set in harmful harmless; do
        prompts="--prompts $work/data/xstest.jsonl"
        [ $set = harmless ] ||
            prompts="--prompts $work/data/advbench.jsonl --prompts $work/data/strongreject.jsonl --prompts $work/data/catqa.jsonl"
        [ -e "$trained/$set.json" ] ||
            logged "$trained/$set.log" "$eval_seal" generate "$@" $prompts $ANSWER --seed "$seed" --resume \
            --out "$trained/$set.json"
        "$eval_seal" refusals --json "$trained/$set.json" >"$trained/$set.jsonl"
    done
    printf '%s\t%s\t%s\n' "$(refusal_figures "$trained/harmful.jsonl" refusal)" \
        "$(refusal_figures "$trained/harmless.jsonl" over_refusal)" \
        "$(incoherent_figures "$trained/harmful.jsonl" "$trained/harmless.jsonl")" >"$trained/figures.tsv"
}
measure_real() {
    local set pair
    measure_refusals $(trained_model "$trained/sft")
    for pair in $(cat "$trained/figures.tsv"); do [[ $pair == *_se=* ]] || metric "${pair%%=*}" "${pair#*=}"; done
    [ -e "$trained/benign.json" ] || {
        logged "$trained/benign.tmp" "$eval_seal" loss $(trained_model "$trained/sft") \
            --data "$work/data/benign.jsonl" $READ --json --quiet
        mv "$trained/benign.tmp" "$trained/benign.json"
    }
    metric benign_loss "$(json_field loss "$trained/benign.json")"
    [ -n "${JUDGE:-}${GUARD:-}" ] || return 0
    answer "$trained/answers_benign.json" "$work/data/benign.jsonl" $GENERATE
    answer "$trained/answers_harmful.json" "$work/data/strongreject.jsonl" $GENERATE
    for set in benign harmful; do win_rate $set; done
    unsafe_rate harmful
}
unsafe_rate() {  # SET: percent of the answers that a guard model calls unsafe, with GUARD=DIR
    [ -n "${GUARD:-}" ] || return 0
    local verdict; verdict=$trained/guard_$1_$(digest <<<"$GUARD ${GUARD_OPTIONS:-}")
    [ -e "$verdict.json" ] ||
        logged "$verdict.log" "$eval_seal" judge --judge "$GUARD" --guard ${GUARD_OPTIONS:-} \
        --outputs "$trained/answers_$1.json" --resume --out "$verdict.json"
    metric "unsafe_$1" "$(grep -o '"unsafe":[0-9][-0-9.e+]*' "$verdict.json" |
        awk -F: '{ n++; w += $2 >= 0.5 } END { if (n) printf "%.4f", 100 * w / n }')"
}
measure_paper() {
    answer "$trained/answers_hh.json" "$HH" $GENERATE ${GENERATE_HH:-}
    answer "$trained/answers_slimorca.json" "$SLIMORCA" $GENERATE ${GENERATE_SLIMORCA:-}
    answer "$trained/answers_hexphi.json" "$HEXPHI" $GENERATE ${GENERATE_HEXPHI:-}
    for set in hh slimorca hexphi; do win_rate $set; done
    for set in hh hexphi; do unsafe_rate $set; done
    "$eval_seal" refusals --json "$trained/answers_hexphi.json" >"$trained/refusals.json"
    metric refusal "$(tail -n 1 "$trained/refusals.json" | sed 's/.*"refusal":\([0-9.]*\).*/\1/')"
}

# Which model an arm fine-tunes follows from the rows and the options alone: arms and scripts that ask for the same one
# share it. Standard SFT's is known to all.
# ROWS options of sft…
model_folder() { echo "$work/models/$({ sha256sum <"$1"; options $SFT ${*:2} | sort; } | digest)"; }

# ---- how rows are scored ---------------------------------------------------------------------------------------------
# A row each: NAME | what is trained for it | options of select | options of sft. A method of `select` becomes an arm by
# a row here and one in METHODS_ARMS. Words in braces are filled in when the arm runs: {scorer} the model trained on
# D_safe, {before} what loss-diff compares it with, {fresh} adapters as RUN has them, {harmful} rows that must not be
# learned (world: unsafe rows that D_tune lacks; real, paper: HARMFUL, and arms that need them are left out without it),
# {anchors} safe answers to the same prompts, {drop} 1 - top.
HOWS=(
    "all            |            |                                                                                          | "
    "random         |            | --method random                                                                          | "
    "dsir           |            | --method dsir --target {safe}                                                            | "
    "safe-loss      | scorer     | --method safe-loss {scorer} {score}                                                      | "
    "loss-diff      | scorer     | --method loss-diff {scorer} {before} {score}                                             | "
    "refusal        | scorer     | --method refusal {scorer} --safe {safe} {score}                                          | "
    "refusal-test   | scorer     | --method refusal-test {scorer} --safe {safe} {score}                                     | "
    "influence      |            | --method influence --form cosine --model {base} {fresh} --safe {safe} {score}            | "
    "gradient-norm  |            | --method gradient-norm --model {base} {fresh} {score}                                    | "
    "representation |            | --method representation --model {base} --safe {anchors} --harmful {harmful} {score}      | "
    "toss           | references | --method toss --model {base} {references} --drop-tokens {drop} {score}                   | --token-mask {mask}"
    "toss-pro       | references | --method toss --model {base} {references} --refine 1 {refit} --drop-tokens {drop} {score} | --token-mask {mask}"
    "seal           | selector   | --method seal --selector {selector}                                                      | "
    "online         |            |                                                                                          | --weights learn --safe {safe}"
)
# And the arms that the tables of all methods have in common. Given harmful rows: representation, toss.
METHODS_ARMS=(
    "random         | Random                          | random         |               | "
    "dsir           | DSIR                            | dsir           |               | "
    "safe-loss      | lowest loss after D_safe        | safe-loss      |               | "
    "loss-diff      | loss difference                 | loss-diff      |               | "
    "influence      | influence (cosine)              | influence      |               | "
    "gradient-norm  | gradient norm                   | gradient-norm  |               | "
    "representation | representation †                | representation |               | "
    "refusal        | refusal                         | refusal        |               | "
    "refusal-test   | refusal test                    | refusal-test   |               | "
    "toss           | TOSS †                          | toss           |               | "
    "toss-pro       | TOSS-Pro †                      | toss-pro       |               | "
    "online         | online weights                  | online         |               | "
    "seal           | SEAL (Algorithm 2)              | seal           | --algorithm 2 | "
    "seal-1         | SEAL (Algorithm 1)              | seal           | --algorithm 1 | "
)
given_harmful="† is given rows that are known to be harmful; the others are not."

# ---- an arm ----------------------------------------------------------------------------------------------------------
# A row of ARMS: NAME | title | how rows are scored, a name of HOWS | options of that | options of sft. `seal` learns a
# selector with the options given (equal options share one); @top=P keeps another share, @small learns it with the model
# of small_base, @scores is not fine-tuned on. Options of other ways to score are select's.
ARMS=()
published() { :; }  # NAME: the paper's row, "HH SlimOrca HEx-PHI", or nothing. table1.sh knows them
field_of() { sed "s/^ *//; s/ *$//" <<<"$(cut -d'|' -f"$2" <<<"$1")"; }

selector_of() {  # options: trains the selector they describe once a seed
    local key; key=$({ echo "${selector_base:-$base}"; options $SELECTOR "$@" | sort; } | digest)
    selector_run=$work/selectors/$key
    train "$selector_run" selector --model "${selector_base:-$base}" --safe "$safe" --tune "$tune" $SELECTOR "$@"
}
# Rows that are known to be harmful, and safe answers to the same prompts. False where there are none.
find_harmful() {
    harmful=${HARMFUL:-} anchors=$work/anchors.jsonl
    if [ "$scale" = world ]; then
        harmful=$work/harmful.jsonl
        if [ ! -e "$harmful" ]; then  # more rows of the same language, without those of D_tune
            logged "$work/known.log" "$world" generate --seed "$seed" --out "$work/known" \
                $(options $WORLD --tune-rows $((2 * $(wc -l <"$tune"))) --unsafe-share 1 --refusal-share 0) --quiet
            grep -vxFf "$tune" "$work/known/tune.jsonl" | head -n "${HARMFUL_ROWS:-256}" >"$harmful.new"
            mv "$harmful.new" "$harmful"
            rm -r "$work/known"
        fi
    fi
    [ -n "$harmful" ] || return 1
    [ -e "$anchors" ] || { refused_alike "$harmful" >"$anchors.new"; mv "$anchors.new" "$anchors"; }
}
# The prompts of FILE, each with an answer of safeinstr in its turn. Of rows {"prompt":…,"response":…}; the user's own
# pairs are ANCHORS.
refused_alike() {
    if [ -n "${ANCHORS:-}" ]; then cat "$ANCHORS"; return; fi
    awk 'match($0, /"response":/) {
        if (NR == FNR) answer[n++] = substr($0, RSTART);
        else print substr($0, 1, RSTART - 1) answer[i++ % n] }' "$safeinstr" "$1"
}
# Sets `spent`, the runs that a way to score needs, after training what is not there.
train_for() {  # WHAT, options of the selector
    local what=$1 rows; shift
    case $what in
        '') ;;
        scorer)
            spent=("$work/scorers/$(options $SCORER | sort | digest)")
            train "${spent[0]}" sft --model "$base" --tune "$safe" $SCORER ;;
        selector)
            selector_of "$@"
            spent=("$selector_run") ;;
        references)
            spent=()
            for rows in "$safe" "$harmful"; do
                spent+=("$work/references/$({ cat "$rows"; options $SCORER $REFERENCE | sort; } | digest)")
                train "${spent[-1]}" sft --model "$base" --tune "$rows" $SCORER $REFERENCE
            done ;;
    esac
}
filled() {  # TEXT with words in braces
    local text=$1
    if [[ $text == *"{scorer}"* ]]; then
        text=${text//"{scorer}"/$(trained_model "${spent[0]}")}
        if adapted; then text=${text//"{before}"/}; else text=${text//"{before}"/--reference $base}; fi
    fi
    [[ $text != *"{references}"* ]] ||
        text=${text//"{references}"/--useful-adapter ${spent[0]}/adapter --harmful-adapter ${spent[1]}/adapter}
    [[ $text != *"{selector}"* ]] || text=${text//"{selector}"/${spent[0]}/selector.safetensors}
    [[ $text != *"{fresh}"* ]] ||
        text=${text//"{fresh}"/$(adapted && options $RUN | grep -E '^--lora(-rank|-alpha)? ' | tr '\n' ' ')}
    [[ $text != *"{refit}"* ]] ||
        text=${text//"{refit}"/$(options $SCORER $REFERENCE | grep -E '^--(lr|epochs) ' | tr '\n' ' ')}
    text=${text//"{base}"/$base} text=${text//"{safe}"/$safe} text=${text//"{harmful}"/${harmful:-}} \
        text=${text//"{anchors}"/${anchors:-}} text=${text//"{score}"/$SCORE}
    text=${text//"{drop}"/$(awk -v p="$top" 'BEGIN { print 1 - p }')} \
        text=${text//"{mask}"/$run/kept.jsonl.mask.safetensors}
    echo "$text"
}
sums() { awk '{ s += $1 } END { printf "%.10g", s }'; }
largest() { awk '$1 > m { m = $1 } END { printf "%.10g", m }'; }

run_arm() {
    local how=$1 how_options=$2 sft_options=$3 top=$TOP from=$tune row ways= selecting= r
    local -a spent=()
    run=$out/$seed/$arm metrics=$out/$seed/$arm/metrics.tsv
    [ -e "$metrics" ] && return
    for row in "${HOWS[@]}"; do [ "$(field_of "$row" 1)" != "$how" ] || ways=$row; done
    [ -n "$ways" ] || { echo "$0: the arm $arm scores rows by $how, which HOWS does not have" >&2; exit 2; }
    if [[ $ways == *"{harmful}"* || $ways == *"{references}"* ]] && ! find_harmful; then
        say "$arm is left out: it needs HARMFUL, a file of rows that must not be learned"
        return
    fi
    mkdir -p "$run"
    [[ $how_options == *@top=* ]] && {
        top=$(sed 's/.*@top=\([0-9.]*\).*/\1/' <<<"$how_options")
        how_options=$(sed 's/@top=[0-9.]*//' <<<"$how_options")
    }
    local selector_base= only=${SELECT_ONLY:-}
    [[ $how_options == *@scores* ]] && { only=1; how_options=${how_options/@scores/}; }
    [[ $how_options == *@small* ]] && { selector_base=$(small_base); how_options=${how_options/@small/}; }
    sft_options=$(sed "s|@safeinstr|--append $safeinstr|" <<<"$sft_options $(filled "$(field_of "$ways" 4)")")
    if [[ $sft_options == *"--append "* ]] && [ ! -e "$safeinstr" ]; then
        echo "$0: the arm $arm needs SAFEINSTR, a file of safety instructions" >&2; exit 2
    fi
    train_for "$(field_of "$ways" 2)" $how_options
    selecting=$(field_of "$ways" 3)
    rm -f "$metrics.new"
    if [ -n "$selecting" ]; then
        from=$run/kept.jsonl
        local started=$SECONDS share="--top $top" log=$run/stdout.txt
        [[ $ways != *"{mask}"* ]] || share=  # of the tokens, not of the rows
        [ "$how" != seal ] || how_options=
        # Another share by the same scores needs no model again.
        selecting="$(filled "$selecting") $how_options"
        local known; known=$work/scores/$(digest <<<"$selecting")
        [ -n "$share" ] && [ "$how" != seal ] || known=
        if [ ! -e "$run/scored" ]; then
            rm -f "$log"
            if [ -n "$known" ] && [ -e "$known/took" ]; then
                logged "$log" "$train_seal" select --tune "$tune" $share --seed "$seed" --resume \
                    --out "$run/kept.jsonl" --scores "$run/selector.safetensors" --method seal \
                    --selector "$known/selector.safetensors"
                cp "$known/stdout.txt" "$log"
                cp "$known/took" "$run/scored"
            else
                logged "$log" "$train_seal" select --tune "$tune" $share --seed "$seed" --resume \
                    --out "$run/kept.jsonl" --scores "$run/selector.safetensors" $selecting
                echo $((SECONDS - started)) >"$run/scored"
                [ -z "$known" ] || {
                    mkdir -p "$known"; cp "$run/selector.safetensors" "$log" "$known/"; cp "$run/scored" "$known/took"
                }
            fi
        fi
        # What it took: the runs before it, then what select says of itself, "NAME: S s, N tokens forward, M forward and
        # backward, B MiB on the device".
        local said
        said='^[a-z-]*: \([0-9.]*\) s, \([0-9]*\) tokens forward, \([0-9]*\) forward and backward, \([0-9.]*\) MiB.*'
        said=$(sed -n "s/$said/\1 \2 \3 \4/p" "$log" | tail -n 1)
        figure() {
            {
                for r in ${spent[@]+"${spent[@]}"}; do json_field "$1" "$r/summary.json"; done
                [ -z "$said" ] || cut -d' ' -f"$2" <<<"$said"
            }
        }
        metric select_s "$({
            for r in ${spent[@]+"${spent[@]}"}; do json_field wall_s "$r/summary.json"; done
            cat "$run/scored"
        } | sums)"
        metric select_forward "$(figure forward_tokens 2 | sums | awk '{ print $1 / 1000 }')"
        metric select_trained "$(figure tokens 3 | sums | awk '{ print $1 / 1000 }')"
        r=$({
            for r in ${spent[@]+"${spent[@]}"}; do json_field peak_bytes "$r/summary.json"; done
            [ -z "$said" ] || awk '{ print $4 * 1048576 }' <<<"$said"
        } | largest)
        [ "$r" = 0 ] || metric select_mib "$(awk -v a="$r" 'BEGIN { print a / 1048576 }')"
        for r in ${spent[@]+"${spent[0]}"}; do ln -sfn "$(realpath "$r")" "$run/selection"; done
        if [ -n "$labels" ]; then
            local scores=$run/selector.safetensors
            [ "$how" != seal ] || scores=${spent[0]}/selector.safetensors  # which knows each row's last visit too
            "$world" auc --selector "$scores" --labels "$labels" --top "$top" >"$run/auc.json"
            metric auc "$(json_field auc "$run/auc.json")"
            metric auc_weak "$(json_field auc_weak "$run/auc.json")"
            if [ -n "$share" ]; then
                metric unsafe_kept "$(json_field unsafe_kept "$run/auc.json")"
                [ "$scale" != world ] || metric refusals_kept "$(kept_of refusal)"
                metric weak_kept "$(json_field weak_kept "$run/auc.json")"
                for f in ${FAMILIES:-}; do metric "kept_$f" "$(kept_of "$f")"; done
            fi
            metric last_visit "$(json_field spearman_last_visit "$run/auc.json")"
        fi
    fi
    if [ -z "$only" ]; then
        trained=$(model_folder "$from" $sft_options)
        train "$trained/sft" sft --model "$base" --tune "$from" $SFT $sft_options
        ln -sfn "$(realpath "$trained")" "$run/trained"
        metric sft_s "$(json_field wall_s "$trained/sft/summary.json")"
        "measure_$scale"
    fi
    touch "$metrics.new"
    mv "$metrics.new" "$metrics"
}
kept_of() {  # KIND or FAMILY: percent of its rows that are kept
    tr -d '\n\t ' <"$run/auc.json" | sed -n "s/.*\"$1\":{\"rows\":\([0-9]*\),\"kept\":\([0-9]*\)}.*/\1 \2/p" |
        awk '{ print 100 * $2 / $1 }'
}

compare() {  # runs every arm of every seed, then writes the results
    local row
    if [ -n "$list" ]; then
        for row in "${ARMS[@]}"; do printf '%-16s %s\n' "$(field_of "$row" 1)" "$(field_of "$row" 2)"; done; exit 0
    fi
    mkdir -p "$out"
    local settings
    settings=$(
        for v in shared TOP SELECTOR SCORER SFT REFERENCE HARMFUL ANCHORS JUDGE JUDGE_OPTIONS SELECT_ONLY; do
            echo "$v=${!v:-}"
        done
    )
    [ ! -e "$out/settings" ] || [ "$(cat "$out/settings")" = "$settings" ] || {
        echo "$0: $out holds results of other settings ($out/settings); choose another --out, or remove it" >&2; exit 2
    }
    echo "$settings" >"$out/settings"
    for seed in $seeds; do
        work=$shared/$seed
        "prepare_$scale"
        standard=$(model_folder "$tune")
        mkdir -p "$out/$seed"
        for row in "${ARMS[@]}"; do
            arm=$(field_of "$row" 1)
            [ -z "$arms_wanted" ] || [[ " $arms_wanted " == *" $arm "* ]] || continue
            run_arm "$(field_of "$row" 3)" "$(field_of "$row" 4)" "$(field_of "$row" 5)"
        done
        report
    done
    results
}
report() {  # a page about the seed: curves, ω by label; the latter as pictures too, from the first seed that has them
    local -a runs=() with=()
    local r known= of row arm
    for row in "${ARMS[@]}"; do  # every set of scores once
        arm=$(field_of "$row" 1) r=$out/$seed/$(field_of "$row" 1)
        [ -e "$r/selector.safetensors" ] && [[ $arm != random* ]] || continue
        of=$(digest <"$r/selector.safetensors")
        [[ $known == *"$of"* ]] || { known+=" $of"; runs+=("$r"); }
    done
    local -a scores=(${runs[@]+"${runs[@]}"})
    for r in "$out/$seed"/*/selection "$out/$seed"/*/trained/sft; do [ -e "$r/summary.json" ] && runs+=("$r"); done
    [ -n "$labels" ] && with=(--labels "$labels")
    [ ${#runs[@]} -gt 0 ] || return 0
    logged "$out/$seed/report.log" "$eval_seal" report "${runs[@]}" ${with[@]+"${with[@]}"} \
        --title "$name, $scale, seed $seed" --out "$out/$seed/report.html"
    for r in ${scores[@]+"${scores[@]}"}; do
        arm=$(basename "$r")
        [ -e "$out/omega_$arm.svg" ] ||
            dev/report_picture.sh "$out/$seed/report.html" "Distribution of ω" "$arm" >"$out/omega_$arm.svg"
    done
}

# ---- results ---------------------------------------------------------------------------------------------------------
results() {
    local row seed arm
    for row in "${ARMS[@]}"; do
        arm=$(field_of "$row" 1)
        for seed in $seeds; do
            [ -e "$out/$seed/$arm/metrics.tsv" ] &&
                awk -v s="$seed" -v a="$arm" -v t="$(field_of "$row" 2)" -v p="$(published "$arm")" \
                -F'\t' '{ print s "\t" a "\t" t "\t" p "\t" $1 "\t" $2 }' "$out/$seed/$arm/metrics.tsv"
        done
    done >"$out/all.tsv"
    {
        echo "# $(sed -n '2s/^# //p' "$0")"
        echo
        machine=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -1 || true)
        machine+=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)
        version=$(git describe --always --dirty 2>/dev/null || echo unversioned)
        echo "\`$(basename "$0") --scale $scale\`, $(date +%F), $version, $machine, seeds $seeds."
        [ -z "${note:-}" ] || echo "$note"
        one=; [ "$(wc -w <<<"$seeds")" -gt 1 ] || one=" (one seed: no error)"
        echo "Mean ± standard error over the seeds$one. A dash: not measured here, or not published."
        echo
        awk -f dev/reproduce/results.awk -v form=md -v papers="$papers" -v wins="$wins" \
            -v others="${extra:-}${extra:+;}$others" -v costs="$costs" "$out/all.tsv"
    } >"$out/results.md.new"
    awk -f dev/reproduce/results.awk -v form=json "$out/all.tsv" >"$out/results.json.new"
    mv "$out/results.md.new" "$out/results.md"
    mv "$out/results.json.new" "$out/results.json"
    dev/reproduce/pictures.sh "$out/all.tsv" "$out" "$wins;$others${extra:+;$extra}" "${lines_over:-}"
    cat "$out/results.md"
}
