/* Every unit has one function that tries out what the unit does; main.c calls them all. */
#ifndef DEMO_CHECK_H
#define DEMO_CHECK_H

/* The functions, each named for its unit. A function gives 0, or the line of what does not hold. */
#define DEMO_CHECKS(X)                                                                                              \
    X(arena) X(base64) X(bigint) X(buffer) X(calc) X(checksum) X(csv) X(glob) X(graph_order) X(graph_paths)         \
    X(hashmap) X(json_parse) X(json_write) X(life) X(matrix) X(sort) X(text)                                        \
    X(bridge) X(dates) X(dense) X(evaluate) X(events) X(fraction) X(intern) X(lru) X(parser) X(patterns)            \
    X(permute) X(pool) X(shapes) X(stream) X(tokens) X(tree) X(tuples) X(words)

#ifdef __cplusplus
extern "C" {
#endif

#define DEMO_DECLARE(name) int demo_check_##name(void);
DEMO_CHECKS(DEMO_DECLARE)
#undef DEMO_DECLARE

#ifdef __cplusplus
}
#endif

/* In such a function: what must hold. */
#define CHECK(condition)                                                                                            \
    do {                                                                                                            \
        if (!(condition))                                                                                           \
            return __LINE__;                                                                                        \
    } while (0)

#endif
