#include "check.h"
#include "json.h"

#include <math.h>
#include <stdio.h>

static void write_string(text t, buffer *out)
{
    buffer_add_text(out, "\"");
    for (size_t i = 0; i < t.length; i++) {
        unsigned char c = (unsigned char)t.at[i];
        switch (c) {
        case '"':
        case '\\':
            buffer_format(out, "\\%c", c);
            break;
        case '\n':
            buffer_add_text(out, "\\n");
            break;
        case '\t':
            buffer_add_text(out, "\\t");
            break;
        default:
            if (c < ' ')
                buffer_format(out, "\\u%04x", c);
            else
                buffer_add(out, &t.at[i], 1);
        }
    }
    buffer_add_text(out, "\"");
}

static void write_number(double number, buffer *out)
{
    if (number >= -1e15 && number <= 1e15 && floor(number) >= number)
        buffer_format(out, "%.0f", number);
    else if (isfinite(number))
        buffer_format(out, "%.17g", number);
    else
        buffer_add_text(out, "null");
}

static void write_values(const json *parent, const char *brackets, buffer *out)
{
    buffer_add(out, brackets, 1);
    for (const json *value = parent->first; value != NULL; value = value->next) {
        if (value != parent->first)
            buffer_add_text(out, ",");
        if (parent->kind == JSON_OBJECT) {
            write_string(value->name, out);
            buffer_add_text(out, ":");
        }
        json_write(value, out);
    }
    buffer_add(out, brackets + 1, 1);
}

void json_write(const json *value, buffer *out)
{
    switch (value->kind) {
    case JSON_NULL:
        buffer_add_text(out, "null");
        break;
    case JSON_FALSE:
        buffer_add_text(out, "false");
        break;
    case JSON_TRUE:
        buffer_add_text(out, "true");
        break;
    case JSON_NUMBER:
        write_number(value->number, out);
        break;
    case JSON_STRING:
        write_string(value->string, out);
        break;
    case JSON_ARRAY:
        write_values(value, "[]", out);
        break;
    case JSON_OBJECT:
        write_values(value, "{}", out);
        break;
    }
}

int demo_check_json_write(void)
{
    const char *source = "{\"a\":[1,-2,0.5,[],{}],\"b\\\\\":\"x\\\"\\n\",\"c\":[true,false,null]}";
    arena memory = {NULL, 0};
    buffer out = {NULL, 0, 0, false};
    for (int round = 0; round < 2; round++) {
        json *tree = json_parse(&memory, text_of(source));
        CHECK(tree != NULL);
        json_write(tree, &out);
        CHECK(buffer_equals(&out, source));
        buffer_free(&out);
    }
    json odd = {JSON_NUMBER, 1e300, {NULL, 0}, {NULL, 0}, NULL, NULL};
    json_write(&odd, &out);
    odd.number = HUGE_VAL;
    json_write(&odd, &out);
    CHECK(buffer_equals(&out, "1.0000000000000001e+300null"));
    buffer_free(&out);
    arena_free(&memory);
    return 0;
}
