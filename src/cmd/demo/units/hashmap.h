/* Names to numbers, by open addressing. */
#ifndef DEMO_HASHMAP_H
#define DEMO_HASHMAP_H

#include "arena.h"
#include "text.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    text name;
    uint64_t hash;
    int64_t value;
} hashmap_slot;

typedef struct {
    arena names;
    hashmap_slot *slots;
    size_t count, capacity; /* a power of two, or 0 */
} hashmap;

/* The number of this name, made 0 if it is new; NULL if there is no memory. */
int64_t *hashmap_at(hashmap *map, text name);
const int64_t *hashmap_find(const hashmap *map, text name);
void hashmap_free(hashmap *map);

#ifdef __cplusplus
}
#endif

#endif
