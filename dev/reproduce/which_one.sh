#!/usr/bin/env bash
# Which score should I use? The methods that know D_safe alone, in five worlds
# SCENARIO=plain, hard (useful rows that are hard: `any` and `age`), noise (a fifth of the useful rows has wrong
# answers), few (2% unsafe), many (40% unsafe, of which the best 55% are kept). Options: dev/reproduce/common.sh, or
# --help; METHODS="seal refusal-test …" for others. Settings of the scores were chosen on seeds 101 and 102. Two minutes
# a method and seed on two idle cores.
SCENARIO=${SCENARIO:-plain}
case $SCENARIO in
    plain) ;;
    hard) KNOBS="--entropy-family on --absent-family on" FAMILIES="any age" ;;
    noise) NOISE=0.2 ;;
    few) KNOBS="--unsafe-share 0.02" ;;
    many) KNOBS="--unsafe-share 0.4" TOP=0.55 ;;
    *) echo "$0: SCENARIO is $SCENARIO; expected plain, hard, noise, few or many" >&2; exit 2 ;;
esac
set -- --seeds "301 302 303" --out "out/which_one-$SCENARIO" "$@"
COSTS=1
# shellcheck source=dev/reproduce/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[ "$SCENARIO" != hard ] || extra="kept_any:of any kept %:1;kept_age:of age kept %:1"
ARMS=("standard | Standard SFT | all | | ")
for m in ${METHODS:-safe-loss loss-diff refusal refusal-test seal seal-1}; do
    for row in "${METHODS_ARMS[@]}"; do [ "$(field_of "$row" 1)" != "$m" ] || ARMS+=("$row"); done
done
compare
