/* Pieces of text that own nothing, and what one does with them. */
#ifndef DEMO_TEXT_H
#define DEMO_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    const char *at;
    size_t length;
} text;

text text_of(const char *zero_ended);
text text_trim(text t);
bool text_is(text t, const char *word);
bool text_is_ignoring_case(text t, const char *word);
/* Cuts the piece before the next separator off the front; false if nothing is left. */
bool text_next(text *rest, char separator, text *piece);
bool text_number(text t, long *value);
/* The code point at the front and how many bytes it takes; 0 bytes if it is not UTF-8. */
size_t text_code_point(text t, uint32_t *code_point);

#ifdef __cplusplus
}
#endif

#endif
