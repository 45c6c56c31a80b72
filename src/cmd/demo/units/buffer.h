/* Bytes that grow, and text that is formatted into them. */
#ifndef DEMO_BUFFER_H
#define DEMO_BUFFER_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    char *bytes; /* ends with a zero that is not counted, once anything was added */
    size_t length, capacity;
    bool failed; /* out of memory at some time; what was added since is lost */
} buffer;

void buffer_add(buffer *b, const void *bytes, size_t length);
void buffer_add_text(buffer *b, const char *text);
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
void buffer_format(buffer *b, const char *format, ...);
bool buffer_equals(const buffer *b, const char *text);
void buffer_free(buffer *b);

#ifdef __cplusplus
}
#endif

#endif
