#include "buffer.h"

#include "check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool reserve(buffer *b, size_t more)
{
    size_t wanted = b->length + more + 1;
    if (b->failed || wanted < more)
        return false;
    if (wanted <= b->capacity)
        return true;
    size_t capacity = b->capacity < 16 ? 16 : b->capacity;
    while (capacity < wanted)
        capacity += capacity / 2;
    char *bytes = realloc(b->bytes, capacity);
    if (bytes == NULL) {
        b->failed = true;
        return false;
    }
    b->bytes = bytes;
    b->capacity = capacity;
    return true;
}

void buffer_add(buffer *b, const void *bytes, size_t length)
{
    if (!reserve(b, length))
        return;
    if (length > 0)
        memcpy(b->bytes + b->length, bytes, length);
    b->length += length;
    b->bytes[b->length] = '\0';
}

void buffer_add_text(buffer *b, const char *text)
{
    buffer_add(b, text, strlen(text));
}

void buffer_format(buffer *b, const char *format, ...)
{
    va_list counted, written;
    va_start(counted, format);
    va_copy(written, counted);
    int length = vsnprintf(NULL, 0, format, counted);
    va_end(counted);
    if (length >= 0 && reserve(b, (size_t)length)) {
        vsnprintf(b->bytes + b->length, (size_t)length + 1, format, written);
        b->length += (size_t)length;
    }
    va_end(written);
}

bool buffer_equals(const buffer *b, const char *text)
{
    return !b->failed && b->length == strlen(text) && (b->length == 0 || memcmp(b->bytes, text, b->length) == 0);
}

void buffer_free(buffer *b)
{
    free(b->bytes);
    *b = (buffer){NULL, 0, 0, false};
}

int demo_check_buffer(void)
{
    buffer b = {NULL, 0, 0, false};
    CHECK(buffer_equals(&b, ""));
    buffer_add_text(&b, "cores:");
    for (int i = 0; i < 4; i++)
        buffer_format(&b, " %d/%s", i * 8, i % 2 ? "odd" : "even");
    CHECK(buffer_equals(&b, "cores: 0/even 8/odd 16/even 24/odd"));
    buffer_add(&b, "", 0);
    CHECK(b.bytes[b.length] == '\0' && b.length < b.capacity);
    for (int i = 0; i < 1000; i++)
        buffer_add(&b, "x\0y", 3);
    CHECK(b.length == 34 + 3000 && !buffer_equals(&b, "cores"));
    buffer_free(&b);
    CHECK(b.bytes == NULL && b.capacity == 0);
    return 0;
}
