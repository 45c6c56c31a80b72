/* Patterns as in a shell: * ? [a-z] [!x] \c, without going back more than one star. */
#include "check.h"
#include "text.h"

/* Whether a set, which begins after its bracket, holds a character; `*end` is the place after the closing one. */
static bool set_holds(const char *set, char c, const char **end)
{
    bool negated = *set == '!' || *set == '^', holds = false;
    const char *at = set + negated;
    do {
        char low = *at == '\\' && at[1] != '\0' ? *++at : *at;
        if (low == '\0') {
            *end = at;
            return false;
        }
        char high = low;
        if (at[1] == '-' && at[2] != ']' && at[2] != '\0') {
            high = at[2];
            at += 2;
        }
        holds = holds || (low <= c && c <= high);
        at++;
    } while (*at != ']' && *at != '\0');
    *end = *at == ']' ? at + 1 : at;
    return *at == ']' && holds != negated;
}

static bool one_matches(const char *pattern, char c, const char **next)
{
    switch (*pattern) {
    case '\0':
        return false;
    case '?':
        *next = pattern + 1;
        return c != '/';
    case '[':
        return set_holds(pattern + 1, c, next) && c != '/';
    case '\\':
        if (pattern[1] != '\0')
            pattern++;
        /* fall through */
    default:
        *next = pattern + 1;
        return *pattern == c;
    }
}

static bool matches(const char *pattern, text name)
{
    const char *star = NULL, *next = NULL;
    size_t at = 0, resumed = 0;
    for (;;) {
        if (*pattern == '*') {
            star = ++pattern;
            resumed = at;
        } else if (at == name.length && *pattern == '\0') {
            return true;
        } else if (at < name.length && one_matches(pattern, name.at[at], &next)) {
            pattern = next;
            at++;
        } else if (star != NULL && resumed < name.length && name.at[resumed] != '/') {
            pattern = star;
            at = ++resumed;
        } else {
            return false;
        }
    }
}

int demo_check_glob(void)
{
    static const struct {
        const char *pattern, *name;
        bool matches;
    } cases[] = {
        {"*.c", "main.c", true},          {"*.c", "main.cpp", false},        {"*", "", true},
        {"a*b*c", "axxbyyc", true},       {"a*b*c", "axxbyy", false},        {"a*b*c", "abbbbbc", true},
        {"src/*.h", "src/a/b.h", false},  {"src/*/b.h", "src/a/b.h", true},  {"?", "/", false},
        {"[a-cx]z", "bz", true},          {"[a-cx]z", "dz", false},          {"[!a-c]z", "dz", true},
        {"[]]", "]", true},               {"[a", "a", false},                {"\\*", "*", true},
        {"\\*", "x", false},              {"*[0-9]", "part17", true},        {"**a**", "bab", true},
        {"[a-]x", "-x", true},            {"ab", "abc", false},              {"abc", "ab", false},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++)
        CHECK(matches(cases[i].pattern, text_of(cases[i].name)) == cases[i].matches);
    return 0;
}
