/* JSON as a tree in an arena. */
#ifndef DEMO_JSON_H
#define DEMO_JSON_H

#include "arena.h"
#include "buffer.h"
#include "text.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT } json_kind;

typedef struct json json;

struct json {
    json_kind kind;
    double number;
    text string; /* without escapes */
    text name;   /* of a member of an object */
    json *first; /* of an array's or object's values */
    json *next;
};

enum { JSON_DEPTH_MAX = 64 };

/* NULL if the text is not JSON, or there is no memory. */
json *json_parse(arena *memory, text source);
const json *json_member(const json *object, const char *name);
void json_write(const json *value, buffer *out);

#ifdef __cplusplus
}
#endif

#endif
