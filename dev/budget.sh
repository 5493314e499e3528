#!/usr/bin/env bash
# What a step of Llama-3-8B with LoRA should cost on one H200, on paper: every number of docs/performance.md from the
# assumptions below. Runs nothing on a GPU.
# usage: budget.sh             prints the tables of the page
#        budget.sh --check     TAP: the page has each of their lines
# Assumptions are variables: GEMM=770 budget.sh
set -eu
cd "$(dirname "$0")/.." || exit 1
budget() {
    awk -v tokens="${TOKENS:-16384}" -v loss="${LOSS:-0.5}" -v gemm="${GEMM:-700}" -v copy="${COPY:-4.3}" \
        -v share="${SHARE:-0.85}" -v forward_rate="${FORWARD:-280}" -v backward_rate="${BACKWARD:-200}" \
        -v clock="${CLOCK:-1.755}" -v gap="${GAP:-2}" '
    # Llama-3-8B, LoRA of rank 16 on q and v: R columns of tail
    BEGIN {
        L = 32; C = 4096; NH = 32; NKV = 8; HS = 128; FF = 14336; V = 128256; R = 64; T = tokens; SM = 132
        QKV = (NH + 2 * NKV) * HS; KV = NKV * HS
        print "| assumption | |\n|---|---:|"
        printf "| tokens of a pack; of them with loss | %d; %d |\n", T, loss * T
        printf "| products, bf16, TFLOP/s | %d |\n", gemm
        printf "| memory: a copy, TB/s; the share of it that kernels reach | %.1f; %.2f |\n", copy, share
        printf "| attention, forward and backward, TFLOP/s | %d, %d |\n", forward_rate, backward_rate
        printf "| between two launches, microseconds | %d |\n", gap
        print ""
        # products of a layer: forward, then the gradient of the input
        weights = C * (QKV + C + 3 * FF)
        head = 4 * C * V * loss * T
        print "| bytes per token and layer | before | now |\n|---|---:|---:|"
        row("norms and residuals", 16 * C * 2, 16 * C * 2)
        row("SwiGLU", 8 * FF * 2, 8 * FF * 2)
        row("rotary positions, forward", 2 * (NH + NKV) * HS * 2, 2 * (NH + NKV) * HS * 2)
        row("rotary positions, backward", 2 * (NH + NKV) * HS * 2, 0)
        row("delta", 2 * C * 2, C * 2)
        row("adapters: x, x, dY of q and v", (2 * C + C + KV) * 2, (2 * C + C + KV) * 2)
        row("adapters: dx read and written again", 2 * C * 2, 2 * C * 2)
        print ""
        print "| milliseconds of a pack | 512, before | 512, now | 2048, before | 2048, now |\n|---|---:|---:|---:|---:|"
        both("products of the layers", ms_flop(4 * weights * L * T + 4 * C * R * L * T, gemm))
        waves = ms_flop(2 * C * QKV * L * T, gemm) * (1 / 0.927 - 1)
        both("dX of qkv: N = 4160 is 92.7% of full waves", waves)
        both("head: products", ms_flop(head, gemm))
        for (k = 0; k < 4; k++) cell[k] = attention(k < 2 ? 512 : 2048)
        line("attention")
        for (i = 1; i <= n; i++) {
            for (k = 0; k < 4; k++) cell[k] = ms_byte((k % 2 ? now[i] : before[i]) * L * T)
            line(name[i])
        }
        both("cross-entropy: two reads and a write of the logits", ms_byte(6 * V * loss * T))
        for (k = 0; k < 4; k++) cell[k] = (27 - (k % 2) * 2) * L * gap / 1000
        line("gaps: 27 launches per layer, now 25")
        for (k = 0; k < 4; k++) cell[k] = total[k]
        split("", total); line("**together**")
        printf "| **thousand trained tokens per second** | %.1f | %.1f | %.1f | %.1f |\n",
            T / cell[0], T / cell[1], T / cell[2], T / cell[3]
        print ""
        print "| what remains to be done | gain, ms | 512: thousand tokens/s | 2048 |\n|---|---:|---:|---:|"
        s = cell[1]; l = cell[3]
        narrow = waves + ms_byte(4 * C * L * T) - ms_byte(2 * QKV * L * T)  # dY is read once more, for dtail
        step("A under W: dX of qkv with N = 4096, no second pass over dx, but one more over dY", narrow, narrow)
        joined = ms_byte(4 * C * 2 * L * T)
        step("residuals added by the products before (beta = 1)", joined, joined)
        step("products 3% faster, by algorithms that are timed",
            0.03 * (ms_flop(4 * weights * L * T, gemm) + ms_flop(head, gemm)),
            0.03 * (ms_flop(4 * weights * L * T, gemm) + ms_flop(head, gemm)))
        step("attention with wgmma, at twice these rates", attention(512) / 2, attention(2048) / 2)
        print ""
        print "| attention, head size 128: cycles of a scheduler per warp and tile | issue | tensor cores, at peak | at two thirds of it | shared memory | TFLOP/s at most |\n|---|---:|---:|---:|---:|---:|"
        a = limit("forward, 32 queries and 64 keys", 1142, 256, 80)
        printf " %d |\n", 256 * 4096 / a * 4 * SM * clock / 1000
        a = limit("dq, 16 queries and 64 keys", 824, 192, 96)
        print " |"
        b = limit("dk,dv, 16 keys and 64 queries", 1263, 256, 144); print " |"
        printf "| backward: both, five products of seven counted | | | | | %d |\n",
            5 * 2 * 64 * 64 * 128 / (a + b) * SM * clock / 1000
        print ""
        logits = V * loss * T
        print "| cross-entropy, all logits of a pack | milliseconds |\n|---|---:|"
        printf "| memory | %.2f |\n", ms_byte(6 * logits)
        printf "| issue, at 44.8 instructions per logit | %.2f |\n", logits * 44.8 / 32 / (SM * 4 * clock * 1e9) * 1000
        printf "| issue, at 12.1 | %.2f |\n", logits * 12.1 / 32 / (SM * 4 * clock * 1e9) * 1000
    }
    function ms_flop(flop, rate) { return flop / rate / 1e9 }
    function ms_byte(bytes) { return bytes / (copy * share) / 1e9 }
    function attention(len,   pairs) {  # 4 HS FLOP per head and pair of a query and a key it sees; backward 10
        pairs = T * (len + 1) / 2 * NH * L
        return ms_flop(4 * HS * pairs, forward_rate) + ms_flop(10 * HS * pairs, backward_rate)
    }
    function row(what, a, b) { n++; name[n] = what; before[n] = a; now[n] = b; printf "| %s | %d | %d |\n", what, a, b }
    function line(what) {
        printf "| %s | %.1f | %.1f | %.1f | %.1f |\n", what, cell[0], cell[1], cell[2], cell[3]
        for (k = 0; k < 4; k++) total[k] += cell[k]
    }
    function both(what, x) { for (k = 0; k < 4; k++) cell[k] = x; line(what) }
    function step(what, short, long) {
        s -= short; l -= long; printf "| %s | %.1f; %.1f | %.1f | %.1f |\n", what, short, long, T / s, T / l }
    # 4096 FLOP an mma, 1024 a cycle at peak; an ldmatrix.x4 holds the shared memory of the four schedulers for 4 cycles
    function limit(what, issue, mma, ldmatrix,   most) {
        most = issue
        if (mma * 6 > most) most = mma * 6
        if (ldmatrix * 16 > most) most = ldmatrix * 16
        printf "| %s | %d | %d | %d | %d |", what, issue, mma * 4, mma * 6, ldmatrix * 16
        return most
    }'
}
page=docs/performance.md
case ${1:-} in
    '') budget ;;
    --check)
        missing=$(env -i PATH="$PATH" bash dev/budget.sh | grep . | grep -vxFf "$page" || true)
        if [ -z "$missing" ]; then echo "ok $page has every line of dev/budget.sh"
        else echo "not ok $page lacks lines of dev/budget.sh:"; printf '%s\n' "$missing"; exit 1; fi ;;
    *) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
