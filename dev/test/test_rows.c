/*
Rows and files as people have them: every layout, the fields beside it, turns of every spelling, JSON that Python writes
and JSON does not allow, files under the wrong name, in UTF-16, compressed, with any delimiter; what is refused and why.
Records are written with ' for ".
*/
#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>
#include "check.h"
#include "base/error.h"
#include "base/file.h"
#include "refuses.h"
#include "rows/dataset.h"
#include "rows/tokens.h"
#include "scratch.h"

static const char* quoted(const char* text) {
    static char copy[8][4096];
    static int at;
    char* s = copy[at++ % 8];
    snprintf(s, sizeof copy[0], "%s", text);
    for (char* c = s; *c; c++)
        if (*c == '\'') *c = '"';
    return s;
}

// All rows of a file, one per line: "prompt|answer", or "! why" of one that is left out; line ends in texts as ~.
static char* rows_text(const char* path, const RowOptions* options, RowReport* report) {
    static Text out;
    RowReader* r = rows_open(&(StringList){&path, 1}, options);
    DataRow row;
    out.n = 0;
    text_add(&out, "", 0);
    while (rows_next(r, &row)) {
        size_t from = out.n;
        if (row.state == ROW_OK) {
            text_add(&out, row.prompt, row.prompt_length);
            text_add(&out, "|", 1);
            text_add(&out, row.response, row.response_length);
        } else {
            const char* why = *row.why ? row.why : row_state_name(row.state);
            text_add(&out, "! ", 2);
            text_add(&out, why, strlen(why));
        }
        for (; from < out.n; from++)
            if (out.s[from] == '\n') out.s[from] = '~';
        text_add(&out, "\n", 1);
        if (report) row_report_add(report, &row, path, NULL);
    }
    if (report) rows_report(r, report);
    rows_close(r);
    return out.s;
}
static void expect(const char* name, const char* path, const RowOptions* options, const char* expected) {
    char* got = rows_text(path, options, NULL);
    if (!check(!strcmp(got, expected), "%s", name)) printf("# got  %s# expected %s", got, expected);
}

typedef struct {
    const char *what, *record, *expected;
} Case;
static void expect_cases(const Case* cases, size_t n, const RowOptions* options) {
    for (size_t i = 0; i < n; i++) {
        char expected[1024];
        snprintf(expected, sizeof expected, "%s\n", cases[i].expected);
        expect(cases[i].what, put("case.jsonl", quoted(cases[i].record)), options, expected);
    }
}
#define EXPECT_CASES(cases, options) expect_cases(cases, sizeof cases / sizeof *cases, options)

// ---------------------------------------------------------------------------------------------------
// records

// Lists of turns and preferences as published datasets spell them.
static void test_other_spellings(void) {
    static const Case cases[] = {
        {"one turn alone as the answer",
         "{'conversations':[{'from':'human','value':'H'}],'chosen':{'from':'gpt','value':'C'},'rejected':{'from':'gpt',"
         "'value':'R'}}",
         "Human: H~Assistant: |C"},
        {"a text as the answer to turns", "{'messages':[{'role':'user','content':'U'}],'chosen':'C','rejected':'R'}",
         "Human: U~Assistant: |C"},
        {"turns without any answer", "{'messages':[{'role':'user','content':'U'}]}",
         "! the last turn is not the assistant's"},
        {"an instruction with a preference", "{'instruction':'I','input':'N','chosen':'C','rejected':'R'}",
         "Human: I~N~Assistant: |C"},
        {"a question with a preference", "{'system':'S','question':'Q','chosen':'C','rejected':'R'}",
         "S~Human: Q~Assistant: |C"},
        {"texts that take turns", "{'id':'0','data':['a','b','c','d']}",
         "Human: a~Assistant: b~Human: c~Assistant: |d"},
        {"of odd number", "{'dialog':['a','b','c']}", "! the last turn is not the assistant's"},
        {"a single text", "{'dialog':['a']}", "! fits no layout; its fields: dialog"},
        {"pairs", "{'conversation':[{'human':'a','assistant':'b'},{'human':'c','assistant':'d'}]}",
         "Human: a~Assistant: b~Human: c~Assistant: |d"},
        {"pairs with a system text",
         "{'conversation':[{'system':'S','input':'a','output':'b'},{'input':'c','output':'d'}]}",
         "S~Human: a~Assistant: b~Human: c~Assistant: |d"},
        {"pairs with something else", "{'conversation':[{'input':'a','output':'b','image':'x.png'}]}",
         "! fits no layout; its fields: conversation"},
        {"a list as JSON in a text",
         "{'messages':' [{\\'role\\':\\'user\\',\\'content\\':\\'U\\'},{\\'role\\':\\'assistant\\',"
         "\\'content\\':\\'A\\'}]'}",
         "Human: U~Assistant: |A"},
        {"a list in a text that is not JSON", "{'messages':'[{role: user}]'}",
         "! field \"messages\" is a text that is not a JSON list of turns (Python's repr of one?)"},
        {"a list of something else", "[['U','A']]", "! is not an object with named fields"},
        {"turns with the fields of two sources",
         "{'messages':[{'from':null,'role':'user','value':null,'content':'U','weight':null},{'from':'gpt','role':null,"
         "'value':'A','content':null}]}",
         "Human: U~Assistant: |A"},
        {"rows with the fields of two sources",
         "{'prompt':null,'response':null,'instruction':'I','input':null,'output':'O','messages':null}",
         "Human: I~Assistant: |O"},
        {"and turns",
         "{'prompt':null,'response':null,'messages':[{'role':'user','content':'U'},{'role':'assistant',"
         "'content':'A'}]}",
         "Human: U~Assistant: |A"},
        {"nothing but nulls", "{'prompt':null,'response':null}", "! with an empty prompt"},
        {"a system text in parts", "{'system':[{'type':'text','text':'S'}],'prompt':'P','response':'R'}",
         "S~Human: P~Assistant: |R"},
        {"an HH dialogue without its first line ends", "{'chosen':'Human: A\\n\\nAssistant: B','rejected':'x'}",
         "Human: A~Assistant: |B"},
        {"a text that only begins like one", "{'chosen':'Human: A','rejected':'x'}",
         "! fits no layout; its fields: chosen, rejected"},
    };
    EXPECT_CASES(cases, &(RowOptions){0});
    static const Case sides[] = {
        {"the rejected turn",
         "{'conversations':[{'from':'human','value':'H'}],'chosen':{'from':'gpt','value':'C'},"
         "'rejected':{'from':'gpt','value':'R'}}",
         "Human: H~Assistant: |R"},
        {"the rejected text", "{'instruction':'I','chosen':'C','rejected':'R'}", "Human: I~Assistant: |R"},
    };
    EXPECT_CASES(sides, &(RowOptions){.response_field = "rejected"});
    expect("rows that are lists of turns",
           put("lists.jsonl", quoted("[{'role':'user','content':'U'},{'role':'assistant','content':'A'}]\n[{'from':'"
                                     "human','value':'H'},{'from':'gpt','value':'G'}]\n")),
           &(RowOptions){0}, "Human: U~Assistant: |A\nHuman: H~Assistant: |G\n");
    expect("turns in a table",
           put("turns.csv",
               "id,messages\n1,\"[{\"\"role\"\": \"\"user\"\", \"\"content\"\": \"\"a, b\"\"}, {\"\"role\"\": "
               "\"\"assistant\"\", \"\"content\"\": \"\"c\"\"}]\"\n"),
           &(RowOptions){0}, "Human: a, b~Assistant: |c\n");
}

static void test_fields(void) {
    static const Case cases[] = {
        {"a system text beside fields", "{'instruction':'I','input':'','output':'O','system':'S'}",
         "S~Human: I~Assistant: |O"},
        {"before every other layout", "{'question':'Q','answer':'A','system':'S'}", "S~Human: Q~Assistant: |A"},
        {"before turns", "{'system':'S','conversations':[{'from':'human','value':'H'},{'from':'gpt','value':'G'}]}",
         "S~Human: H~Assistant: |G"},
        {"before an HH dialogue", "{'system':'S','chosen':'\\n\\nHuman: A\\n\\nAssistant: B'}",
         "S~Human: A~Assistant: |B"},
        {"an empty system text is none", "{'system':'','prompt':'P','response':'R'}", "Human: P~Assistant: |R"},
        {"the turns' own system text counts, not the row's",
         "{'system':'S','messages':[{'role':'system','content':'T'},{'role':'user','content':'U'},{'role':'assistant',"
         "'content':'A'}]}",
         "T~Human: U~Assistant: |A"},
        {"a system text that is a list", "{'system':['S'],'prompt':'P','response':'R'}",
         "! field \"system\" is not a text but a list"},
        {"system_prompt is left out, as by the reference", "{'system_prompt':'S','question':'Q','response':'R'}",
         "Human: Q~Assistant: |R"},
        {"history before the prompt", "{'instruction':'I','output':'O','history':[['a','b'],['c','d']]}",
         "Human: a~Assistant: b~Human: c~Assistant: d~Human: I~Assistant: |O"},
        {"history after a system text", "{'instruction':'I','output':'O','system':'S','history':[['a','b']]}",
         "S~Human: a~Assistant: b~Human: I~Assistant: |O"},
        {"an empty history", "{'instruction':'I','output':'O','history':[]}", "Human: I~Assistant: |O"},
        {"null as history", "{'instruction':'I','output':'O','history':null}", "Human: I~Assistant: |O"},
        {"a history of three", "{'instruction':'I','output':'O','history':[['a','b','c']]}",
         "! \"history\" holds something else than pairs of a question and an answer"},
        {"a history that is a text", "{'instruction':'I','output':'O','history':'earlier'}",
         "! \"history\" is a text, not a list of pairs"},
        {"a number as input", "{'instruction':'I','input':5,'output':'O'}", "Human: I~5~Assistant: |O"},
        {"as it is written", "{'instruction':'I','input':-2.50e3,'output':'O'}", "Human: I~-2.50e3~Assistant: |O"},
        {"however long", "{'instruction':'I','input':123456789012345678901234567890,'output':'O'}",
         "Human: I~123456789012345678901234567890~Assistant: |O"},
        {"among others", "{'id':1,'n':[2,{'m':3.0}],'instruction':'4','input':5.10,'output':'O','z':6}",
         "Human: 4~5.10~Assistant: |O"},
        {"a number as prompt", "{'question':42,'answer':'A'}", "Human: 42~Assistant: |A"},
        {"a list as input", "{'instruction':'I','input':[3,1],'output':'O'}",
         "! field \"input\" is not a text but a list"},
        {"an object as input", "{'instruction':'I','input':{'a':1},'output':'O'}",
         "! field \"input\" is not a text but an object"},
        {"a truth value as input", "{'instruction':'I','input':true,'output':'O'}",
         "! field \"input\" is not a text but a truth value"},
        {"a list as context", "{'instruction':'I','context':['a'],'response':'R'}",
         "! field \"context\" is not a text but a list"},
        {"null as input", "{'instruction':'I','input':null,'output':'O'}", "Human: I~Assistant: |O"},
        {"a number as response", "{'prompt':'P','response':5}",
         "! fits no layout; its fields: prompt, response (not a text)"},
        {"an object as output", "{'instruction':'I','output':{'a':1}}",
         "! fits no layout; its fields: instruction, output (not a text)"},
        {"null as output", "{'instruction':'I','output':null}", "! with an empty response"},
        {"names in another case", "{'Instruction':'I','INPUT':'N','Output':'O'}", "Human: I~N~Assistant: |O"},
        {"the exact name before another case", "{'prompt':'P','Prompt':'X','response':'R'}", "Human: P~Assistant: |R"},
        {"the last of two equal names", "{'prompt':'P','response':'wrong','response':'R'}", "Human: P~Assistant: |R"},
        {"a negative weight", "{'prompt':'P','response':'R','weight':-1}",
         "! its \"weight\" is -1; a weight is 0 or more"},
        {"a weight that is a text is a field like others", "{'prompt':'P','response':'R','weight':'70 kg'}",
         "Human: P~Assistant: |R"},
    };
    EXPECT_CASES(cases, &(RowOptions){0});
}

static void test_turns(void) {
#define U(text) "{'role':'user','content':" text "}"
#define A(text) "{'role':'assistant','content':" text "}"
    static const Case cases[] = {
        {"two turns of the user", "{'messages':[" U("'a'") "," U("'b'") "," A("'c'") "]}", "Human: a~b~Assistant: |c"},
        {"two of the assistant amid the dialogue",
         "{'messages':[" U("'a'") "," A("'b'") "," A("'c'") "," U("'d'") "," A("'e'") "]}",
         "Human: a~Assistant: b~c~Human: d~Assistant: |e"},
        {"two at its end: the last is the answer", "{'messages':[" U("'a'") "," A("'b'") "," A("'c'") "]}",
         "Human: a~Assistant: b~|c"},
        {"an empty turn adds no line", "{'messages':[" U("''") "," U("'b'") "," A("'c'") "]}",
         "Human: b~Assistant: |c"},
        {"the assistant begins", "{'messages':[" A("'hello'") "," U("'a'") "," A("'b'") "]}",
         "hello~Human: a~Assistant: |b"},
        {"a list that ends with the user", "{'messages':[" U("'a'") "," A("'b'") "," U("'c'") "]}",
         "! the last turn is not the assistant's"},
        {"parts of text",
         "{'messages':[" U("[{'type':'text','text':'a'},{'type':'text','text':'b'}]") "," A("['c']") "]}",
         "Human: ab~Assistant: |c"},
        {"parts as the Responses API has them",
         "{'messages':[" U("[{'type':'input_text','text':'a'}]") "," A("[{'type':'output_text','text':'b'}]") "]}",
         "Human: a~Assistant: |b"},
        {"no parts at all", "{'messages':[" U("[]") "," A("'b'") "]}", "! with an empty prompt"},
        {"a picture",
         "{'messages':[" U("[{'type':'text','text':'a'},{'type':'image_url','image_url':{'url':'x'}}]") "," A(
             "'b'") "]}",
         "! turn 1: part 2 of its content is of type \"image_url\"; only text can be trained on"},
        {"sound", "{'messages':[" U("'a'") "," A("[{'type':'audio'}]") "]}",
         "! turn 2: part 1 of its content is of type \"audio\"; only text can be trained on"},
        {"a number among the parts", "{'messages':[" U("[5]") "," A("'b'") "]}",
         "! turn 1: part 1 of its content has no text but a number"},
        {"a number as content", "{'messages':[" U("17") "," A("'b'") "]}", "Human: 17~Assistant: |b"},
        {"an object as content", "{'messages':[" U("{'a':1}") "," A("'b'") "]}",
         "! turn 1: \"content\" is an object, not a text"},
        {"no content", "{'messages':[{'role':'user'}," A("'b'") "]}", "! turn 1 has no text in \"content\""},
        {"no role", "{'messages':[" U("'a'") ",{'content':'b'}]}", "! turn 2 has no \"role\" (or \"from\")"},
        {"prompt and completion as turns", "{'prompt':[" U("'a'") "],'completion':[" A("'b'") "]}",
         "Human: a~Assistant: |b"},
        {"with a system turn", "{'prompt':[{'role':'system','content':'S'}," U("'a'") "],'completion':[" A("'b'") "]}",
         "S~Human: a~Assistant: |b"},
        {"prompt, chosen, rejected as turns",
         "{'prompt':[" U("'a'") "],'chosen':[" A("'b'") "],'rejected':[" A("'c'") "]}", "Human: a~Assistant: |b"},
        {"a prompt as text, chosen as turns that repeat it",
         "{'prompt':'a','chosen':[" U("'a'") "," A("'b'") "],'rejected':[" U("'a'") "," A("'c'") "]}",
         "Human: a~Assistant: |b"},
        {"a prompt as turns that chosen repeats",
         "{'prompt':[" U("'a'") "," A("'x'") "," U("'y'") "],'chosen':[" U("'a'") "," A("'x'") "," U("'y'") "," A(
             "'b'") "]}",
         "Human: a~Assistant: x~Human: y~Assistant: |b"},
        {"chosen and rejected alone", "{'chosen':[" U("'a'") "," A("'b'") "],'rejected':[" U("'a'") "," A("'c'") "]}",
         "Human: a~Assistant: |b"},
        {"a completion that ends with the user", "{'prompt':[" U("'a'") "],'completion':[" A("'b'") "," U("'c'") "]}",
         "! the last turn is not the assistant's"},
        {"from and value", "{'conversations':[{'from':'human','value':'a'},{'from':'gpt','value':'b'}]}",
         "Human: a~Assistant: |b"},
        {"under the name messages", "{'messages':[{'from':'human','value':'a'},{'from':'gpt','value':'b'}]}",
         "Human: a~Assistant: |b"},
        {"from and content", "{'conversation':[{'from':'user','content':'a'},{'from':'bot','content':'b'}]}",
         "Human: a~Assistant: |b"},
        {"role and text", "{'chat':[{'role':'prompter','text':'a'},{'role':'model','text':'b'}]}",
         "Human: a~Assistant: |b"},
        {"speakers in another case", "{'messages':[{'role':'User','content':'a'},{'role':'ASSISTANT','content':'b'}]}",
         "Human: a~Assistant: |b"},
        {"a developer's turn is the system's",
         "{'messages':[{'role':'developer','content':'S'}," U("'a'") "," A("'b'") "]}", "S~Human: a~Assistant: |b"},
        {"an unknown speaker", "{'messages':[" U("'a'") ",{'role':'narrator','content':'x'}," A("'b'") "]}",
         "! turn 2: \"narrator\" is neither user, assistant nor system"},
        {"an unknown speaker at the end", "{'conversations':[{'from':'human','value':'a'},{'from':'x1','value':'b'}]}",
         "! turn 2: \"x1\" is neither user, assistant nor system"},
        {"a tool's turn", "{'messages':[" U("'a'") ",{'role':'tool','content':'7'}," A("'b'") "]}",
         "! turn 2: \"tool\" is neither user, assistant nor system"},
        {"a call of a function",
         "{'conversations':[{'from':'human','value':'a'},{'from':'function_call','value':'{}'},{'from':'observation',"
         "'value':'20'},{'from':'gpt','value':'b'}]}",
         "! turn 2: \"function_call\" is neither user, assistant nor system"},
        {"a negative weight of a turn", "{'messages':[" U("'a'") ",{'role':'assistant','content':'b','weight':-0.5}]}",
         "! turn 2: \"weight\" is not a number from 0 on"},
    };
    EXPECT_CASES(cases, &(RowOptions){0});
    static const Case rejected[] = {
        {"the rejected side, prompt as turns",
         "{'prompt':[" U("'a'") "],'chosen':[" A("'b'") "],'rejected':[" A("'c'") "]}", "Human: a~Assistant: |c"},
        {"the rejected side, whole dialogues",
         "{'chosen':[" U("'a'") "," A("'b'") "],'rejected':[" U("'a'") "," A("'c'") "]}", "Human: a~Assistant: |c"},
        {"another answer to a list of turns", "{'messages':[" U("'a'") "," A("'b'") "],'rejected':'c'}",
         "Human: a~Assistant: |c"},
    };
    EXPECT_CASES(rejected, &(RowOptions){.response_field = "rejected"});
    static const Case prompts[] = {
        {"a prompt of turns", "{'prompt':[" U("'a'") "]}", "Human: a~Assistant: |"},
        {"a prompt with its history", "{'instruction':'I','history':[['a','b']]}",
         "Human: a~Assistant: b~Human: I~Assistant: |"},
        {"turns without an answer", "{'messages':[{'role':'system','content':'S'}," U("'a'") "]}",
         "S~Human: a~Assistant: |"},
        {"a prompt in parts", "{'messages':[" U("[{'type':'text','text':'a'}]") "]}", "Human: a~Assistant: |"},
    };
    EXPECT_CASES(prompts, &(RowOptions){.prompts_only = true});
}

static void test_odd_json(void) {
    static const Case cases[] = {
        {"NaN that nobody reads", "{'prompt':'P','response':'R','score':NaN}", "Human: P~Assistant: |R"},
        {"Infinity", "{'score':Infinity,'prompt':'P','response':'R'}", "Human: P~Assistant: |R"},
        {"-Infinity in a list", "{'prompt':'P','scores':[1,-Infinity,NaN],'response':'R'}", "Human: P~Assistant: |R"},
        {"NaN inside texts is text", "{'prompt':'NaN, Infinity','response':'NaN','x':NaN}",
         "Human: NaN, Infinity~Assistant: |NaN"},
        {"NaN as input is a missing one", "{'instruction':'I','input':NaN,'output':'O'}", "Human: I~Assistant: |O"},
        {"Infinity as input is not a text", "{'instruction':'I','input':Infinity,'output':'O'}",
         "! field \"input\" is not a text but a number"},
        {"NaN as output", "{'instruction':'I','output':NaN}", "! with an empty response"},
        {"the first half of a pair alone", "{'prompt':'a\\ud83d b','response':'R'}",
         "Human: a\xEF\xBF\xBD b~Assistant: |R"},
        {"the second half alone", "{'prompt':'a\\ude00','response':'R'}", "Human: a\xEF\xBF\xBD~Assistant: |R"},
        {"both in the wrong order", "{'prompt':'\\ude00\\ud83d','response':'R'}",
         "Human: \xEF\xBF\xBD\xEF\xBF\xBD~Assistant: |R"},
        {"a first half before a whole pair", "{'prompt':'\\ud83d\\ud83d\\ude00','response':'R'}",
         "Human: \xEF\xBF\xBD\xF0\x9F\x98\x80~Assistant: |R"},
        {"a half in a field nobody reads", "{'prompt':'P','response':'R','x':'\\uD83D'}", "Human: P~Assistant: |R"},
        {"a backslash before u is text", "{'prompt':'\\\\ud83d','response':'R','x':NaN}",
         "Human: \\ud83d~Assistant: |R"},
        {"numbers after what was put right", "{'x':NaN,'instruction':'I','input':1.50,'output':'O'}",
         "Human: I~1.50~Assistant: |O"},
        {"a huge number", "{'id':1234567890123456789012345678901234567890,'prompt':'P','response':'R'}",
         "Human: P~Assistant: |R"},
        {"a zero character in a field nobody reads", "{'prompt':'P','response':'R','x':'a\\u0000b','y':['\\u0000']}",
         "Human: P~Assistant: |R"},
        {"a zero character in the prompt", "{'prompt':'a\\u0000b','response':'R'}", "! holds a zero character"},
        {"in a turn's part",
         "{'messages':[{'role':'user','content':[{'type':'text','text':'\\u0000'}]},{'role':'assistant','content':'b'}]"
         "}",
         "! holds a zero character"},
        {"in a call",
         "{'messages':[{'role':'user','content':'a'},{'role':'assistant','content':'b','tool_calls':['\\u0000']}]}",
         "! holds a zero character"},
        {"its escape written out is text", "{'prompt':'\\\\u0000','response':'R'}", "Human: \\u0000~Assistant: |R"},
        {"what is still no JSON", "{'prompt':'P','response':Nan}", "! is not JSON at byte 25 of the row"},
        {"nor this", "{'prompt':'P','x':NaN,'response':}", "! is not JSON at byte 18 of the row"},
    };
    EXPECT_CASES(cases, &(RowOptions){0});
}

// ---------------------------------------------------------------------------------------------------
// what a chat template is given

static Conversation conversation_of(const char* record, RowState* state) {
    const char* path = put("one.jsonl", quoted(record));
    RowReader* r = rows_open(&(StringList){&path, 1}, &(RowOptions){.conversations = true});
    DataRow row;
    Conversation c = {0};
    *state = ROW_MALFORMED;
    if (rows_next(r, &row)) {
        *state = row.state;
        c = *row.conversation;
        *row.conversation = (Conversation){0};  // moved: it outlives its reader
    }
    rows_close(r);
    return c;
}
static bool message_is(const Conversation* c, int i, MessageRole role, const char* name, const char* content) {
    return i < c->n && c->messages[i].role == role && !strcmp(c->messages[i].role_name, name) &&
           !strcmp(c->messages[i].content, content) && c->messages[i].length == strlen(content);
}

static void test_conversations(void) {
    RowState state;
    Conversation c = conversation_of(
        "{'messages':[{'role':'user','content':'a'},{'role':'assistant','content':null,'tool_calls':[{'function':{'"
        "name':"
        "'f','arguments':{}}}]},{'role':'tool','content':'7','name':'f'},{'role':'assistant','content':'b','weight':0,"
        "'reasoning_content':'r'}],'tools':[{'name':'f'}],'weight':0.5}",
        &state);
    check(state == ROW_OK && c.n == 4 && c.answered && !c.as_it_is, "a row with tools is whole for a template");
    check(message_is(&c, 0, ROLE_USER, "user", "a") && message_is(&c, 1, ROLE_ASSISTANT, "assistant", "") &&
              message_is(&c, 2, ROLE_TOOL, "tool", "7") && message_is(&c, 3, ROLE_ASSISTANT, "assistant", "b"),
          "its messages");
    check(c.n == 4 && cJSON_GetObjectItem(c.messages[1].fields, "tool_calls") &&
              cJSON_GetObjectItem(c.messages[3].fields, "reasoning_content") && message_passes("tool_calls") &&
              message_passes("name") && !message_passes("content") && !message_passes("weight"),
          "further fields of the turns");
    check(c.n == 4 && c.messages[3].weight == 0 && c.messages[1].weight == 1 && c.weight == 0.5, "weights");
    check(cJSON_GetArraySize(c.tools) == 1, "tools");
    conversation_free(&c);
    c = conversation_of(
        "{'conversations':[{'from':'human','value':'a'},{'from':'function_call','value':'{\\'name\\':\\'f\\',\\'"
        "arguments"
        "\\':{\\'x\\':1}}'},{'from':'observation','value':'20'},{'from':'gpt','value':'b'}],'system':'S','tools':'[{\\'"
        "name"
        "\\':\\'f\\'}]'}",
        &state);
    const cJSON* call = c.n > 2 ? cJSON_GetArrayItem(cJSON_GetObjectItem(c.messages[2].fields, "tool_calls"), 0) : NULL;
    check(state == ROW_OK && c.n == 5 && message_is(&c, 0, ROLE_SYSTEM, "system", "S") &&
              message_is(&c, 2, ROLE_ASSISTANT, "assistant", "") && message_is(&c, 3, ROLE_TOOL, "tool", "20"),
          "ShareGPT's function_call and observation are a call and a tool's turn");
    check(!strcmp(cJSON_GetStringValue(cJSON_GetObjectItem(cJSON_GetObjectItem(call, "function"), "name")) ?: "", "f"),
          "the call has the form of tool_calls");
    check(cJSON_GetArraySize(c.tools) == 1, "tools written as a text are read");
    conversation_free(&c);
    c = conversation_of(
        "{'conversations':[{'from':'human','value':'a'},{'from':'function_call','value':'call f'},{'from':"
        "'gpt','value':'b'}]}",
        &state);
    check(state == ROW_OK && message_is(&c, 1, ROLE_ASSISTANT, "assistant", "call f"),
          "a call that is not JSON is text");
    conversation_free(&c);
    c = conversation_of(
        "{'messages':[{'role':'developer','content':'S'},{'role':'user','content':'a'},{'role':'user',"
        "'content':'b'},{'role':'critic','content':'x'},{'role':'assistant','content':'c'}]}",
        &state);
    check(state == ROW_OK && c.n == 5 && message_is(&c, 0, ROLE_SYSTEM, "developer", "S") &&
              message_is(&c, 3, ROLE_OTHER, "critic", "x") && message_is(&c, 2, ROLE_USER, "user", "b"),
          "turns of one speaker stay apart, and names that a template may know stay");
    conversation_free(&c);
    c = conversation_of("{'system_prompt':'S','question':'Q','response':'R'}", &state);
    check(c.n == 3 && c.system_prompt && message_is(&c, 0, ROLE_SYSTEM, "system", "S"),
          "system_prompt is a system turn");
    Text asked = {0};
    conversation_question(&c, &asked);
    check(!strcmp(asked.s, "Q"), "what was asked leaves it out");
    conversation_free(&c);
    c = conversation_of(
        "{'messages':[{'role':'system','content':'S'},{'role':'user','content':'a'},{'role':'assistant',"
        "'content':'b'},{'role':'user','content':'c'},{'role':'assistant','content':'d'}]}",
        &state);
    asked.n = 0;
    conversation_question(&c, &asked);
    check(!strcmp(asked.s, "S\na\nb\nc"), "of several turns it is every text before the answer, a line each");
    text_free(&asked);
    conversation_free(&c);
    c = conversation_of("{'prompt':'P','chosen':'C','system':'S'}", &state);
    check(c.n == 2 && c.as_it_is && c.answered, "prompt/chosen texts are used as they are");
    conversation_free(&c);
    c = conversation_of(
        "{'messages':[{'role':'user','content':'a'},{'role':'assistant','content':null,'tool_calls':[{}]}]}", &state);
    check(state == ROW_OK, "an answer may be a call alone");
    conversation_free(&c);
    c = conversation_of("{'messages':[{'role':'user','content':'a'},{'role':'tool','content':'x'}]}", &state);
    check(state == ROW_MALFORMED, "a tool's turn is not an answer");
    conversation_free(&c);
}

// ---------------------------------------------------------------------------------------------------
// files

static const char* put_bytes(const char* name, const void* bytes, size_t n) {
    const char* path = in_directory(name);
    file_write(path, bytes, n);
    return path;
}

// UTF-8 as UTF-16.
static const char* put_utf16(const char* name, const char* text, bool big, bool mark) {
    Text out = {0};
    const unsigned char* s = (const unsigned char*)text;
    if (mark) text_add(&out, big ? "\xFE\xFF" : "\xFF\xFE", 2);
    while (*s) {
        unsigned c = *s, n = c < 0x80 ? 0 : c < 0xE0 ? 1 : c < 0xF0 ? 2 : 3, units[2], k = 0;
        c = n ? c & (0x3F >> n) : c;
        for (s++; n; n--, s++) c = c << 6 | (*s & 0x3F);
        if (c >= 0x10000) {
            units[k++] = 0xD800 + ((c - 0x10000) >> 10);
            c = 0xDC00 + ((c - 0x10000) & 0x3FF);
        }
        units[k++] = c;
        for (unsigned i = 0; i < k; i++) {
            char pair[2] = {(char)(units[i] >> (big ? 8 : 0)), (char)(units[i] >> (big ? 0 : 8))};
            text_add(&out, pair, 2);
        }
    }
    const char* path = put_bytes(name, out.s, out.n);
    text_free(&out);
    return path;
}

static const char* put_zstd(const char* name, const char* text, bool two_frames) {
    static char out[1 << 16];
    size_t n = strlen(text), half = two_frames ? n / 2 : n, at = 0;
    if (two_frames) {  // a frame that is to be skipped, as parallel compressors write first
        memcpy(out, "\x50\x2A\x4D\x18\4\0\0\0abcd", 12);
        at = 12;
    }
    at += ZSTD_compress(out + at, sizeof out - at, text, half, 3);
    if (two_frames) at += ZSTD_compress(out + at, sizeof out - at, text + half, n - half, 3);
    return put_bytes(name, out, at);
}

static void expect_note(const char* name, const char* path, const char* expected, const char* note) {
    RowReport report = {0};
    char* got = rows_text(path, &(RowOptions){.prompt_template = "{prompt}>"}, &report);
    const char* said = report.n_notes ? report.notes[0] : "";
    bool good = !strcmp(got, expected) && (*note ? strstr(said, note) != NULL : !*said);
    if (!check(good, "%s", name)) printf("# got  %s# expected %s# said %s\n", got, expected, said);
}

#define ONE "{'prompt':'a \xC3\xA9 \xF0\x9F\x98\x80','response':'b'}"
#define TWO "{'prompt':'c','response':'d'}"
#define ROWS "a \xC3\xA9 \xF0\x9F\x98\x80>|b\nc>|d\n"

static void test_json_files(void) {
    const char *lines = quoted(ONE "\n" TWO "\n"), *array = quoted("[" ONE ",\n" TWO "]\n"),
               *laid_out = quoted(
                   "{\n  'prompt': 'a \xC3\xA9 \xF0\x9F\x98\x80',\n  'response': 'b'\n}\n{\n  'prompt': "
                   "'c',\n  'response': 'd'\n}\n"),
               *wrapped = quoted("{'data': [" ONE "," TWO "]}");
    expect_note("lines under .json", put("l.json", lines), ROWS, "one row per line under the name .json");
    expect_note("lines under .ndjson", put("l.ndjson", lines), ROWS, "");
    expect_note("an array under .jsonl", put("a.jsonl", array), ROWS, "one array of rows under the name .jsonl");
    expect_note("an array on one line under .jsonl", put("a1.jsonl", quoted("[" ONE "," TWO "]")), ROWS, "one array");
    expect_note("an array after empty lines", put("a2.jsonl", quoted("\n \n[\n" ONE ",\n" TWO "\n]\n")), ROWS,
                "one array");
    expect_note("objects over several lines under .jsonl", put("p.jsonl", laid_out), ROWS, "laid out over several");
    expect_note("and under .json", put("p.json", laid_out), ROWS, "laid out over several");
    expect_note("one of them", put("p1.json", quoted("{\n 'prompt': 'c',\n 'response': 'd'\n}")), "c>|d\n",
                "laid out over several");
    expect_note("{\"data\": [rows]}", put("w.json", wrapped), ROWS, "the list \"data\" of one object");
    expect_note("under .jsonl", put("w.jsonl", wrapped), ROWS, "the list \"data\"");
    expect_note("other names, other fields around it",
                put("w2.json", quoted("{ 'version': '1]', 'n': {'rows': [1]},\n 'train' : [\n" ONE ",\n" TWO
                                      "\n],\n 'license': 'x', 'tags': ['a'] }\n")),
                ROWS, "the list \"train\"");
    expect_note(
        "a row whose only list is of turns is a row",
        put("r.json", quoted("{'messages':[{'role':'user','content':'a'},{'role':'assistant','content':'b'}]}")),
        "a>|b\n", "one row per line");
    expect_note("a row with a list of objects beside it is a row",
                put("r2.jsonl", quoted("{'prompt':'c','response':'d','examples':[{'prompt':'x','response':'y'}]}\n")),
                "c>|d\n", "");
    expect_note("lines that are arrays stay lines", put("aa.jsonl", quoted("[1]\n" TWO "\n")),
                "! is not an object with named fields\nc>|d\n", "");
    expect_note("a damaged first line stays a line", put("d.jsonl", quoted("{'prompt':'a'\n" TWO "\n")),
                "! is not JSON at byte 12 of the row\nc>|d\n", "");
    expect_note("another damage", put("d2.jsonl", quoted("{'prompt:'a'}\n" TWO "\n")),
                "! is not JSON at byte 10 of the row\nc>|d\n", "");
    expect_note("an empty list of rows", put("e.json", quoted("[]")), "", "");
}

static void test_encodings(void) {
    const char* lines = quoted(ONE "\n" TWO "\n");
    for (int k = 0; k < 4; k++) {
        bool big = k & 1, mark = k & 2;
        char name[80];
        snprintf(name, sizeof name, "UTF-16, %s, %s byte order mark", big ? "big-endian" : "little-endian",
                 mark ? "with a" : "without");
        expect_note(name, put_utf16("u.jsonl", lines, big, mark), ROWS, "is UTF-16 text");
        expect_note(name, put_utf16("u.json", quoted("[" ONE "," TWO "]"), big, mark), ROWS, "is UTF-16 text");
        expect_note(name, put_utf16("u.csv", "prompt,response\na \xC3\xA9 \xF0\x9F\x98\x80,b\nc,d\n", big, mark), ROWS,
                    "is UTF-16 text");
    }
    expect_note("half a pair in UTF-16",
                put_bytes("h.csv",
                          "\xFF\xFEp\0r\0o\0m\0p\0t\0,\0r\0e\0s\0p\0o\0n\0s\0e\0\n\0\x3D\xD8"
                          "a\0,\0b\0\n\0\x00\xDE,\0c\0",
                          sizeof "\xFF\xFEp\0r\0o\0m\0p\0t\0,\0r\0e\0s\0p\0o\0n\0s\0e\0\n\0\x3D\xD8"
                                 "a\0,\0b\0\n\0\x00\xDE,\0c\0" -
                              1),
                "\xEF\xBF\xBD"
                "a>|b\n\xEF\xBF\xBD>|c\n",
                "is UTF-16 text");
    expect_note("zstd", put_zstd("z.jsonl.zst", lines, false), ROWS, "");
    expect_note("several frames, one to be skipped", put_zstd("z2.jsonl.zst", lines, true), ROWS, "");
    expect_note("zstd, an array", put_zstd("z.json.zst", quoted("[" ONE "," TWO "]"), false), ROWS, "");
    expect_note("zstd, a table", put_zstd("z.tsv.zst", "prompt\tresponse\nc\td\n", false), "c>|d\n", "");
    expect_note("compressed without saying so", put_zstd("z.jsonl", lines, false), ROWS, "");
    Hex plain, packed;
    const char *a = put("same.jsonl", lines), *b = put_zstd("same.jsonl.zst", lines, true);
    dataset_digest(&(StringList){&a, 1}, plain);
    dataset_digest(&(StringList){&b, 1}, packed);
    check(!strcmp(plain, packed), "a .zst has the digest of its content");
}

static void test_tables(void) {
    expect_note("semicolons", put("s.csv", "instruction;input;output\nx;;y, z\n"), "x>|y, z\n", "by semicolons");
    expect_note("tabs under .csv", put("t.csv", "prompt\tresponse\nx\ty, z\n"), "x>|y, z\n", "by tabs");
    expect_note("bars", put("b.csv", "prompt|response\nx|y\n"), "x>|y\n", "by bars");
    expect_note("tabs under .tsv", put("t.tsv", "prompt\tresponse\nx\t\"y\tz\"\n"), "x>|y\tz\n", "");
    expect_note("commas under .tsv", put("c.tsv", "prompt,response\nx,y\n"), "x>|y\n", "by commas");
    expect_note("quotes with semicolons", put("q.csv", "'prompt';'response'\n\"a;\"\"b\"\"\";\"c\nd\"\n"),
                "! fits no layout; its fields: 'prompt', 'response'\n", "by semicolons");
    expect_note("a header in quotes", put("q2.csv", "\"prompt\";\"response\"\n\"a;\"\"b\"\"\";\"c\nd\"\n"),
                "a;\"b\">|c~d\n", "by semicolons");
    expect_note("Excel's sep= line", put("e.csv", "sep=;\r\nprompt;response\r\nx;y\r\n"), "x>|y\n", "by semicolons");
    expect_note("a semicolon in a header of commas", put("m.csv", "prompt,response,a;b;c\nx,y,1\n"), "x>|y\n", "");
    expect_note("spaces after commas", put("sp.csv", "prompt, response\nx,  \"y, z\" \nu, v w\n"), "x>|y, z\nu>|v w\n",
                "spaces after them are not part of a field");
    expect_note("spaces after semicolons", put("sp2.csv", "prompt; response\nx; y\n"), "x>|y\n",
                "by semicolons; spaces");
    expect_note("spaces in a table without them in its header", put("sp3.csv", "prompt,response\nx, y\n"), "x>| y\n",
                "");
    expect_note("a header in another case, with spaces after it", put("h.csv", "Prompt ,RESPONSE\nx,y\n"), "x>|y\n",
                "");
    expect_note(
        "ragged rows are named", put("r.csv", "prompt,response\na,b\nc, d,e\nf\n\ng,h\n"),
        "a>|b\n! has 3 fields but the header names 2; a text with the delimiter in it needs quotes\n! has 1 field "
        "but the header names 2\ng>|h\n",
        "");
}

static void read_all(const void* path) { rows_text(path, &(RowOptions){0}, NULL); }
static void read_whole(const void* path) {
    size_t n;
    free(file_read(path, 1 << 20, &n));
}
static void map(const void* path) {
    MappedFile file;
    file_map(&file, path);
    file_unmap(&file);
}
static void open_tokenizer(const void* path) {
    TextEncoder e;
    text_encoder_open(&e, path, -1);
}

static void test_refusals(void) {
    const char* pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 173864231\n";
    static const char* const names[] = {"p.jsonl", "p.json", "p.csv", "p.jsonl.gz", "p.json.zst"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        check(refuses(read_all, put(names[i], pointer), "a Git LFS pointer, not the file itself: run git lfs pull"),
              "a Git LFS pointer named %s is refused by its name", names[i]);
    check(refuses(read_whole, put("config.json", pointer), "config.json: a Git LFS pointer"),
          "one in place of a file read whole");
    check(refuses(map, put("model.safetensors", pointer), "model.safetensors: a Git LFS pointer"),
          "one in place of a mapped file");
    check(refuses(open_tokenizer, put("tokenizer.json", pointer), "tokenizer.json: a Git LFS pointer"),
          "one in place of a tokenizer");
    const struct {
        const char *name, *bytes;
        size_t n;
        const char* said;
    } cases[] = {
        {"a.parquet", "PAR1", 4, "data/parquet.py"},
        {"a.PARQUET", "PAR1", 4, "data/parquet.py"},
        {"a.arrow", "ARROW1", 6, "data/parquet.py"},
        {"b.jsonl", "PAR1\x15\4\x15\4", 8, "is a Parquet file; python3 data/parquet.py"},
        {"b.json", "ARROW1\0\0", 8, "is an Arrow file; python3 data/parquet.py"},
        {"b.csv", "PK\3\4....", 8, "zip archive (or an Excel workbook)"},
        {"c.jsonl", "BZh91AY", 7, "compressed with bzip2"},
        {"c.json",
         "\xFD"
         "7zXZ\0",
         6, "compressed with xz"},
        {"d.jsonl", "\xFF\xFE\0\0{\0\0\0", 8, "UTF-32"},
        {"e.txt", "x", 1, "ends in .jsonl, .json or .csv (or .ndjson, .tsv)"},
        {"f.csv",
         "\xFF\xFE"
         "a\0,\0b",
         7, "UTF-16 text ends inside a character"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check(refuses(read_all, put_bytes(cases[i].name, cases[i].bytes, cases[i].n), cases[i].said),
              "%s is refused: %s", cases[i].name, cases[i].said);
    check(refuses(read_all, put("two.json", quoted("{'train':[{'prompt':'a'}],'test':[{'prompt':'b'}]}")),
                  "holds several lists (train, test)"),
          "two lists of rows in one object are refused");
    static const struct {
        const char *what, *name, *text, *said;
    } shapes[] = {
        {"columns", "columns.json", "{'prompt':{'0':'a','1':'b'},'response':{'0':'c','1':'d'}}",
         "is one object of lists or objects (prompt, response), not rows"},
        {"columns as lists", "lists.json", "{'prompt':['a','b'],'response':['c','d']}", "(prompt, response), not rows"},
        {"rows by number", "index.json", "{'0':{'prompt':'a','response':'b'},'1':{'prompt':'c','response':'d'}}",
         "orient=\"records\""},
        {"a split table", "split.json", "{\n 'columns':['prompt'],\n 'index':[0],\n 'data':[['a']]\n}",
         "(columns, index, data), not rows"},
        {"a table of returns", "returns.csv", "prompt,response\ra,b\rc,d\r", "a carriage return alone"},
        {"lines of returns", "returns.jsonl", ONE "\r" TWO "\r", "a carriage return alone"},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        check(refuses(read_all, put(shapes[i].name, quoted(shapes[i].text)), shapes[i].said),
              "%s: refused by the cause", shapes[i].what);
    size_t n;
    char* whole = file_read(put_zstd("whole.jsonl.zst", quoted(ONE "\n" TWO "\n"), false), 1 << 16, &n);
    check(refuses(read_all, put_bytes("cut.jsonl.zst", whole, n - 5), "cut off"), "a .zst cut off is refused");
    whole[n / 2] ^= 0x55;
    whole[n - 3] ^= 0x55;
    check(refuses(read_all, put_bytes("bad.jsonl.zst", whole, n), "bad.jsonl.zst cannot be read after byte"),
          "a damaged .zst is refused");
    free(whole);
}

// ---------------------------------------------------------------------------------------------------
// what is told

static int64_t tally(const RowTally* tallies, int n, const char* name) {
    for (int i = 0; i < n; i++)
        if (!strcmp(tallies[i].name, name)) return tallies[i].rows;
    return 0;
}

static void test_report(void) {
    RowReport report = {0};
    rows_text(put("u.jsonl",
                  quoted("{'prompt':'a','response':'b','category':'x','id':7,'note':''}\n"
                         "{'prompt':'a','response':'b','category':'y','tags':['t'],'empty':[],'flag':true}\n"
                         "{'prompt':'','response':'b','category':'left out'}\n"
                         "{'system_prompt':'S','question':'q','response':'r'}\n"
                         "{'prompt':'p','chosen':'c','rejected':'d'}\n"
                         "{'messages':[{'role':'user','content':'a','name':'n'},{'role':'assistant','content':'b',"
                         "'thinking':'t'},{'role':'user','content':'a','name':'n'},{'role':'assistant','content':'b'}],"
                         "'tools':[{'name':'f'}]}\n")),
              &(RowOptions){0}, &report);
#define UNREAD(name) tally(report.unread, report.n_unread, name)
    check(UNREAD("category") == 2 && UNREAD("tags") == 1 && !UNREAD("note") && !UNREAD("id") && !UNREAD("flag") &&
              !UNREAD("empty"),
          "fields with text that nothing reads are counted, in rows that are used");
    check(UNREAD("system_prompt") == 1 && UNREAD("tools") == 1 && !UNREAD("rejected"),
          "what the reference's text leaves out is among them, a preference's other side is not");
    check(UNREAD("turns' name") == 1 && UNREAD("turns' thinking") == 1, "fields of turns count once per row");
    check(tally(report.layouts, report.n_layouts, "prompt/response") == 2 &&
              tally(report.layouts, report.n_layouts, "messages") == 1,
          "layouts are counted");
    char said[4096] = "";
    for (int quiet = 0; quiet < 2; quiet++) {
        FILE* out = tmpfile();
        row_report_print(&report, quiet, out);
        rewind(out);
        size_t n = fread(said, 1, sizeof said - 1, out);
        said[n] = 0;
        fclose(out);
        if (!quiet)
            check(strstr(said,
                         "text in fields that are not used: category (2 rows), tags (1 row), system_prompt (1 row)") !=
                      NULL,
                  "one line tells them");
        else
            check(!strcmp(said, "1 of 6 rows are left out: 1 with an empty prompt\n"),
                  "with --quiet one line tells what is left out, and no more");
    }
    RowReport few = {0};
    for (int i = 0; i < 100; i++) {
        char name[32];
        snprintf(name, sizeof name, "field %d", i);
        row_report_tally(few.unread, &few.n_unread, name, 1);
    }
    check(few.n_unread == ROW_REPORT_TALLIES && tally(few.unread, few.n_unread, "others") == 101 - ROW_REPORT_TALLIES,
          "names beyond the table's room are counted together");
}

// ---------------------------------------------------------------------------------------------------
// rows that are rendered already, and the cache of what is told

static void* no_scratch(void* self) { return self; }
static void no_finish(void* self, void* scratch) { (void)self, (void)scratch; }
static int64_t bytes_encode(void* self, void* scratch, const char* text, size_t n, const int32_t** ids,
                            const int32_t** start, const int32_t** end, const char** error) {
    static int32_t id[4096], from[4096], to[4096];
    (void)self, (void)scratch, (void)error;
    for (size_t i = 0; i < n && i < 4096; i++) {
        id[i] = (unsigned char)text[i];
        from[i] = (int32_t)i;
        to[i] = (int32_t)i + 1;
    }
    *ids = id;
    *start = from;
    *end = to;
    return (int64_t)n;
}
static bool begins_special(void* self, const char* text, size_t n) {
    (void)self;
    return n >= 6 && !memcmp(text, "<|x9|>", 6);
}
static const TextEncoder bytes_encoder = {.begin = no_scratch,
                                          .finish = no_finish,
                                          .encode = bytes_encode,
                                          .vocab = 256,
                                          .bos = -1,
                                          .eos = 0,
                                          .eos_text = "</s>",
                                          .digest = "bytes",
                                          .begins_special = begins_special};

static void test_rendered(void) {
    const char* path = put("rendered.json",
                           quoted("{'prompt':'<s>[INST] a [/INST]','response':'b </s>','extra':'e'}\n"
                                  "{'prompt':' [INST] a [/INST]','response':'b'}\n"
                                  "{'messages':[{'role':'user','content':'<|im_start|>user\\na'},{'role':'assistant',"
                                  "'content':'b</s>\\n'}]}\n"
                                  "{'prompt':'<|x9|>a','chosen':'b'}\n"
                                  "{'prompt':'a <s>','response':'</s> b'}\n"
                                  "{'prompt':'plain','response':'b'}\n"));
    char cache[256];
    snprintf(cache, sizeof cache, "%s", in_directory("rendered.safetensors"));
    TokenOptions o = {.max_length = 256, .quiet = true, .threads = 1, .cache = cache};
    for (int again = 0; again < 2; again++) {
        TokenSet set;
        tokens_load(&set, &(StringList){&path, 1}, &bytes_encoder, &o);
        check(set.cached == again && set.report.n_special == 4 && set.report.n_ended == 2,
              "rows that begin with special tokens or a template's mark are counted%s",
              again ? ", from the cache too" : "");
        check(set.report.n_notes == 1 && tally(set.report.unread, set.report.n_unread, "extra") == 1 &&
                  tally(set.report.layouts, set.report.n_layouts, "prompt/response") == 4,
              "so are notes, layouts and fields that nothing reads");
        tokens_free(&set);
    }
}

int main(void) {
    program_name = "test_rows";
    strcpy(directory, "/tmp/test_rows_XXXXXX");
    if (!mkdtemp(directory)) return 1;
    test_other_spellings();
    test_fields();
    test_turns();
    test_odd_json();
    test_conversations();
    test_json_files();
    test_encodings();
    test_tables();
    test_refusals();
    test_report();
    test_rendered();
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", directory);
    if (system(command)) return 1;
    return check_report();
}
