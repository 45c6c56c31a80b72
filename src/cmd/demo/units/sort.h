/* Three ways to put anything into order. */
#ifndef DEMO_SORT_H
#define DEMO_SORT_H

#include <stdbool.h>
#include <stddef.h>

typedef int (*sort_order)(const void *a, const void *b);

void sort_quick(void *items, size_t count, size_t size, sort_order order);
void sort_heap(void *items, size_t count, size_t size, sort_order order);
/* Keeps equal items in their order; false if there is no memory. */
bool sort_merge(void *items, size_t count, size_t size, sort_order order);

#endif
