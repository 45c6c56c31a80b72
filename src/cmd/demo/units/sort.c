#include "sort.h"

#include "check.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static void swap(char *a, char *b, size_t size)
{
    while (size-- > 0) {
        char kept = *a;
        *a++ = *b;
        *b++ = kept;
    }
}

void sort_quick(void *items, size_t count, size_t size, sort_order order)
{
    char *base = items;
    while (count > 1) {
        swap(base, base + count / 2 * size, size);
        size_t less = 0;
        for (size_t i = 1; i < count; i++)
            if (order(base + i * size, base) < 0)
                swap(base + ++less * size, base + i * size, size);
        swap(base, base + less * size, size);
        /* The smaller part by recursion, the larger by the loop: the stack stays shallow. */
        size_t right = count - less - 1;
        char *after = base + (less + 1) * size;
        if (less < right) {
            sort_quick(base, less, size, order);
            base = after;
            count = right;
        } else {
            sort_quick(after, right, size, order);
            count = less;
        }
    }
}

static void sink(char *base, size_t at, size_t count, size_t size, sort_order order)
{
    for (size_t child = 2 * at + 1; child < count; at = child, child = 2 * at + 1) {
        if (child + 1 < count && order(base + child * size, base + (child + 1) * size) < 0)
            child++;
        if (order(base + at * size, base + child * size) >= 0)
            return;
        swap(base + at * size, base + child * size, size);
    }
}

void sort_heap(void *items, size_t count, size_t size, sort_order order)
{
    char *base = items;
    for (size_t at = count / 2; at-- > 0;)
        sink(base, at, count, size, order);
    for (size_t end = count; end-- > 1;) {
        swap(base, base + end * size, size);
        sink(base, 0, end, size, order);
    }
}

static void merge(char *base, char *scratch, size_t count, size_t size, sort_order order)
{
    if (count < 2)
        return;
    size_t half = count / 2, left = 0, right = half, out = 0;
    merge(base, scratch, half, size, order);
    merge(base + half * size, scratch, count - half, size, order);
    memcpy(scratch, base, count * size);
    while (out < count) {
        bool from_left = right == count || (left < half && order(scratch + left * size, scratch + right * size) <= 0);
        memcpy(base + out++ * size, scratch + (from_left ? left++ : right++) * size, size);
    }
}

bool sort_merge(void *items, size_t count, size_t size, sort_order order)
{
    char *scratch = malloc(count * size + 1);
    if (scratch == NULL)
        return false;
    merge(items, scratch, count, size, order);
    free(scratch);
    return true;
}

typedef struct {
    uint32_t key, place;
} card;

static int by_key(const void *a, const void *b)
{
    uint32_t x = ((const card *)a)->key, y = ((const card *)b)->key;
    return (x > y) - (x < y);
}

static int check_sorted(const card *cards, size_t count, bool stable)
{
    for (size_t i = 1; i < count; i++) {
        CHECK(cards[i - 1].key <= cards[i].key);
        CHECK(!stable || cards[i - 1].key < cards[i].key || cards[i - 1].place < cards[i].place);
    }
    return 0;
}

int demo_check_sort(void)
{
    enum { COUNT = 500 };
    card cards[COUNT];
    for (int way = 0; way < 3; way++) {
        uint32_t random = 12345;
        for (uint32_t i = 0; i < COUNT; i++) {
            random = random * 1664525u + 1013904223u;
            cards[i] = (card){random >> 25, i};
        }
        if (way == 0)
            sort_quick(cards, COUNT, sizeof *cards, by_key);
        else if (way == 1)
            sort_heap(cards, COUNT, sizeof *cards, by_key);
        else
            CHECK(sort_merge(cards, COUNT, sizeof *cards, by_key));
        CHECK(check_sorted(cards, COUNT, way == 2) == 0);
    }
    return 0;
}
