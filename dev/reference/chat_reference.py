"""
What transformers makes of a chat template, for the scripts that record and check tokenizer/jinja.c: its own environment (ImmutableSandboxedEnvironment, trim_blocks,
lstrip_blocks, loop controls, {% generation %}, tojson, raise_exception, strftime_now), one clock for all, and our program beside it.
"""
import datetime
import json
import os
import subprocess
import tempfile

from transformers.utils import chat_template_utils

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
SHARED = os.path.join(ROOT, "..", "shared", "data", "chat_templates")
EPOCH = 1750000000  # 2025-06-15, the time that strftime_now tells in goldens (SOURCE_DATE_EPOCH, TZ=UTC)
DEFAULTS = {"tools": None, "documents": None, "add_generation_prompt": False}  # what apply_chat_template hands over unasked


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.fromtimestamp(EPOCH, datetime.timezone.utc).replace(tzinfo=None)


chat_template_utils.datetime = Clock


def render(template, variables):
    """{"text", "spans" of {% generation %} in characters} or {"error"}."""
    try:
        compiled = chat_template_utils._compile_jinja_template(template)
        values = {**DEFAULTS, **json.loads(json.dumps(variables))}
        text, spans = chat_template_utils._render_with_assistant_indices(
            compiled, values.pop("messages", None), values.pop("tools"), values.pop("documents"), values.pop("add_generation_prompt"), **values)
        return {"text": text, "spans": spans}
    except Exception as e:  # whatever a template can raise
        return {"error": f"{type(e).__name__}: {e}"}


def ours(template, rows, program):
    """What `tokenize --render` makes of the rows: a text or None (an error, in `errors`) for each, and the errors."""
    with tempfile.NamedTemporaryFile("w", suffix=".jinja", encoding="utf-8", newline="", delete=False) as f:
        f.write(template)
    lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
    done = subprocess.run([program, "--chat", f.name, "--render"], input=lines.encode("utf-8", "surrogatepass"), capture_output=True,
                          env={**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH), "TZ": "UTC"})
    os.unlink(f.name)
    if done.returncode not in (0, 2):
        raise RuntimeError(f"exit status {done.returncode}: {done.stderr.decode(errors='replace')[-2000:]}")
    if not done.stdout:  # the template itself is refused
        return [None] * len(rows), [done.stderr.decode(errors="replace").strip()] * len(rows)
    got = [json.loads(line) for line in done.stdout.decode("utf-8").split("\n")[:-1]]
    assert len(got) == len(rows), (len(got), len(rows))
    return [g if isinstance(g, str) else None for g in got], [None if isinstance(g, str) else g["error"] for g in got]


def templates():
    """The real ones of ../shared, by name."""
    return {name[:-6]: open(os.path.join(SHARED, name), encoding="utf-8", newline="").read() for name in sorted(os.listdir(SHARED)) if name.endswith(".jinja")}


def tool(name, description, properties, required, **more):
    return {"type": "function", "function": {"name": name, "description": description, "parameters": {"type": "object", "properties": properties, "required": required}, **more}}


TOOLS = [
    tool("weather", "Get the weather <now> & \"later\" in a city.", {"city": {"type": "string", "description": "Where, e.g. Zürich"}, "unit": {"type": "string", "enum": ["C", "F"]}}, ["city"]),
    tool("add", "Add two numbers.", {"a": {"type": "number", "description": "one"}, "b": {"type": "integer", "default": 2}, "tags": {"type": "array", "items": {"type": "string"}},
                                     "flag": {"type": ["boolean", "null"], "nullable": True}, "deep": {"type": "object", "properties": {"x": {"oneOf": [{"type": "string"}, {"type": "number"}]}}}}, ["a", "b"]),
]


def user(text):
    return {"role": "user", "content": text}


def answer(text, **more):
    return {"role": "assistant", "content": text, **more}


def system(text):
    return {"role": "system", "content": text}


def call(name, arguments, identity=None):
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **({"id": identity} if identity else {})}


ODD = ["", " ", "  two words \n", "\n\nlines\n\n\n", "\t\u00a0 wide \u3000", "c é 你好 🙂 \u2028 ß İ", "{{ x }} {% if y %} {# z #} %} }} <b>&amp;</b>", "<|im_end|></s><|eot_id|>[/INST]<think>a</think>",
       "\"quotes\" 'and' \\ backslash", "a</think>b</think>c", "back\\n {0} %s %%", "x" * 300]
VARIABLES = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


def conversations():
    out = []
    for text in ODD:
        out += [[user(text)], [user("q"), answer(text)], [system(text), user("q")]]
    out += [
        [], [system("s")], [answer("first")], [user("a"), user("b")], [user("a"), answer("b"), answer("c"), user("d")], [user("a"), answer(" b "), user("c")],
        [system("Be brief."), user("a"), answer("b"), user("c d"), answer("e")], [user("a"), system("late"), user("b")],
        [system("s"), user("a"), answer("b"), user("c"), answer("d"), user("e"), answer("f")], [{"role": "other", "content": "x"}], [{"role": "user"}],
        [user("think"), answer("<think>\nhm\n</think>\n\nyes"), user("more"), answer("<think>\nagain\n</think>\n\nno")],
        [user("think"), answer("yes", reasoning_content="because"), user("more"), answer("no", reasoning_content=" why \n")],
        [user("think"), answer("yes", thinking="because"), user("more"), answer("no", thinking="why")],
        [{"role": "user", "content": [{"type": "text", "text": "part one"}, {"type": "text", "text": " part two "}]}],
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is it?"}]}, answer("a cat")],
        [{"role": "system", "content": [{"type": "text", "text": "sys"}]}, {"role": "user", "content": [{"type": "text", "text": "u"}]}],
        [user("a"), {"role": "assistant", "content": None}], [{"role": "developer", "content": "dev"}, user("a")],
        [user("weather?"), answer("", tool_calls=[call("weather", {"city": "Zürich", "unit": "C"}, "abcdefghi")]), {"role": "tool", "content": "22 °C", "name": "weather", "tool_call_id": "abcdefghi"}, answer("22.")],
        [user("both"), answer("I call", tool_calls=[call("weather", {"city": "B"}, "000000001"), call("add", {"a": 1.5, "b": 2, "deep": {"x": [1, None, True]}}, "000000002")]),
         {"role": "tool", "content": "{\"t\": 1}", "name": "weather", "tool_call_id": "000000001"}, {"role": "tool", "content": "3.5", "name": "add", "tool_call_id": "000000002"}, answer("done"), user("thanks")],
        [user("x"), {"role": "assistant", "tool_calls": [call("weather", "{\"city\": \"as text\"}", "abcdefghi")]}, {"role": "tool", "content": "ok", "tool_call_id": "abcdefghi"}],
        [user("x"), {"role": "assistant", "tool_calls": [{"name": "weather", "arguments": {"city": "flat"}}]}, {"role": "ipython", "content": {"a": [1]}}],
        [user("x"), answer(None, thinking="t", tool_calls=[call("add", {"a": 1})]), {"role": "tool", "content": "1"}, answer("y", thinking="z")],
    ]
    return out


def rows():
    """Every conversation with and without a generation prompt, and with tools; some with variables that templates look for."""
    out = []
    for messages in conversations():
        for ask in (False, True):
            out.append({"messages": messages, "add_generation_prompt": ask, **VARIABLES})
        out.append({"messages": messages, "add_generation_prompt": True, "tools": TOOLS, **VARIABLES})
    few = [[user("a")], [system("s"), user("a"), answer("b"), user("c")], [user("q"), answer("r", reasoning_content="t"), user("c"), answer("d", thinking="u")]]
    for messages in few:
        for extra in ({"enable_thinking": False}, {"enable_thinking": True}, {"thinking": True}, {"date_string": "1 Jan 2030"}, {"builtin_tools": ["browser", "python", "code_interpreter"]}, {"tools_in_user_message": False},
                      {"reasoning_effort": "high", "model_identity": "You are X."}, {"custom_tools": TOOLS}, {"documents": [{"title": "T", "text": "body"}, {"title": "U", "text": "more"}]},
                      {"tools": []}, {"preserve_thinking": True, "add_vision_id": True}):
            out.append({"messages": messages, "tools": TOOLS, "add_generation_prompt": True, **VARIABLES, **extra})
    return out
