/* See chat_rows.h. Written by hand rather than by cJSON, which would print 1.0 as 1 and round long integers. */
#include <stdio.h>
#include <string.h>
#include <cjson/cJSON.h>
#include "rows/chat_rows.h"

static void put(Text* out, const char* text) { text_add(out, text, strlen(text)); }

void json_put_text(Text* out, const char* text, size_t n) {
    size_t plain = 0;
    put(out, "\"");
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        char escaped[8];
        if (c >= 0x20 && c != '"' && c != '\\') continue;
        text_add(out, text + plain, i - plain);
        plain = i + 1;
        snprintf(escaped, sizeof escaped, c < 0x20 ? "\\u%04x" : "\\%c", c);
        put(out, escaped);
    }
    text_add(out, text + plain, n - plain);
    put(out, "\"");
}

static void put_value(Text* out, const cJSON* v) {
    const cJSON* item;
    if (cJSON_IsString(v)) json_put_text(out, v->valuestring, strlen(v->valuestring));
    else if (cJSON_IsNumber(v)) {
        char number[40];
        snprintf(number, sizeof number, "%.17g", v->valuedouble);
        put(out, v->valuestring ? v->valuestring : number);
    } else if (cJSON_IsArray(v) || cJSON_IsObject(v)) {
        bool object = cJSON_IsObject(v);
        put(out, object ? "{" : "[");
        cJSON_ArrayForEach(item, v) {
            if (item != v->child) put(out, ",");
            if (object) {
                json_put_text(out, item->string, strlen(item->string));
                put(out, ":");
            }
            put_value(out, item);
        }
        put(out, object ? "}" : "]");
    } else put(out, cJSON_IsTrue(v) ? "true" : cJSON_IsFalse(v) ? "false" : "null");
}

void conversation_json(const Conversation* c, int n, bool ask, Text* out) {
    put(out, "{\"messages\":[");
    for (int i = 0; i < n; i++) {
        const Message* m = &c->messages[i];
        const cJSON* field;
        put(out, i ? ",{\"role\":" : "{\"role\":");
        json_put_text(out, m->role_name, strlen(m->role_name));
        put(out, ",\"content\":");
        json_put_text(out, m->content, m->length);
        cJSON_ArrayForEach(field, m->fields) {
            if (!message_passes(field->string)) continue;
            put(out, ",");
            json_put_text(out, field->string, strlen(field->string));
            put(out, ":");
            put_value(out, field);
        }
        put(out, "}");
    }
    put(out, "]");
    if (c->tools) {
        put(out, ",\"tools\":");
        put_value(out, c->tools);
    }
    put(out, ask ? ",\"add_generation_prompt\":true}" : ",\"add_generation_prompt\":false}");
}
