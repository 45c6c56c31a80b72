#include "check.h"
#include "json.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    arena *memory;
    text rest;
    int depth;
} parser;

static char peek(parser *p)
{
    while (p->rest.length > 0 && strchr(" \t\r\n", p->rest.at[0]) != NULL && p->rest.at[0] != '\0') {
        p->rest.at++;
        p->rest.length--;
    }
    return p->rest.length > 0 ? p->rest.at[0] : '\0';
}

static bool accept(parser *p, const char *word)
{
    size_t length = strlen(word);
    if (peek(p) != word[0] || p->rest.length < length || memcmp(p->rest.at, word, length) != 0)
        return false;
    p->rest.at += length;
    p->rest.length -= length;
    return true;
}

static char unescaped(char c)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *at = c == '\0' ? NULL : strchr(from, c);
    return at == NULL ? '\0' : to[at - from];
}

static bool string(parser *p, text *out)
{
    if (!accept(p, "\""))
        return false;
    char *bytes = arena_take(p->memory, p->rest.length);
    size_t length = 0, i = 0;
    for (; bytes != NULL && i < p->rest.length && p->rest.at[i] != '"'; i++) {
        char c = p->rest.at[i];
        if ((unsigned char)c < ' ')
            return false;
        if (c == '\\' && (++i == p->rest.length || (c = unescaped(p->rest.at[i])) == '\0'))
            return false;
        bytes[length++] = c;
    }
    if (bytes == NULL || i == p->rest.length)
        return false;
    p->rest.at += i + 1;
    p->rest.length -= i + 1;
    *out = (text){bytes, length};
    return true;
}

static json *value(parser *p);

static bool values(parser *p, json *parent, const char *end)
{
    json **link = &parent->first;
    if (accept(p, end))
        return true;
    do {
        text name = {NULL, 0};
        if (parent->kind == JSON_OBJECT && !(string(p, &name) && accept(p, ":")))
            return false;
        if ((*link = value(p)) == NULL)
            return false;
        (*link)->name = name;
        link = &(*link)->next;
    } while (accept(p, ","));
    return accept(p, end);
}

static bool number(parser *p, double *out)
{
    char copy[64] = {0}, *end;
    size_t length = 0;
    while (length < p->rest.length && length < sizeof copy - 1 && strchr("+-.0123456789eE", p->rest.at[length]) != NULL) {
        copy[length] = p->rest.at[length];
        length++;
    }
    *out = strtod(copy, &end);
    p->rest.at += length;
    p->rest.length -= length;
    return length > 0 && *end == '\0' && copy[0] != '+';
}

static json *value(parser *p)
{
    json *out = arena_take(p->memory, sizeof *out);
    bool good = out != NULL && p->depth < JSON_DEPTH_MAX;
    if (!good)
        return NULL;
    p->depth++;
    if (accept(p, "null"))
        out->kind = JSON_NULL;
    else if (accept(p, "false"))
        out->kind = JSON_FALSE;
    else if (accept(p, "true"))
        out->kind = JSON_TRUE;
    else if (peek(p) == '"')
        out->kind = JSON_STRING, good = string(p, &out->string);
    else if (accept(p, "["))
        out->kind = JSON_ARRAY, good = values(p, out, "]");
    else if (accept(p, "{"))
        out->kind = JSON_OBJECT, good = values(p, out, "}");
    else
        out->kind = JSON_NUMBER, good = number(p, &out->number);
    p->depth--;
    return good ? out : NULL;
}

json *json_parse(arena *memory, text source)
{
    parser p = {memory, source, 0};
    json *out = value(&p);
    return out != NULL && peek(&p) == '\0' && p.rest.length == 0 ? out : NULL;
}

const json *json_member(const json *object, const char *name)
{
    for (const json *member = object->first; object->kind == JSON_OBJECT && member != NULL; member = member->next)
        if (text_is(member->name, name))
            return member;
    return NULL;
}

int demo_check_json_parse(void)
{
    arena memory = {NULL, 0};
    json *tree = json_parse(&memory, text_of(" {\"name\": \"to\\\"wer\", \"slots\": [24, -1.5e2, []], \"on\": true} "));
    CHECK(tree != NULL && tree->kind == JSON_OBJECT);
    CHECK(text_is(json_member(tree, "name")->string, "to\"wer"));
    const json *slots = json_member(tree, "slots");
    CHECK(slots != NULL && slots->first->number > 23 && slots->first->next->number < -149);
    CHECK(slots->first->next->next->kind == JSON_ARRAY && slots->first->next->next->first == NULL);
    CHECK(json_member(tree, "on")->kind == JSON_TRUE && json_member(tree, "off") == NULL);
    static const char *const bad[] = {"", "{", "[1,]", "\"a", "tru", "1 2", "{\"a\"}", "\"\\x\"", "+1", "--1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK(json_parse(&memory, text_of(bad[i])) == NULL);
    char deep[JSON_DEPTH_MAX + 2] = {0};
    memset(deep, '[', sizeof deep - 1);
    CHECK(json_parse(&memory, text_of(deep)) == NULL);
    arena_free(&memory);
    return 0;
}
