#include "arena.h"

#include "check.h"

#include <stdalign.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_BYTES = 4096 };

struct arena_block {
    arena_block *older;
    size_t used, size;
    alignas(max_align_t) unsigned char bytes[];
};

static arena_block *new_block(arena_block *older, size_t size)
{
    arena_block *block = malloc(sizeof *block + size);
    if (block == NULL)
        return NULL;
    block->older = older;
    block->used = 0;
    block->size = size;
    return block;
}

void *arena_take(arena *a, size_t bytes)
{
    const size_t unit = alignof(max_align_t);
    if (bytes > SIZE_MAX / 2)
        return NULL;
    bytes = (bytes + unit - 1) / unit * unit;
    if (a->newest == NULL || a->newest->size - a->newest->used < bytes) {
        arena_block *block = new_block(a->newest, bytes > BLOCK_BYTES ? bytes : BLOCK_BYTES);
        if (block == NULL)
            return NULL;
        a->newest = block;
    }
    void *out = a->newest->bytes + a->newest->used;
    a->newest->used += bytes;
    a->taken += bytes;
    return memset(out, 0, bytes);
}

char *arena_copy(arena *a, const char *text, size_t length)
{
    char *copy = arena_take(a, length + 1);
    if (copy != NULL)
        memcpy(copy, text, length);
    return copy;
}

void arena_free(arena *a)
{
    while (a->newest != NULL) {
        arena_block *older = a->newest->older;
        free(a->newest);
        a->newest = older;
    }
    a->taken = 0;
}

int demo_check_arena(void)
{
    arena a = {NULL, 0};
    for (int i = 1; i < 500; i++) {
        unsigned char *piece = arena_take(&a, (size_t)i * 7);
        CHECK(piece != NULL && (uintptr_t)piece % alignof(max_align_t) == 0);
        CHECK(piece[0] == 0 && piece[i * 7 - 1] == 0);
        memset(piece, 0xff, (size_t)i * 7);
    }
    char *copy = arena_copy(&a, "desk and laptop", 4);
    CHECK(copy != NULL && strcmp(copy, "desk") == 0);
    CHECK(arena_take(&a, SIZE_MAX - 1) == NULL);
    arena_free(&a);
    CHECK(a.newest == NULL && a.taken == 0);
    return 0;
}
