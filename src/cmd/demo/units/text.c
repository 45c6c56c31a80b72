#include "text.h"

#include "check.h"

#include <ctype.h>
#include <limits.h>
#include <string.h>

text text_of(const char *zero_ended)
{
    return (text){zero_ended, strlen(zero_ended)};
}

static bool is_space(char c)
{
    return isspace((unsigned char)c) != 0;
}

text text_trim(text t)
{
    while (t.length > 0 && is_space(t.at[0])) {
        t.at++;
        t.length--;
    }
    while (t.length > 0 && is_space(t.at[t.length - 1]))
        t.length--;
    return t;
}

bool text_is(text t, const char *word)
{
    return t.length == strlen(word) && memcmp(t.at, word, t.length) == 0;
}

bool text_is_ignoring_case(text t, const char *word)
{
    if (t.length != strlen(word))
        return false;
    for (size_t i = 0; i < t.length; i++)
        if (tolower((unsigned char)t.at[i]) != tolower((unsigned char)word[i]))
            return false;
    return true;
}

bool text_next(text *rest, char separator, text *piece)
{
    if (rest->at == NULL)
        return false;
    const char *end = memchr(rest->at, separator, rest->length);
    *piece = *rest;
    if (end == NULL) {
        rest->at = NULL;
        return true;
    }
    piece->length = (size_t)(end - rest->at);
    rest->at = end + 1;
    rest->length -= piece->length + 1;
    return true;
}

bool text_number(text t, long *value)
{
    bool negative = t.length > 0 && t.at[0] == '-';
    size_t i = negative;
    long sum = 0;
    if (i == t.length)
        return false;
    for (; i < t.length; i++) {
        int digit = t.at[i] - '0';
        if (digit < 0 || digit > 9 || sum > (LONG_MAX - digit) / 10)
            return false;
        sum = sum * 10 + digit;
    }
    *value = negative ? -sum : sum;
    return true;
}

size_t text_code_point(text t, uint32_t *code_point)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (t.length == 0)
        return 0;
    unsigned char first = (unsigned char)t.at[0];
    size_t count = first < 0x80 ? 1 : first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if ((first >= 0x80 && first < 0xc2) || first > 0xf4 || count > t.length)
        return 0;
    uint32_t value = count == 1 ? first : first & (0xffu >> (count + 1));
    for (size_t i = 1; i < count; i++) {
        if (((unsigned char)t.at[i] & 0xc0) != 0x80)
            return 0;
        value = value << 6 | ((unsigned char)t.at[i] & 0x3f);
    }
    if (value < least[count] || value > 0x10ffff || (value >= 0xd800 && value < 0xe000))
        return 0;
    *code_point = value;
    return count;
}

int demo_check_text(void)
{
    text rest = text_of("gcc, Clang ,,msvc"), piece;
    const char *wanted[] = {"gcc", "clang", "", "MSVC"};
    size_t n = 0;
    while (text_next(&rest, ',', &piece)) {
        CHECK(n < 4 && text_is_ignoring_case(text_trim(piece), wanted[n]));
        n++;
    }
    CHECK(n == 4 && text_is(text_trim(text_of("\t a b \n")), "a b"));
    long value = 0;
    CHECK(text_number(text_of("-7040"), &value) && value == -7040);
    CHECK(!text_number(text_of("-"), &value) && !text_number(text_of("99999999999999999999"), &value));
    uint32_t point = 0;
    CHECK(text_code_point(text_of("\xe2\x82\xac"), &point) == 3 && point == 0x20ac);
    CHECK(text_code_point(text_of("\xf0\x9f\x90\xa6"), &point) == 4 && point == 0x1f426);
    CHECK(text_code_point(text_of("\xc0\xaf"), &point) == 0 && text_code_point(text_of("\xed\xa0\x80"), &point) == 0);
    return 0;
}
