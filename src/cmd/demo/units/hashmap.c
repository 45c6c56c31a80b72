#include "hashmap.h"

#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* FNV-1a, 64 bits. */
static uint64_t hash_of(text name)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < name.length; i++)
        hash = (hash ^ (unsigned char)name.at[i]) * UINT64_C(0x100000001b3);
    return hash;
}

/* The slot of a name, or the free one where it would be. */
static hashmap_slot *probe(hashmap_slot *slots, size_t capacity, text name, uint64_t hash)
{
    for (size_t i = (size_t)hash;; i++) {
        hashmap_slot *slot = &slots[i & (capacity - 1)];
        if (slot->name.at == NULL)
            return slot;
        if (slot->hash == hash && slot->name.length == name.length &&
            (name.length == 0 || memcmp(slot->name.at, name.at, name.length) == 0))
            return slot;
    }
}

static bool grow(hashmap *map)
{
    size_t capacity = map->capacity == 0 ? 8 : map->capacity * 2;
    hashmap_slot *slots = calloc(capacity, sizeof *slots);
    if (slots == NULL)
        return false;
    for (size_t i = 0; i < map->capacity; i++)
        if (map->slots[i].name.at != NULL)
            *probe(slots, capacity, map->slots[i].name, map->slots[i].hash) = map->slots[i];
    free(map->slots);
    map->slots = slots;
    map->capacity = capacity;
    return true;
}

int64_t *hashmap_at(hashmap *map, text name)
{
    if (map->count * 4 >= map->capacity * 3 && !grow(map))
        return NULL;
    uint64_t hash = hash_of(name);
    hashmap_slot *slot = probe(map->slots, map->capacity, name, hash);
    if (slot->name.at == NULL) {
        const char *copy = arena_copy(&map->names, name.at, name.length);
        if (copy == NULL)
            return NULL;
        *slot = (hashmap_slot){{copy, name.length}, hash, 0};
        map->count++;
    }
    return &slot->value;
}

const int64_t *hashmap_find(const hashmap *map, text name)
{
    if (map->capacity == 0)
        return NULL;
    const hashmap_slot *slot = probe(map->slots, map->capacity, name, hash_of(name));
    return slot->name.at == NULL ? NULL : &slot->value;
}

void hashmap_free(hashmap *map)
{
    arena_free(&map->names);
    free(map->slots);
    *map = (hashmap){{NULL, 0}, NULL, 0, 0};
}

int demo_check_hashmap(void)
{
    hashmap map = {{NULL, 0}, NULL, 0, 0};
    char name[32];
    CHECK(hashmap_find(&map, text_of("nobody")) == NULL);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 1000; i++) {
            snprintf(name, sizeof name, "machine-%d", i);
            int64_t *value = hashmap_at(&map, text_of(name));
            CHECK(value != NULL);
            *value += i;
        }
    }
    CHECK(map.count == 1000 && map.capacity == 2048);
    for (int i = 0; i < 1000; i++) {
        snprintf(name, sizeof name, "machine-%d", i);
        const int64_t *value = hashmap_find(&map, text_of(name));
        CHECK(value != NULL && *value == 3 * i);
    }
    CHECK(hashmap_find(&map, text_of("machine-1000")) == NULL);
    hashmap_free(&map);
    return 0;
}
