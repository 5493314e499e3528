"""Small templates of our own, each for one thing that Jinja or Python does; record_chat_templates.py records what transformers' environment makes of them."""

VARIABLES = {
    "n": 3, "f": 2.5, "s": "Hello, World", "t": True, "no": None, "e": "", "u": "é你🙂ß", "ws": " \t a b \n\u00a0",
    "l": [3, 1, 2], "words": ["b", "A", "c", "a"], "d": {"b": 1, "a": "x", "C": None}, "nested": [[1, 2], [3, [4]]], "big": 123456789012345678901234567890, "neg": -7,
    "rows": [{"name": "x", "k": 2, "in": {"v": 1}}, {"name": "Y", "k": 1, "in": {"v": 2}}, {"name": "z", "k": 2}], "floats": [0.1, 1e16, 1e-5, 123456.789, -0.0, 1e22, 5e-324],
    "items": {"items": 1, "keys": 2, "get": 3}, "html": "<a href=\"x\">'&'</a>", "lines": "a\nb\r\nc\rd\u2028e\n", "q": "it's \"q\" \\ \n\t\x00\x7f\u200b", "mixed": [1, "a", None, True, 2.0, [1], {"k": "v"}],
    "messages": [{"role": "system", "content": "sys"}, {"role": "user", "content": " hi "}, {"role": "assistant", "content": "yo", "tool_calls": [{"function": {"name": "f", "arguments": {"a": [1, "é"]}}}]}],
}


def _lines(text):
    return [line for line in text.strip("\n").split("\n") if line and not line.startswith("##")]


# one a line; \n of these lines is written ⏎
_TEXT = r"""
## whitespace control
a ⏎ {% if t %}⏎b⏎ {% endif %}⏎c
a ⏎ {%- if t -%}⏎ b ⏎{%- endif -%}⏎ c
a ⏎ {%+ if t +%}⏎b⏎ {%+ endif +%}⏎c
x  {{- n -}}  y
x ⏎ {{ n }} ⏎ y
  {# c #}⏎x
a  {#- c -#}  b
a⏎  {#+ c +#}⏎ b
⏎⏎{{ n }}⏎⏎
{% raw %} {{ x }} {% y %} {% endraw %}
a {%- raw -%}  {{ x }}  {%- endraw -%} b
{% raw %}⏎  x⏎  {% endraw %}⏎y
{%  raw  %}a{%  endraw  %}
{{ '{% raw %}' }}
{% for i in l %}⏎  {{ i }}⏎{% endfor %}⏎end
   {% for i in l -%}⏎  {{ i }}⏎{%- endfor %}⏎end
{% if t %}  {% endif %}x
{%if t%}{{n}}{%endif%}
text {% if t %}x{% endif %}⏎  ⏎{% if t %}y{% endif %}⏎
a⏎⏎   {%- set x = 1 %}   ⏎⏎b
 {%- set x = 1 -%}
{{ n }}⏎
{{ n }}⏎⏎
{% set x %}⏎ a ⏎{% endset %}[{{ x }}]
a{{ "x" }}⏎{{ "y" }}
{{ n }}  {%- if t %} a {%- endif %}  b
	{% if t %}tab{% endif %}
a	 {% if t %}tab{% endif %}
 x{% if t %} {% endif %}
{%- if t %}⏎⏎a{% endif %}
## literals and lexing
{{ 1 }} {{ 1_000 }} {{ 0x1F }} {{ 0b101 }} {{ 0o17 }} {{ 00 }} {{ 1.5 }} {{ 1e3 }} {{ 1.5E-2 }} {{ 1_0.5_0 }}
{{ 012 }}
{{ 1.foo }}
{{ 1..real }}
{{ 'a' "b" 'c' }}
{{ 'a\'b' }}{{ "a\"b" }}{{ 'a\nb\tc\\d' }}
{{ '\x41\u00e9\U0001F600\101\q' }}
{{ '\é' }}
{{ 'é你🙂' }}
{{ "a⏎b" }}
{{ '\xZZ' }}
{{ true }}{{ True }}{{ false }}{{ none }}{{ None }}
{{ 123456789012345678901234567890 }}
{{ [1, 'a', none, true, 1.5, [], {}, ()] }}
{{ {'a': 1, 'b': [1], 2: 'x', none: 3} }}
{{ (1,) }}{{ () }}{{ (1, 2) }}{{ 1, 2 }}
{{ [1, 2,] }}{{ {'a': 1,} }}
{{ {'a': 1}['a'] }}{{ {1: 'x'}[1] }}{{ {1: 'x'}[1.0] }}{{ {1: 'x'}[true] }}
{{ {'a': {}} }}
{{ {'a': {'b': {'c': 1}}} }}
{{ n }
{{ n
{% if t %}
{% endif %}
{% foo %}
{{ }}
{{ n n }}
{{ (n }}
{{ n) }}
{{ [n) }}
{{ 'abc }}
{{ a! }}
{{ $ }}
{# never
{% raw %} never
{% for %}{% endfor %}
{% for x in %}{% endfor %}
{% set 1 = 2 %}
{% set 'a' = 2 %}
{% set a.b.c = 2 %}
{% elif t %}
{% if t %}{% endfor %}
{% if t %}a{% else %}b{% else %}c{% endif %}
{{ loop }}
{{ é }}{% set é = 1 %}{{ é }}
{{ _x }}{% set _x = 1 %}{{ _x }}
## expressions
{{ 1 + 2 * 3 - 4 / 2 }}{{ 7 // 2 }}{{ -7 // 2 }}{{ 7 % 3 }}{{ -7 % 3 }}{{ 7 % -3 }}{{ 2 ** 10 }}{{ 2 ** -1 }}
{{ 2 ** 3 ** 2 }}{{ -2 ** 2 }}{{ (-2) ** 2 }}
{{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ 7.5 % -2 }} {{ 1 / 3 }} {{ 2 / 1 }} {{ 1e308 * 10 }} {{ 0.1 + 0.2 }}
{{ 1 / 0 }}
{{ 1 % 0 }}
{{ 1 // 0 }}
{{ 1.0 / 0 }}
{{ 9223372036854775807 + 0 }}
{{ - n }}{{ + n }}{{ -f }}{{ - - n }}{{ not n }}{{ not not n }}{{ -true }}
{{ -'a' }}
{{ 'a' + 'b' }}{{ 'a' ~ 1 ~ none ~ true ~ 1.0 ~ [1] }}{{ 1 ~ 2 }}
{{ 'a' + 1 }}
{{ 1 + 'a' }}
{{ none + 1 }}
{{ [1] + [2] }}{{ (1,) + (2,) }}{{ [1] * 2 }}{{ 'ab' * 3 }}{{ 3 * 'ab' }}{{ 'a' * -1 }}{{ 'a' * true }}
{{ [1] + (2,) }}
{{ {} + {} }}
{{ 'a' * 1.5 }}
{{ 1 < 2 < 3 }}{{ 1 < 3 < 2 }}{{ 3 > 2 >= 2 != 1 }}{{ 1 == 1.0 == true }}{{ 'a' < 'b' }}{{ [1, 2] < [1, 3] }}{{ (1,) < (1, 0) }}
{{ 1 < 'a' }}
{{ none < none }}
{{ {} < {} }}
{{ [] == () }}{{ {} == {} }}{{ {'a': 1, 'b': 2} == {'b': 2, 'a': 1} }}{{ 'a' == 'a' }}{{ none == false }}{{ 0 == false }}{{ '' == none }}
{{ 1 in l }}{{ 9 not in l }}{{ 'b' in d }}{{ 'ell' in s }}{{ '' in '' }}{{ 1 in (1, 2) }}{{ 'z' in d.values() }}{{ 'x' in d.values() }}{{ 2 in range(3) }}
{{ 1 in s }}
{{ 'a' in 1 }}
{{ 'a' in none }}
{{ none in s }}
{{ x in s }}
{{ 'a' in x }}
{{ [] in d }}
{{ t and n }}{{ no and n }}{{ no or n }}{{ e or no or 'z' }}{{ 0 or [] }}{{ n and not no }}{{ not t or t }}
{{ 'y' if t else 'n' }}{{ 'y' if no else 'n' }}{{ 'y' if no }}|{{ ('y' if no) is undefined }}
{{ ('y' if no) + 'x' }}
{{ 1 if t else 2 if no else 3 }}{{ (1 if no else 2) if t else 3 }}
{{ 'a' if t and n == 3 or no else 'b' }}
{{ not 1 == 2 }}{{ not 1 in l }}{{ 1 not in l }}{{ (not 1) in l }}
{{ 1 + 2 ~ 3 }}{{ 1 ~ 2 + 3 }}
{{ 2 * 'a' ~ 'b' }}
{{ n | string + 'x' }}
{{ 'x' + n | string }}
{{ -1 | abs }}{{ (-1) | abs }}
{{ 'a' if t else 'b' | upper }}
{{ n is number and s is string }}{{ n is not string }}{{ not n is string }}
{{ 1 is sameas 1 }}{{ t is sameas true }}{{ 1 is eq 1 }}{{ 3 is divisibleby 3 }}{{ 3 is divisibleby(2) }}{{ 3 is in l }}{{ 3 is not in l }}
{{ 3 is even or 3 is odd }}{{ n is gt 2 }}{{ n is lessthan 2 }}{{ n is ge(3) }}{{ n is ne 3 }}
{{ n is foo }}
{% if t %}ok{% else %}{{ n is foo }}{% endif %}
{% if t %}{{ n is foo }}{% endif %}
{{ 1 if t else n | nofilter }}
{{ n | nofilter }}
{% if no %}{{ n | nofilter }}{% endif %}ok
{{ n is string is string }}
{{ n == 3 is true }}
{{ x is defined }}{{ n is defined }}{{ n.x is defined }}{{ d.zz is undefined }}{{ no is none }}{{ no is defined }}
{{ [1,2,3][1:] }}{{ l[:-1] }}{{ l[::-1] }}{{ l[::2] }}{{ l[5:] }}{{ l[-2:] }}{{ l[2:0:-1] }}{{ l[:] }}{{ l[1:100] }}{{ l[-100:2] }}{{ l[100::-1] }}
{{ s[1:4] }}{{ s[::-1] }}{{ u[1:3] }}{{ u[::-1] }}{{ u[-1] }}{{ u[0] }}{{ s[::3] }}{{ u[::2] }}{{ s[7:] }}{{ s[-5:-1] }}{{ s[:0] }}
{{ l[::0] }}
{{ l['a':] }}
{{ l[none:none:none] }}{{ l[true:] }}
{{ d[1:] }}
{{ n[1:] }}
{{ no[1:] }}
{{ x[1:] }}
{{ (1, 2, 3)[1:] }}{{ range(10)[2:5] }}{{ range(10)[::-2] | list }}{{ range(5)[-1] }}
{{ l[0] }}{{ l[-1] }}{{ l[99] }}{{ l['0'] }}{{ l.0 }}{{ nested.1.1.0 }}{{ s.0 }}{{ s[0] }}{{ s[99] }}{{ l[true] }}{{ l[1.0] }}
{{ l[99].x }}
{{ l[99] + 1 }}
{{ d.a }}{{ d['a'] }}{{ d.zz }}{{ d['zz'] }}{{ d.zz.y }}
{{ d['zz']['y'] }}
{{ x.y }}
{{ x['y'] }}
{{ x() }}
{{ x + 1 }}
{{ 1 + x }}
{{ x ~ 'a' }}{{ x | length }}{{ x | list }}{{ x | string }}{{ x == y }}{{ x != y }}{{ x == none }}{{ x or 'z' }}{{ not x }}
{{ x < 1 }}
{{ -x }}
{{ x | upper }}|{{ x | trim }}|{{ x | join }}|{{ x | default('d') }}|{{ no | default('d') }}|{{ no | default('d', true) }}|{{ x | d }}|{{ e | d('E', boolean=true) }}
{{ no.x }}|{{ no['x'] }}|{{ n.x }}|{{ s.x }}|{{ l.x }}|{{ t.x }}
{{ no.x.y }}
{{ n() }}
{{ s() }}
{{ d() }}
{{ items.items }}
{{ items['items'] }}{{ items['keys'] }}{{ items.zz }}
{{ d['items'] is callable }}{{ d['items']['type'] is defined }}{{ d.items is callable }}{% if d['keys'] %}y{% endif %}
{{ d.items() }}{{ d.keys() }}{{ d.values() }}{{ d.items() | list }}{{ d.keys() | list }}{{ d.get('a') }}{{ d.get('zz') }}{{ d.get('zz', 5) }}{{ d.copy() }}
{{ d.get(key='a') }}
{{ d.get() }}
{{ d.keys()[0] }}|{{ d.items() | length }}{{ d.keys() | first }}
{{ l.append(1) }}
{{ l.append }}|{{ l.append is defined }}
{{ d.pop('a') }}
{{ d.update({}) }}
{{ d.setdefault }}
{{ l.count(1) }}{{ l.index(2) }}{{ l.copy() }}{{ (1, 1).count(1) }}
{{ l.index(99) }}
{{ n.real }}{{ n.imag }}{{ f.real }}{{ n.numerator }}{{ n.bit_length() }}{{ f.is_integer() }}{{ t.real }}
{{ s.__class__ }}
{{ s.__class__.__mro__ }}
{{ s.__foo__ }}|{{ d.__foo__ }}
{{ n.__add__(1) }}
{{ ''.__class__ is defined }}
## printing
{{ 1.0 }} {{ 0.1 }} {{ 1e16 }} {{ 1e15 }} {{ 123456789.123456789 }} {{ 1e-4 }} {{ 1e-5 }} {{ 1.5e300 }} {{ -0.0 }} {{ 100.0 }} {{ 1e22 }} {{ 3.14159 }}
{{ floats }}
{{ big }} {{ big == big }} {{ big > 1 }} {{ [big] }} {{ big | string | length }} {{ -5 < big }}
{{ mixed }}
{{ q }}|{{ [q] }}
{{ ["it's", 'say "hi"', "both ' and \"", 'é', '\u200b', '\x00', '🙂', '\u00ad', '\ue000'] }}
{{ u }} {{ [u] }} {{ {'é': u} }}
{{ [true, none, 1.0, 'a', (1,), {'a': (1, 2)}, x] }}
{{ range(3) }} {{ range(1, 3) }} {{ range(0, 9, 3) }} {{ range(3) | list }} {{ range(5, 0, -2) | list }} {{ range(0) | list }}
{{ range(1.5) }}
{{ range() }}
{{ range(1, 2, 0) }}
{{ range(100001) | length }}
{{ range(100000) | length }}
{{ range }}
{{ namespace(a=1) }} {{ namespace({'b': 2}, c=3).b }} {{ namespace().x }}
{{ dict(a=1, b=2) }} {{ dict({'a': 1}, b=2) }} {{ dict([(1, 2)]) }} {{ dict() }}
{{ d.items }}
{{ l | map('string') }}
{{ joiner }}
## statements
{% set a = 1 %}{{ a }}{% set a, b = 2, 3 %}{{ a }}{{ b }}{% set a = a + 1 %}{{ a }}
{% set (a, b) = [1, 2] %}{{ a }}{{ b }}
{% set a, (b, c) = 1, (2, 3) %}{{ a }}{{ b }}{{ c }}
{% set a, b = [1] %}
{% set a, b = [1, 2, 3] %}
{% set a, b = 5 %}
{% set a = 1, 2 %}{{ a }}
{% set ns = namespace(x=1) %}{% set ns.x = 2 %}{{ ns.x }}{% set ns.y, z = 3, 4 %}{{ ns.y }}{{ z }}
{% set d.x = 1 %}
{% set zz.x = 1 %}
{% for i in l %}{% set a = i %}{% endfor %}{{ a }}|
{% set a = 0 %}{% for i in l %}{{ a }}{% set a = i %}{{ a }}{% endfor %}{{ a }}
{% set ns = namespace(a=0) %}{% for i in l %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}
{% if t %}{% set a = 1 %}{% endif %}{{ a }}
{% if no %}{% set n = 1 %}{% endif %}{{ n }}
{% if no %}{% set n = 1 %}{% else %}{% set n = 2 %}{% endif %}{{ n }}
{{ n }}{% set n = 9 %}{{ n }}
{% macro m() %}{{ n }}{% endmacro %}{{ m() }}{% set n = 9 %}{{ m() }}
{% macro m() %}{{ zz }}{% endmacro %}{{ m() }}{% set zz = 9 %}{{ m() }}
{% for i in l %}{{ n }}{% set n = i %}{{ n }}{% endfor %}{{ n }}
{% for i in [1, 2] %}{% if i == 1 %}{% set y = i %}{% endif %}{{ y }}|{% endfor %}
{% set y = 0 %}{% for i in [1, 2] %}{% if i == 1 %}{% set y = i %}{% endif %}{{ y }}|{% endfor %}{{ y }}
{% set x %}a{{ n }}b{% endset %}{{ x }}{% set y | upper %}abc{{ n }}{% endset %}{{ y }}
{% set x | trim | upper %}  abc {% endset %}[{{ x }}]
{% set x | replace('a', 'b') %}aaa{% endset %}{{ x }}
{% set x %}{% set y = 5 %}{{ y }}{% endset %}{{ x }}{{ y }}
{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a }}
{% with %}{% set q = 1 %}{{ q }}{% endwith %}
{% set a = 5 %}{% with a = 1, b = a %}{{ a }}{{ b }}{% endwith %}{{ a }}
{% filter upper %}abc {{ s }}{% endfilter %}
{% filter replace('a', 'b') | upper %}aca{% endfilter %}
{% print 1, 'a' %}
{% for a, b in d.items() %}{{ a }}={{ b }};{% endfor %}
{% for a in d %}{{ a }}{% endfor %}{% for c in 'héy' %}{{ c }},{% endfor %}
{% for a, b in [(1, 2), (3, 4)] %}{{ a }}{{ b }}{% endfor %}{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}
{% for a, b in [1, 2] %}{% endfor %}
{% for a, (b, c) in [(1, (2, 3)), (4, (5, 6))] if b > 2 %}{{ a }}{{ b }}{{ c }}{% endfor %}
{% for a, b in [(1, 2, 3)] %}{% endfor %}
{% for x in 5 %}{% endfor %}
{% for x in none %}{% endfor %}
{% for x in zz %}a{% else %}empty{% endfor %}
{% for x in [] %}a{% else %}empty{% endfor %}
{% for x in l %}{{ x }}{% else %}empty{% endfor %}
{% for x in l if x > 1 %}{{ x }}{{ loop.index }}{{ loop.last }}{{ loop.length }};{% endfor %}
{% for x in l if x > 9 %}{{ x }}{% else %}none{% endfor %}
{% for x in l if x > n - 2 %}{{ x }}{% endfor %}
{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }};{% endfor %}
{% for x in l %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }} {{ loop.previtem is defined }}{{ loop.nextitem is defined }};{% endfor %}
{% for x in l %}{{ loop.cycle('a', 'b') }}{{ loop.changed(x > 1) }};{% endfor %}
{% for x in l %}{{ loop }}{% endfor %}
{% for x in l %}{{ loop.zz }}|{{ loop['index'] }}{% endfor %}
{% for x in l %}{% for y in nested %}{{ loop.index }}{% endfor %}{{ loop.index }};{% endfor %}
{% for x in l %}{% set outer = loop %}{% for y in [1, 2] %}{{ outer.index }}{{ loop.index }} {% endfor %}{% endfor %}
{% for x in l %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}{% for x in l %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% endfor %}
{% for x in [1] %}{% continue %}{% else %}E{% endfor %}{% for x in [1] %}{% break %}{% else %}E{% endfor %}
{% break %}
{% for x in l %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}
{% for x in l %}{% set y %}a{% break %}{% endset %}{{ y }}{% endfor %}!
{% for loop in l %}{% endfor %}
{% for x in nested recursive %}{% if x is iterable %}[{{ loop(x) }}]{% else %}{{ x }}:{{ loop.depth }}{% endif %}{% endfor %}
{% for x in l recursive %}{{ x }}{% else %}e{% endfor %}
{% for x in l %}{{ loop(x) }}{% endfor %}
{% for x in l | reverse %}{{ x }}{{ loop.last }}{% endfor %}{% for x in l | reverse %}{{ loop.length }}{{ loop.revindex }}{% endfor %}
{% for x in l | map('string') %}{{ x }}{{ loop.revindex0 }}{% endfor %}
{% for k, v in d | items %}{{ k }}{{ v }}{{ loop.first }}{% endfor %}
{% for m in messages %}{{ m.role }}{% if not loop.last %},{% endif %}{% endfor %}
{% for m in messages if m.role != 'system' %}{{ loop.index0 }}{{ m['role'] }}{% endfor %}
{% for m in messages[1:] %}{{ m.content | trim }}{{ loop.index0 % 2 == 0 }}{% endfor %}
{% for tc in messages[2].tool_calls %}{{ tc.function.name }}{{ tc.function.arguments | tojson }}{% endfor %}
{{ messages[0]['content'] }}{{ messages[-1].tool_calls[0].function.arguments.a[1] }}{{ messages | length }}
{% if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set messages = messages[1:] %}{% endif %}{{ system }}{{ messages | length }}
{% if 'tool_calls' in messages[2] and messages[2].tool_calls is not none %}y{% endif %}{% if messages[1].tool_calls %}n{% endif %}
{% if no %}a{% elif t %}b{% elif n %}c{% else %}d{% endif %}{% if no %}a{% elif no %}b{% else %}d{% endif %}
{% if l, 1 %}t{% endif %}
{% if t: %}x{% endif %}
{% for i in l: %}{{ i }}{% endfor %}
{% macro m(a, b=2) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(b=5, a=4) }}{{ m() }}
{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}
{% macro m(a) %}{{ a is defined }}{{ a }}{% endmacro %}{{ m() }}
{% macro m(a) %}{{ a.x }}{% endmacro %}{{ m() }}
{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}
{% macro m(a) %}{% endmacro %}{{ m(b=2) }}
{% macro m(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, k=4) }}
{% macro m() %}[{{ caller() }}]{% endmacro %}{% call m() %}x{{ n }}{% endcall %}
{% macro m() %}{{ caller(1, b=2) }}{% endmacro %}{% call(a, b) m() %}{{ a }}{{ b }}{% endcall %}
{% macro m() %}{% if caller %}y{% else %}n{% endif %}{% endmacro %}{{ m() }}{% call m() %}{% endcall %}
{% macro m() %}x{% endmacro %}{% call m() %}y{% endcall %}
{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}
{% macro m(n) %}{% if n > 0 %}{{ n }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(3) }}
{% macro outer() %}{% macro inner() %}i{% endmacro %}{{ inner() }}{% endmacro %}{{ outer() }}{{ inner }}
{% macro m() %}{% set n = 7 %}{{ n }}{% endmacro %}{{ m() }}{{ n }}
{% macro m(x) %}  {{ x }}⏎{% endmacro %}[{{ m('a') | trim }}]{{ m('b') | length }}
{{ m }}{% macro m() %}{% endmacro %}{{ m }}{{ m.name }}{{ m.arguments }}
{% macro m(a, a) %}{% endmacro %}
{% macro m(a=1, b) %}{% endmacro %}
{% macro m(caller) %}{{ caller }}{% endmacro %}{{ m(1) }}
{% macro m(a, b) %}{{ a }}{{ b }}{% endmacro %}{{ m(*[1, 2]) }}{{ m(**{'a': 3, 'b': 4}) }}{{ m(1, *[2]) }}
{{ m(a=1, 2) }}
{{ dict(a=1, a=2) }}
{% call n %}{% endcall %}
{% call n() %}{% endcall %}
{% include 'x' %}
{% extends 'x' %}
{% import 'x' as y %}
{% from 'x' import y %}
{% block a %}x{% endblock %}
{% autoescape true %}{% endautoescape %}
{% do l %}
{% trans %}{% endtrans %}
{% generation %}a{{ n }}{% endgeneration %}b
x{% generation %}{% set q = 1 %}{{ q }}{% endgeneration %}{{ q }}
x{%- generation -%} a {%- endgeneration -%} b
{{ raise_exception('bad ' ~ n) }}
{{ raise_exception() }}
{{ raise_exception }}
{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.current }}{{ c.next() }}{{ c.next() }}{{ c.reset() }}{{ c.current }}
{% set j = joiner('|') %}{% for x in l %}{{ j() }}{{ x }}{% endfor %}
{{ strftime_now('%Y-%m-%d') }}{{ strftime_now('%d %b %Y %H:%M:%S %A %j %% %B') }}{{ strftime_now('%-d') }}
{{ lipsum() }}
## tests
{{ n is number }}{{ f is number }}{{ t is number }}{{ s is number }}{{ n is integer }}{{ t is integer }}{{ f is float }}{{ t is boolean }}{{ t is true }}{{ n is true }}{{ no is false }}
{{ s is string }}{{ d is mapping }}{{ l is mapping }}{{ l is sequence }}{{ s is sequence }}{{ d is sequence }}{{ n is sequence }}{{ x is sequence }}{{ x is iterable }}{{ d.keys() is sequence }}
{{ l is iterable }}{{ s is iterable }}{{ n is iterable }}{{ no is iterable }}{{ d.items() is iterable }}{{ range(2) is iterable }}{{ range(2) is sequence }}
{{ range is callable }}{{ n is callable }}{{ s.upper is callable }}{{ x is callable }}
{{ 'abc' is lower }}{{ 'ABC' is upper }}{{ 'aBc' is lower }}{{ '1' is lower }}{{ 'ß' is lower }}{{ n is lower }}
{{ 'a' is odd }}
{{ 2.0 is even }}{{ 3 is odd }}{{ true is odd }}
{{ 'upper' is filter }}{{ 'nope' is filter }}{{ 'odd' is test }}{{ 'nope' is test }}
{{ html | escape is escaped }}{{ html is escaped }}{{ (html | safe) is escaped }}
{{ 'b' is in 'abc' }}{{ n is == 3 }}
{{ n is defined(1) }}
{{ n is divisibleby }}
{{ n is eq(3, 4) }}
## string methods
{{ s.upper() }}{{ s.lower() }}{{ 'hello wORLD o\'neil'.title() }}{{ 'hELLO'.capitalize() }}{{ s.swapcase() }}{{ u.upper() }}{{ u.lower() }}{{ 'ΑΣ ΑΣΑ Σ'.lower() }}{{ 'ǆ'.title() }}{{ 'ﬁ'.upper() }}{{ 'İ'.lower() }}{{ 'ß'.casefold() }}
[{{ ws.strip() }}][{{ ws.lstrip() }}][{{ ws.rstrip() }}][{{ 'xxaxx'.strip('x') }}][{{ 'abcba'.lstrip('ab') }}][{{ 'abcba'.rstrip('ab') }}][{{ 'a'.strip(none) }}][{{ 'éaé'.strip('é') }}]
{{ 'a,b,,c'.split(',') }}{{ 'a b  c '.split() }}{{ ' a  b c '.split(none, 1) }}{{ 'a,b,c'.split(',', 1) }}{{ 'a,b,c'.rsplit(',', 1) }}{{ ' a b c '.rsplit(none, 1) }}{{ ''.split() }}{{ ''.split(',') }}{{ 'abc'.split('bc') }}{{ 'a,b'.split(sep=',', maxsplit=0) }}
{{ 'a'.split('') }}
{{ 'a'.split(1) }}
{{ lines.splitlines() }}{{ lines.splitlines(true) }}{{ ''.splitlines() }}{{ '\n'.splitlines() }}
{{ s.startswith('He') }}{{ s.startswith(('x', 'H')) }}{{ s.endswith('ld') }}{{ s.endswith(('a', 'd')) }}{{ s.startswith('e', 1) }}{{ s.endswith('l', 0, 4) }}{{ s.startswith('') }}{{ s.startswith('', 99) }}
{{ s.startswith(1) }}
{{ s.startswith(['H']) }}
{{ s.find('o') }}{{ s.find('o', 5) }}{{ s.rfind('o') }}{{ s.find('z') }}{{ s.index('W') }}{{ u.find('🙂') }}{{ s.count('l') }}{{ s.count('') }}{{ 'aaa'.count('aa') }}{{ s.find('l', -5) }}{{ s.rfind('l', 0, 5) }}{{ s.rindex('l') }}{{ s.count('o', 5) }}
{{ s.index('z') }}
{{ s.replace('l', 'L') }}{{ s.replace('l', 'L', 1) }}{{ 'abc'.replace('', '-') }}{{ 'abc'.replace('', '-', 2) }}{{ 'aaa'.replace('aa', 'b') }}{{ 'x'.replace('y', 'z') }}{{ ''.replace('', 'a') }}
{{ s.replace('l', 1) }}
{{ s.replace('l') }}
{{ ','.join(['a', 'b']) }}{{ ''.join([]) }}{{ '-'.join('abc') }}{{ ', '.join(d) }}{{ ','.join(d.keys()) }}
{{ ','.join([1, 2]) }}
{{ 'a'.center(5) }}|{{ 'ab'.center(5, '*') }}|{{ 'a'.ljust(3) }}|{{ 'a'.rjust(3, '.') }}|{{ '5'.zfill(3) }}|{{ '-5'.zfill(4) }}|{{ 'abc'.center(2) }}|{{ 'a\tb'.expandtabs(4) }}
{{ 'a'.center(5, 'xx') }}
{{ 'a=b=c'.partition('=') }}{{ 'a=b=c'.rpartition('=') }}{{ 'abc'.partition('=') }}{{ 'abc'.rpartition('=') }}
{{ 'prefix-x'.removeprefix('prefix-') }}{{ 'x.py'.removesuffix('.py') }}{{ 'x'.removeprefix('y') }}{{ 'x'.removesuffix('') }}
{{ '12'.isdigit() }}{{ '1a'.isdigit() }}{{ ''.isdigit() }}{{ '²'.isdigit() }}{{ '²'.isdecimal() }}{{ '½'.isnumeric() }}{{ '一'.isnumeric() }}{{ 'ab'.isalpha() }}{{ 'é你'.isalpha() }}{{ 'a1'.isalnum() }}{{ ' \n'.isspace() }}{{ 'a b'.isspace() }}{{ 'Ab Cd'.istitle() }}{{ 'abc'.isascii() }}{{ 'é'.isascii() }}{{ 'a_1'.isidentifier() }}{{ '1a'.isidentifier() }}{{ 'a\n'.isprintable() }}{{ 'ABC'.isupper() }}{{ 'a1'.islower() }}{{ '1'.isupper() }}
{{ 'a {} b {}'.format(1, 'x') }}{{ '{0}{1}{0}'.format('a', 'b') }}{{ '{x}-{y!r}'.format(x=1, y='q') }}{{ '{:>5}|{:<5}|{:^5}|{:*^7}'.format('a', 'b', 'c', 'd') }}{{ '{:05d} {:+d} {:x} {:#x} {:,} {:b} {:o}'.format(42, 42, 255, 255, 1234567, 5, 8) }}
{{ '{:.2f} {:8.3f}| {:e} {:g} {:%} {:.1%} {:,.2f} {:08.2f}'.format(3.14159, 2.5, 12345.678, 0.0001, 0.5, 0.256, 12345.678, -3.14159) }}{{ '{{}}'.format() }}{{ '{0[a]} {0[b]}'.format(d) }}{{ '{:.3}'.format('abcdef') }}{{ '{:{w}}|'.format('a', w=4) }}{{ '{:.3}'.format(3.14159) }}{{ '{:5}|{:<5}|'.format(1, 1) }}{{ '{}'.format(none) }}{{ '{!s:>4}'.format(1) }}{{ '{:d}'.format(true) }}{{ '{}'.format(true) }}
{{ '{}'.format() }}
{{ '{x}'.format() }}
{{ '{0} {}'.format(1) }}
{{ '{'.format(1) }}
{{ '}'.format(1) }}
{{ '{:d}'.format('a') }}
{{ '{:>5}'.format([1]) }}
{{ '{a.b}'.format(a={'b': 1}) }}
{{ '%s %d %5.2f %r %x %%' % ('a', 3, 2.5, 'b', 255) }}{{ '%s' % 'x' }}{{ '%s' % [1] }}{{ '%(a)s-%(b)d' % {'a': 1, 'b': 2} }}{{ '%5s|%-5s|%05d|%+d' % ('a', 'b', 42, 7) }}{{ '%s' % (('t',),) }}{{ '%e %g %G' % (1.5, 1e10, 1e-10) }}{{ '%c%c' % ('a', 98) }}{{ '%.2s' % 'abc' }}{{ '%i' % 3.9 }}{{ '%#x %o' % (10, 8) }}{{ '% d' % 5 }}{{ '%*d' % (4, 2) }}
{{ '%s %s' % 'x' }}
{{ '%s' % ('a', 'b') }}
{{ '%d' % 'a' }}
{{ '%z' % 1 }}
{{ 'x' % 1 }}
{{ '%s' | format('a') }}{{ '%s-%s' | format('a', 1) }}{{ '%(x)s' | format(x=1) }}
{{ s.nope() }}
{{ s.upper(1) }}
{{ s.encode() }}
{{ s.upper }}
{{ s.format_map({'a': 1}) }}
## filters
{{ s | upper }}{{ s | lower }}{{ 'hello world-foo (bar) [baz] {q} <w' | title }}{{ 'hELLO wORLD' | capitalize }}{{ n | upper }}{{ no | upper }}{{ [1, 'A'] | lower }}
[{{ ws | trim }}][{{ 'xax' | trim('x') }}][{{ n | trim }}][{{ no | trim }}][{{ ' a ' | trim(chars=none) }}]
{{ s | length }}{{ u | length }}{{ l | length }}{{ d | length }}{{ l | count }}{{ range(4) | length }}
{{ n | length }}
{{ no | length }}
{{ l | map('string') | length }}
{{ l | join }}{{ l | join(', ') }}{{ rows | join(',', attribute='name') }}{{ 'abc' | join('-') }}{{ [1, none, 'a', true] | join('|') }}{{ d | join(',') }}{{ l | join(1) }}
{{ n | join }}
{{ words | sort }}{{ words | sort(case_sensitive=true) }}{{ words | sort(reverse=true) }}{{ l | sort }}{{ rows | sort(attribute='k') | map(attribute='name') | list }}{{ rows | sort(attribute='k,name') | map(attribute='name') | list }}{{ rows | sort(attribute='k', reverse=true) | map(attribute='name') | join }}
{{ mixed | sort }}
{{ words | unique | list }}{{ [1, 1, 2] | unique | list }}{{ words | unique(true) | list }}{{ rows | unique(attribute='k') | map(attribute='name') | list }}
{{ [[1]] | unique | list }}
{{ l | min }}{{ l | max }}{{ words | min }}{{ words | max }}{{ [] | min }}|{{ rows | max(attribute='k') }}{{ words | max(case_sensitive=true) }}
{{ l | sum }}{{ rows | sum(attribute='k') }}{{ [] | sum }}{{ [0.1, 0.2] | sum }}{{ l | sum(start=10) }}{{ [[1], [2]] | sum(start=[]) }}
{{ ['a'] | sum }}
{{ l | first }}{{ l | last }}{{ 'abc' | first }}{{ 'abc' | last }}{{ [] | first }}|{{ [] | last }}|{{ d | first }}{{ d | last }}{{ range(3) | last }}{{ l | map('string') | first }}
{{ l | map('string') | last }}
{{ n | first }}
{{ l | reverse | list }}{{ 'héy' | reverse }}{{ (1, 2) | reverse | list }}{{ l | reverse | first }}{{ d | reverse | list }}{{ l | map('string') | reverse }}
{{ n | reverse }}
{{ l | reverse | length }}
{{ l | list }}{{ 'héy' | list }}{{ d | list }}{{ d.items() | list }}
{{ l | map('string') | list }}{{ rows | map(attribute='name') | list }}{{ rows | map(attribute='in.v') | list }}{{ rows | map(attribute='in.v', default=0) | list }}{{ rows | map(attribute='zz', default='-') | list }}{{ nested | map('first') | list }}{{ words | map('upper') | join }}{{ words | map('replace', 'a', 'X') | list }}{{ nested | map(attribute=0) | list }}{{ zz | map('upper') | list }}
{{ l | map('nofilter') | list }}
{{ l | map }}
{{ l | map | list }}
{{ l | map(foo=1) | list }}
{{ l | select('odd') | list }}{{ l | reject('odd') | list }}{{ [0, 1, '', 'a', none] | select | list }}{{ [0, 1] | reject | list }}{{ l | select('>', 1) | list }}{{ l | select('in', [1, 2]) | list }}{{ l | select('divisibleby', 3) | list }}{{ words | reject('equalto', 'a') | list }}
{{ rows | selectattr('in') | map(attribute='name') | list }}{{ rows | selectattr('k', 'equalto', 2) | map(attribute='name') | list }}{{ rows | rejectattr('k', 'eq', 2) | map(attribute='name') | list }}{{ rows | selectattr('in', 'defined') | list | length }}{{ rows | rejectattr('in') | list | length }}{{ rows | selectattr('in.v', 'gt', 1) | map(attribute='name') | first }}
{{ rows | selectattr | list }}
{{ l | select('notest') | list }}
{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | first | trim }}{{ messages | selectattr('role', 'in', ['user', 'system']) | list | length }}{{ (messages | selectattr('role', '==', 'system') | list)[0].content }}{{ (messages | rejectattr('tool_calls', 'defined') | list) | length }}
{{ d | dictsort }}{{ d | dictsort(true) }}{{ {'a': 2, 'b': 1} | dictsort(by='value') }}{{ d | dictsort(reverse=true) }}{% for k, v in {'b': 1, 'a': 2} | dictsort %}{{ k }}{{ v }}{% endfor %}
{{ d | dictsort(by='x') }}
{{ l | dictsort }}
{{ d | items | list }}{{ zz | items | list }}
{{ l | items | list }}
{{ rows | groupby('k') | map('first') | list }}{% for k, v in rows | groupby('k') %}{{ k }}:{{ v | map(attribute='name') | join }};{% endfor %}{% for g in rows | groupby('name') %}{{ g.grouper }}{{ g.list | length }}{% endfor %}{% for k, v in rows | groupby('in.v', default=9) %}{{ k }}{% endfor %}
{{ l | batch(2) | list }}{{ l | batch(2, 'x') | list }}{{ range(7) | slice(3) | list }}{{ range(7) | slice(3, 'x') | list }}
{{ s | replace('l', 'L') }}{{ s | replace('l', 'L', 1) }}{{ n | replace(3, 4) }}{{ s | replace('', '-') }}
{{ 'a\nb\n\nc' | indent }}|{{ 'a\nb' | indent(2, true) }}|{{ 'a\n\nb' | indent(2, blank=true) }}|{{ 'a\nb' | indent('> ', first=true) }}|{{ 'a\n' | indent }}|{{ '' | indent }}|{{ 'a' | indent(width=3, first=true) }}
{{ n | indent }}
{{ 'foo bar baz qux' | truncate(9) }}|{{ 'foo bar baz qux' | truncate(9, true) }}|{{ 'foo bar baz qux' | truncate(11) }}|{{ 'foo bar baz qux' | truncate(11, false, '...', 0) }}|{{ 'foobarbazquxx' | truncate(5, leeway=0) }}
{{ 'abc' | truncate(1) }}
{{ 'ab' | center(6) }}|{{ 'a b-c d' | wordcount }}|{{ 'é_1 x' | wordcount }}
{{ '42' | int }}{{ '42.9' | int }}{{ 'x' | int }}{{ 'x' | int(7) }}{{ '0x1f' | int(base=16) }}{{ '1f' | int(0, 16) }}{{ f | int }}{{ -2.9 | int }}{{ t | int }}{{ no | int }}{{ '1_000' | int }}{{ ' 5 ' | int }}{{ '1e3' | int }}{{ [] | int }}{{ '-7' | int }}{{ '99999999999999999999' | int }}
{{ zz | int }}
{{ '1.5' | float }}{{ 'x' | float }}{{ 'x' | float(2.0) }}{{ n | float }}{{ '1e400' | float }}{{ 'nan' | float }}{{ '-inf' | float }}{{ ' 1_0.5 ' | float }}{{ no | float }}
{{ -3 | abs }}{{ (-3) | abs }}{{ (-2.5) | abs }}{{ true | abs }}
{{ 'a' | abs }}
{{ 2.5 | round }}{{ 3.5 | round }}{{ 2.567 | round(2) }}{{ 2.5 | round(0, 'ceil') }}{{ 2.567 | round(1, 'floor') }}{{ 1234 | round(-2) }}{{ 5 | round }}{{ 2.675 | round(2) }}{{ -2.5 | round }}{{ 1e20 | round }}{{ 15 | round(-1) }}{{ 25 | round(-1) }}
{{ 1 | round(1, 'x') }}
{{ 'a' | round }}
{{ n | string }}{{ l | string }}{{ f | string | length }}{{ no | string }}
{{ html | e }}{{ html | escape }}{{ html | safe }}{{ html | forceescape }}{{ (html | safe) ~ '<' }}{{ n | e }}
{{ '<' + ('<b>' | safe) }}{{ ('<b>' | safe) + '<' }}{{ ('<b>' | safe) * 2 }}{{ ('%s' | safe) % '<' }}{{ ['<' | safe] }}{{ ('a<' | safe).upper() }}{{ ('a,<' | safe).split(',') }}{{ ('<' | safe).replace('<', '>') }}{{ ('<' | safe).join(['<', 'a']) }}{{ ('<b>' | safe)[0] }}{{ ('<' | safe) == '<' }}{{ ('x' | safe) | upper }}{{ ('<' | e) | e }}
{{ 'a b/c?d=é&f' | urlencode }}{{ {'a b': 1, 'c': 'd/e'} | urlencode }}{{ n | urlencode }}
{{ '<p>a  <b>b</b></p> &lt; c' | striptags }}{{ 'a<!-- x -->b' | striptags }}{{ 'a < b' | striptags }}
{{ 1000 | filesizeformat }}{{ 1 | filesizeformat }}{{ 500 | filesizeformat }}{{ 1500000 | filesizeformat }}{{ 1024 | filesizeformat(true) }}{{ 3000000 | filesizeformat(true) }}
{{ d | attr('a') }}|{{ s | attr('upper') is callable }}{{ d | attr('items') is callable }}
{{ l | random }}
{{ l | upper | first }}
{{ n | default }}{{ zz.y | default('x') }}
{{ n | upper(1) }}
{{ s | replace }}
{{ s | trim(foo=1) }}
## tojson
{{ d | tojson }}{{ l | tojson }}{{ s | tojson }}{{ n | tojson }}{{ f | tojson }}{{ t | tojson }}{{ no | tojson }}{{ u | tojson }}{{ q | tojson }}{{ html | tojson }}{{ mixed | tojson }}{{ floats | tojson }}{{ big | tojson }}
{{ d | tojson(indent=2) }}{{ [] | tojson(indent=2) }}{{ {} | tojson(indent=2) }}{{ nested | tojson(indent=4) }}{{ {'a': [], 'b': {}} | tojson(indent=1) }}{{ [1] | tojson(indent=0) }}{{ [1] | tojson(indent='--') }}
{{ d | tojson(separators=(',', ':')) }}{{ d | tojson(separators=[', ', ' = ']) }}{{ d | tojson(indent=2, separators=(',', ':')) }}{{ d | tojson(sort_keys=true) }}{{ u | tojson(ensure_ascii=true) }}{{ u | tojson(ensure_ascii=false) }}{{ '🙂\u007f\u0000' | tojson(true) }}
{{ {1: 'a', none: 2, true: 3, 1.5: 4} | tojson }}{{ (1, 2) | tojson }}{{ d.items() | list | tojson }}{{ rows | tojson }}{{ ('<' | safe) | tojson }}
{{ {(1, 2): 3} | tojson }}
{{ zz | tojson }}
{{ d.keys() | tojson }}
{{ range(2) | tojson }}
{{ namespace(a=1) | tojson }}
{{ s.upper | tojson }}
{{ d | tojson(indent=2.5) }}
{{ d | tojson(foo=1) }}
{{ messages | tojson }}{{ messages[2].tool_calls[0].function | tojson(indent=4) }}
{{ '\u2028<>&\'' | tojson }}
{{ {'b': 1, 'a': 2, 'B': 3} | tojson(sort_keys=true) }}
"""

SNIPPETS = [line.replace("⏎", "\n") for line in _lines(_TEXT)] + [
    "", "\n", "\r\n{{ n }}\r\nx\r", "a\r\n  {% if t %}\r\nb{% endif %}\r\n", "{{ 'a\r\nb' | length }}", "{% set x = 1 %}\n\n{{ x }}\n", "\ufeff{{ n }}", "{{ n }}\x0b{% if t %}x{% endif %}",
    "{%- macro p(x, y=1) -%}\n  {{- x }}{{ y -}}\n{%- endmacro -%}\n{{ p(1) }}\n{{ p(2, 3) }}",
    "{% for m in messages %}\n{% if m.role == 'user' %}\n<|user|>\n{{ m.content }}{{ '</s>' }}\n{% elif m.role == 'assistant' %}\n{{ m.content }}\n{% endif %}\n{% if loop.last %}\nEND\n{% endif %}\n{% endfor %}",
    "{% for a in [1, 2] %}{% for b in [1, 2] if b != a %}{{ a }}{{ b }}{{ loop.index }}{% if loop.last %}|{% endif %}{% endfor %}{% endfor %}",
    "{%- set ns = namespace(found=false, i=-1) -%}{%- for m in messages[::-1] -%}{%- if not ns.found and m.role == 'user' -%}{%- set ns.found = true -%}{%- set ns.i = messages | length - 1 - loop.index0 -%}{%- endif -%}{%- endfor -%}{{ ns.i }}{{ ns }}",
    "{% macro render(v) %}{% if v is mapping %}{ {%- for k, x in v.items() %}{{ k }}:{{ render(x) }}{% if not loop.last %},{% endif %}{% endfor -%} }{% elif v is iterable and v is not string %}[{% for x in v %}{{ render(x) }}{% if not loop.last %},{% endif %}{% endfor %}]{% else %}{{ v | tojson }}{% endif %}{% endmacro %}{{ render(mixed) }}{{ render(rows) }}",
    "{{ ''.join(['a', 'b'] | map('upper')) }}{{ '\\n'.join(rows | map(attribute='name')) }}", "{% set x = [] %}{% for i in l %}{% set x = x + [i] %}{% endfor %}{{ x }}",
    "{% set ns = namespace(x=[]) %}{% for i in l %}{% set ns.x = ns.x + [i * 2] %}{% endfor %}{{ ns.x }}{{ ns.x | sum }}",
    "{{ 'a' }}{% generation %}b{% generation %}c{% endgeneration %}d{% endgeneration %}e{% generation %}{% endgeneration %}", "{% set q %}{% generation %}b{% endgeneration %}{% endset %}x{{ q }}",
    "x{% for m in messages %}{% generation %}{{ m.content }}é{% endgeneration %}{% endfor %}", "{% macro g(x) %}{% generation %}{{ x }}{% endgeneration %}{% endmacro %}ab{{ g('c') }}{{ g('d') }}",
    "{{ " + "(" * 60 + "1" + ")" * 60 + " }}", "{{ " + " + ".join(["1"] * 150) + " }}", "{% if t %}" * 40 + "x" + "{% endif %}" * 40, "{{ [" + ",".join(["'a'"] * 300) + "] | length }}",
    "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}", "{% for a in range(9999) %}{% endfor %}x", "{{ {" + ",".join(f"'k{i}': {i}" for i in range(40)) + "}['k37'] }}",
]
