/* Memory that is given back all at once. */
#ifndef DEMO_ARENA_H
#define DEMO_ARENA_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct arena_block arena_block;

typedef struct {
    arena_block *newest;
    size_t taken;
} arena;

/* Zeroed memory, aligned for anything; NULL if there is none. */
void *arena_take(arena *a, size_t bytes);
char *arena_copy(arena *a, const char *text, size_t length);
void arena_free(arena *a);

#ifdef __cplusplus
}
#endif

#endif
