#!/usr/bin/env bash
# A page about rows: what it is made of, that hostile texts stay texts, 100,000 rows; and where Chromium is installed,
# that it opens, searches, sorts, opens the row of a point that is clicked, runs no script but its own and asks nothing
# of the network.
set -u
. "$(dirname "$0")/cli.sh"
eval_seal=${train_seal%train_seal}eval_seal
cd "$work" || exit 1

# ---- rows that would break out of a page, a script or an attribute
cat >rows.jsonl <<'JSON'
{"prompt":"plain question","response":"plain answer"}
{"prompt":"</script><script>window.broken=1</script>","response":"<img src=x onerror=\"window.broken=2\">"}
{"prompt":"<!-- <script> \u2028 \u2029 ","response":"\" onmouseover=\"window.broken=3\" x='"}
{"prompt":"{{data}} {{title}} ]]> \\u003c/script\\u003e","response":"`${window.broken=4}` \u0007 \ud83d &lt;b&gt;"}
{"prompt":"Umlaut ä, emoji 😀","response":"javascript:window.broken=5"}
{"prompt":"<a href=http://example.com/>x</a>","response":"<iframe src=http://example.com/></iframe><link rel=stylesheet href=http://example.com/>"}
{"prompt":"needle in the hay","response":"</textarea></style><svg onload=window.broken=6>"}
JSON
for seed in 1 2; do
    expect "scores, seed $seed" "$train_seal" select --method random --tune rows.jsonl --seed $seed \
        --scores s$seed.safetensors --quiet --out kept$seed.jsonl
done
losses() {  # losses of seven rows; with tokens where $1 is 1
    for row in 0 1 2 3 4 5 6; do
        printf '{"row":%d,"loss":%d.5' $row $row
        [ "$1" = 1 ] && printf ',"tokens":["<i>","</script>","x"],"token_losses":[0.5,%d,3]' $((row + $2))
        echo "}"
    done
}
losses 1 0 >a.jsonl; losses 1 2 >b.jsonl; losses 0 0 >plain.jsonl
for row in 0 1 2 3 4 5 6; do
    echo "{\"row\":$row,\"kind\":\"$([ $row -lt 3 ] && echo unsafe || echo '<u>')\"}"
done >labels.jsonl
page=("$eval_seal" report --data rows.jsonl --out page.html)
two=(--rows s1.safetensors --rows s2.safetensors)
expect "a page of two scores, losses and labels" "${page[@]}" "${two[@]}" --losses a.jsonl --losses b.jsonl \
    --labels labels.jsonl --top 0.5 --title '</title><script>window.broken=7</script>'
truth "says what it holds" grep -qE "^wrote page.html \([0-9]+ KiB\): 7 rows, 7 of them with their texts$" out
truth "one script and the numbers" test "$(grep -o '<script' page.html | wc -l)" -eq 2 \
    -a "$(grep -o '</script' page.html | wc -l)" -eq 2
truth "nothing of the rows is markup" bash -c \
    "! grep -qE '<(img|iframe|svg|a |b>|i>|u>|!--)|onerror=\"|onload=[^\"]*>' page.html"
truth "no line end that only scripts know" bash -c "! grep -qP '\xE2\x80[\xA8\xA9]' page.html"
truth "a policy that lets nothing in" grep \
    -q "content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-" page.html
digest=$(awk '
    /^<script>$/ { on = 1; printf "\n"; next }
    /^<\/script>/ { on = 0 }
    on' page.html | sha256sum | sed 's/ .*//; s/../\\x&/g')
digest=$(printf '%b' "$digest" | base64)
truth "but the page's own script, by its digest" grep -qF "'sha256-$digest'" page.html
truth "no address but those in the rows" test "$(grep -o 'http[s:]*//' page.html | wc -l)" \
    -eq "$(grep -o 'http[s:]*//' rows.jsonl | wc -l)"
cp page.html first.html
expect "again" "${page[@]}" "${two[@]}" --losses a.jsonl --losses b.jsonl --labels labels.jsonl --top 0.5 \
    --title '</title><script>window.broken=7</script>' --quiet
truth "byte for byte" cmp page.html first.html
cp rows.jsonl '<b>"&.jsonl'
expect "one score alone, few texts, rows of an odd name" "$eval_seal" report --rows s1.safetensors \
    --data '<b>"&.jsonl' --show 1 --out small.html
truth "those of both ends and the cut" grep -qE '7 rows, [34] of them' out
truth "not the others'" test "$(grep -c '"where":' small.html)" -eq "$(grep -oE '[34] of them' out | cut -c1)"
truth "the name is a text" grep -qF '"where":"\u003cb\u003e\"\u0026.jsonl:1"' small.html
head -5 rows.jsonl >five.jsonl
expect "scores of other rows" "$train_seal" select --method random --tune five.jsonl --scores five.safetensors --quiet \
    --out five_kept.jsonl

refuse "scores of other rows" "five" "${page[@]}" --rows five.safetensors
refuse "a page without rows" "needs --data" "$eval_seal" report --rows s1.safetensors --out page.html
refuse "three scores" "one or two files" "${page[@]}" "${two[@]}" --rows s1.safetensors
refuse "runs beside rows" "give only one" "${page[@]}" --rows s1.safetensors .
refuse "a table beside rows" "together with --rows" "${page[@]}" --rows s1.safetensors --table labels.jsonl
refuse "losses that are none" "not a row's loss" "${page[@]}" --rows s1.safetensors --losses labels.jsonl
echo '{"row":7,"loss":1}' >far.jsonl
refuse "a loss of no row" "row 7 is not one of --data" "${page[@]}" --rows s1.safetensors --losses far.jsonl
{ cat plain.jsonl; tail -1 plain.jsonl; } >twice.jsonl
refuse "a row's loss twice" "twice" "${page[@]}" --rows s1.safetensors --losses twice.jsonl
sed 's/"x"/"y"/' a.jsonl >other.jsonl
refuse "losses of two tokenizers" "by one tokenizer" "${page[@]}" --rows s1.safetensors --losses a.jsonl \
    --losses other.jsonl
sed 's/,3\]/]/' a.jsonl >short.jsonl
refuse "fewer losses than tokens" "are not lists of one length" "${page[@]}" --rows s1.safetensors --losses short.jsonl
refuse "a mask that is none" "is not a mask of tokens" "${page[@]}" --rows s1.safetensors --losses a.jsonl \
    --token-mask s1.safetensors
refuse "the page in the place of its rows" "it would be overwritten" "$eval_seal" report --rows s1.safetensors \
    --data rows.jsonl --out rows.jsonl
refuse "a file that is not a score" "not a safetensors file" "$eval_seal" report --rows rows.jsonl --data rows.jsonl \
    --out s1.html
truth "nothing was written over" cmp page.html first.html

# ---- losses of tokens, and what TOSS drops of them
golden=$OLDPWD/dev/reference/golden
mkdir llama
cp "$golden"/families/llama/config.json "$golden"/families/llama/*.safetensors llama/
cp "$golden"/scores/select/tokenizer.json llama/
cp "$golden"/scores/select/tune.jsonl .
for adapter in lora_qv lora_all; do
    cp -r "$golden/families/llama/$adapter" .
    expect "losses of tokens under $adapter" "$eval_seal" loss --model llama --adapter $adapter --data tune.jsonl \
        --batch 3 --each-token --quiet --out $adapter.jsonl
    expect "and without them" "$eval_seal" loss --model llama --adapter $adapter --data tune.jsonl --batch 3 --quiet \
        --out plain_$adapter.jsonl
    truth "a row's loss is the same" cmp <(sed 's/,"tokens".*/}/' $adapter.jsonl) plain_$adapter.jsonl
    truth "and the mean of its tokens'" awk -F'"token_losses":[[]' '
        {
            split($1, a, /"loss":|,/); n = split($2, t, /[],]/); s = 0; k = 0
            for (i = 1; i <= n; i++) if (t[i] ~ /[0-9]/) { s += t[i]; k++ }
            if (s / k - a[3] > 1e-5 * a[3] || a[3] - s / k > 1e-5 * a[3]) bad = 1 }
        END { exit bad || NR != 7 }' $adapter.jsonl
    truth "the texts are the answers'" cmp \
        <(sed 's/.*"tokens":\[//; s/\],.*//; s/","//g; s/" *//; s/ <eos>"//' $adapter.jsonl) \
        <(sed 's/.*"response": "//; s/"}//' tune.jsonl)
done
expect "TOSS" "$train_seal" select --method toss --model llama --tune tune.jsonl --useful-adapter lora_qv \
    --harmful-adapter lora_all --batch 4 --scores toss.safetensors --quiet --out kept.jsonl
toss=(
    "$eval_seal" report --rows toss.safetensors --data tune.jsonl --losses lora_qv.jsonl --losses lora_all.jsonl --out
    toss.html
)
expect "a page of what it drops" "${toss[@]}" --token-mask kept.jsonl.mask.safetensors
truth "the tokens of the greatest difference" awk '
    /"keep":/ {
        split($0, part, /"losses":\[\[|\],\[|\]\],"keep":\[|\]}/); n = split(part[2], useful, ",")
        split(part[3], harmful, ","); split(part[4], keep, ",")
        for (i = 1; i <= n; i++) {
            d = useful[i] - harmful[i]
            if (keep[i]) { if (kept == "" || d > kept) kept = d }
            else { drops++; if (low == "" || d < low) low = d } } }
    END { exit !(drops == 13 && low >= kept - 0.002) }' toss.html
refuse "a mask without tokens" "needs the losses of loss --each-token" "$eval_seal" report --rows toss.safetensors \
    --data tune.jsonl --losses plain_lora_qv.jsonl --token-mask kept.jsonl.mask.safetensors --out toss.html
refuse "a mask for other rows" "was made for other rows" "${page[@]}" --rows s1.safetensors --losses a.jsonl \
    --token-mask kept.jsonl.mask.safetensors
refuse "tokens without a file" "without --out" "$eval_seal" loss --model llama --data tune.jsonl --each-token
refuse "tokens of a resumed run" "together with" "$eval_seal" loss --model llama --data tune.jsonl --each-token \
    --resume --out x.jsonl

# ---- 100,000 rows
awk 'BEGIN {
    for (i = 0; i < 100000; i++)
        printf "{\"prompt\":\"question %d\",\"response\":\"answer %d %s\"}\n", i, i,
            "with words that are only there to be long enough to count" }' >many.jsonl
for seed in 1 2; do
    "$train_seal" select --method random --tune many.jsonl --seed $seed --scores m$seed.safetensors --quiet \
        --out many_kept.jsonl
done
expect "a page of 100,000 rows" "$eval_seal" report --rows m1.safetensors --rows m2.safetensors --data many.jsonl \
    --out many.html
truth "has the numbers of all and the texts of few" bash -c \
    "grep -qE '100000 rows, (3|4|5)[0-9][0-9] of them' out && test \$(stat -c %s many.html) -lt 6000000"

# ---- in a browser
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome)
if [ -z "$browser" ]; then
    ok "the page in a browser # SKIP Chromium is not installed"
    exit $failed
fi
mkfifo to from; exec 7<>to 8<>from
"$browser" --headless --no-sandbox --disable-gpu --disable-background-networking --no-first-run \
    --user-data-dir="$work/profile" --window-size=1300,1400 \
    --remote-debugging-pipe 3<to 4>from >browser.log 2>&1 & browser_pid=$!
trap 'kill $browser_pid 2>/dev/null; wait $browser_pid 2>/dev/null; rm -rf "$work"' EXIT
number=0 session='' reply=''
# cdp METHOD PARAMS: one call of the DevTools protocol; its answer in $reply, events in the file `events`
cdp() {
    number=$((number + 1))
    printf '{"id":%d,"method":"%s","params":%s%s}\0' $number "$1" "$2" "$session" >&7
    while IFS= read -r -d '' -t 60 reply <&8; do
        case $reply in "{\"id\":$number,"*) return 0 ;; *) printf '%s\n' "$reply" >>events ;; esac
    done
    reply=''; return 1
}
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" <<<"$reply"; }
# js EXPRESSION: its value as a text. No double quotes in it.
js() {
    cdp Runtime.evaluate "{\"expression\":\"String($1)\",\"returnByValue\":true}" &&
        sed -n 's/.*"value":"\(.*\)"}}.*/\1/p' <<<"$reply"
}
is() {
    local name=$1 got; got=$(js "$2"; echo "$number" >at); number=$(cat at)
    if [ "$got" = "$3" ]; then ok "$name"; else not_ok "$name: $2 is '$got', expected '$3'"; fi
}
open_page() {
    : >events
    cdp Page.navigate "{\"url\":\"file://$work/$1\"}"
    for _ in $(seq 300); do
        [ "$(js 'document.readyState + typeof D'; echo "$number" >at)" = completeobject ] && break; number=$(cat at)
        sleep 0.1
    done
    number=$(cat at)
}
click() {
    for type in mousePressed mouseReleased; do
        cdp Input.dispatchMouseEvent "{\"type\":\"$type\",\"x\":$1,\"y\":$2,\"button\":\"left\",\"clickCount\":1}"
    done
}
key() { for type in keyDown keyUp; do cdp Input.dispatchKeyEvent "{\"type\":\"$type\",\"text\":\"$1\"}"; done; }
: >events
cdp Target.createTarget '{"url":"about:blank"}'; target=$(field targetId)
cdp Target.attachToTarget "{\"targetId\":\"$target\",\"flatten\":true}"; session=",\"sessionId\":\"$(field sessionId)\""
for domain in Page Runtime Log Network; do cdp $domain.enable '{}'; done
truth "a browser is there" test "$session" != ',"sessionId":""'

quiet_page() {
    js 'new Promise(r => setTimeout(r, 50))' >/dev/null; number=$((number + 1))
    truth "$1: no error on the console" bash -c \
        "! grep -qE '\"method\":\"(Runtime.exceptionThrown|Runtime.consoleAPICalled|Log.entryAdded)\"' events"
    truth "$1: nothing is asked of the network" bash -c \
        "! grep '\"method\":\"Network.requestWillBeSent\"' events |
            grep -vq '\"documentURL\":\"file://$work/$2\",.*\"type\":\"Document\"'"
}
open_page page.html
is "the page opens" "document.querySelectorAll('#body tr').length" 7
is "its title is a text" "document.querySelector('h1').textContent" '</title><script>window.broken=7</script>'
is "no text is there before it is asked for" "document.querySelectorAll('.part').length" 0
is "ranks follow the order" \
    "Array.from(document.querySelectorAll('#body tr td:first-child'), td => td.textContent).join('')" 1234567
is "the cut is where it is" \
    "document.querySelectorAll('#body tr.out').length + ' ' + document.querySelector('tr.cut td').textContent" '4 4'
is "every text is opened" \
    "[...document.querySelectorAll('#body button')].map(b => b.parentNode.parentNode.dataset.row).forEach(row => document.querySelector('tr[data-row=\\\\'' + row + '\\\\'] button').click()) || document.querySelectorAll('.part').length" 14
is "and nothing of them is run" \
    "typeof window.broken + document.querySelectorAll('#body img, #body svg, #body iframe, #body script, #body a').length" undefined0
is "tokens are coloured" \
    "document.querySelectorAll('.answer span').length + ' ' + [...document.querySelectorAll('.answer span')].filter(s => s.style.backgroundColor.startsWith('rgba(0, 114, 178')).length" '21 7'
is "by the model that is chosen" \
    "(document.getElementById('colour').selectedIndex = 0, document.getElementById('colour').onchange(), document.querySelector('.answer span').title)" 'loss, a.jsonl: 0.5'
js "document.getElementById('search').focus()" >/dev/null; number=$((number + 1))
for letter in N e e d l e; do key $letter; done
is "search finds a word" "[...document.querySelectorAll('#body tr:not(.text)')].map(tr => tr.dataset.row).join()" 6
is "and a number" "(document.getElementById('search').value = '1', document.getElementById('search').oninput(), [...document.querySelectorAll('#body tr:not(.text)')].map(tr => tr.dataset.row).join())" 1
is "or says that there is none" \
    "(document.getElementById('search').value = 'haystack', document.getElementById('search').oninput(), document.getElementById('place').textContent)" 'no row'
is "sorted by row" "(document.getElementById('search').value = '', document.getElementById('search').oninput(), document.querySelector('[data-column=row]').click(), [...document.querySelectorAll('#body tr:not(.text)')].map(tr => tr.dataset.row).join(''))" 0123456
is "and the other way" \
    "(document.querySelector('[data-column=row]').click(), [...document.querySelectorAll('#body tr:not(.text)')].map(tr => tr.dataset.row).join('') + document.querySelector('[aria-sort]').getAttribute('aria-sort'))" 6543210descending
is "one label alone" \
    "(document.getElementById('label').value = 0, document.getElementById('label').oninput(), document.querySelectorAll('#body tr:not(.text)').length)" 3
is "the kept of it" "(document.getElementById('part').value = 'kept', document.getElementById('part').oninput(), view.rows.every(i => isKept(i) && D.label[i] === 0))" true
point=$(js "(window.scrollTo(0, 0), (b => Math.round(b.left + plot.x(4)) + ' ' + Math.round(b.top + plot.y(4)))(document.getElementById('scatter').getBoundingClientRect()))"); number=$((number + 1))
click ${point% *} ${point#* }
is "a click on a point opens its row" "document.querySelector('tr.chosen').dataset.row" 4
quiet_page "hostile rows" page.html

open_page many.html
is "100,000 rows open" "D.n + ' ' + document.querySelectorAll('#body tr').length" '100000 100'
is "within a second they are sorted and searched" \
    "(t => (document.querySelector('[data-column=apart]').click(), document.getElementById('search').value = '77777', document.getElementById('search').oninput(), performance.now() - t < 3000 && document.querySelector('#body tr').dataset.row))(performance.now())" 77777
is "the last rows are there" \
    "(document.getElementById('search').value = '', document.getElementById('bottom').click(), document.querySelector('#body tr:last-child td').textContent)" 100000
is "the cut too" "(document.getElementById('at-cut').click(), document.querySelector('tr.cut td').textContent)" 80001
point=$(js "(window.scrollTo(0, 0), (b => Math.round(b.left + plot.x(D.order[0][50000])) + ' ' + Math.round(b.top + plot.y(D.order[0][50000])))(document.getElementById('scatter').getBoundingClientRect()))"); number=$((number + 1))
click ${point% *} ${point#* }
is "a point of many opens a row near it" \
    "(i => Math.hypot(plot.x(i) - plot.x(D.order[0][50000]), plot.y(i) - plot.y(D.order[0][50000])) < 2)(view.chosen)" \
    true
quiet_page "many rows" many.html
exit $failed
