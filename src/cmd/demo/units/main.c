/* Calls every unit's check and says which do not hold. */
#include "check.h"

#include <stdio.h>
#include <string.h>

typedef struct {
    const char *name;
    int (*check)(void);
} entry;

#define ENTRY(name) {#name, demo_check_##name},
static const entry entries[] = {DEMO_CHECKS(ENTRY)};
#undef ENTRY

static int run(const entry *e)
{
    int line = e->check();
    if (line != 0)
        fprintf(stderr, "%s: line %d does not hold\n", e->name, line);
    return line != 0;
}

int main(int argc, char **argv)
{
    size_t count = sizeof entries / sizeof entries[0];
    size_t called = 0;
    int failed = 0;
    for (size_t i = 0; i < count; i++) {
        if (argc > 1 && strcmp(argv[1], entries[i].name) != 0)
            continue;
        failed += run(&entries[i]);
        called++;
    }
    if (called == 0) {
        fprintf(stderr, "there is no unit of that name; the units are:\n");
        for (size_t i = 0; i < count; i++)
            fprintf(stderr, "  %s\n", entries[i].name);
        return 2;
    }
    printf("%zu units, %d failed\n", called, failed);
    return failed != 0;
}
