/* Base 64 of RFC 4648, both ways, strict. */
#include "buffer.h"
#include "check.h"

#include <stdint.h>
#include <string.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static void encode(const unsigned char *bytes, size_t length, buffer *out)
{
    for (size_t i = 0; i < length; i += 3) {
        size_t count = length - i < 3 ? length - i : 3;
        uint32_t group = 0;
        for (size_t k = 0; k < 3; k++)
            group = group << 8 | (k < count ? bytes[i + k] : 0u);
        char digits[4];
        for (size_t k = 0; k < 4; k++)
            digits[k] = k <= count ? alphabet[group >> (18 - 6 * k) & 63] : '=';
        buffer_add(out, digits, 4);
    }
}

static int digit_of(char c)
{
    const char *at = c == '\0' ? NULL : strchr(alphabet, c);
    return at == NULL ? -1 : (int)(at - alphabet);
}

/* False for a wrong length, a sign that is no digit, padding inside, or bits that padding leaves over. */
static bool decode(const char *digits, buffer *out)
{
    size_t length = strlen(digits);
    if (length % 4 != 0)
        return false;
    for (size_t i = 0; i < length; i += 4) {
        bool last = i + 4 == length;
        int count = last && digits[i + 2] == '=' && digits[i + 3] == '=' ? 1 : last && digits[i + 3] == '=' ? 2 : 3;
        uint32_t group = 0;
        for (int k = 0; k < 4; k++) {
            int digit = k <= count ? digit_of(digits[i + (size_t)k]) : 0;
            if (digit < 0)
                return false;
            group = group << 6 | (uint32_t)digit;
        }
        if ((group & (0xffffffu >> (8 * count))) != 0)
            return false;
        for (int k = 0; k < count; k++) {
            unsigned char byte = (unsigned char)(group >> (16 - 8 * k) & 255);
            buffer_add(out, &byte, 1);
        }
    }
    return true;
}

static int check_pair(const char *plain, const char *coded)
{
    buffer to = {NULL, 0, 0, false}, from = {NULL, 0, 0, false};
    encode((const unsigned char *)plain, strlen(plain), &to);
    CHECK(buffer_equals(&to, coded));
    CHECK(decode(coded, &from) && buffer_equals(&from, plain));
    buffer_free(&to);
    buffer_free(&from);
    return 0;
}

int demo_check_base64(void)
{
    static const char *const pairs[][2] = {{"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"}, {"foob", "Zm9vYg=="}, {"fooba", "Zm9vYmE="}, {"foobar", "Zm9vYmFy"}};
    static const char *const bad[] = {"Zg", "Zg=", "Zh==", "Z===", "Zg==Zg==", "Zm9v!mFy", "Zm9="};
    buffer out = {NULL, 0, 0, false};
    for (unsigned i = 0; i < sizeof pairs / sizeof *pairs; i++)
        CHECK(check_pair(pairs[i][0], pairs[i][1]) == 0);
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK(!decode(bad[i], &out));
    buffer_free(&out);

    unsigned char all[256];
    for (int i = 0; i < 256; i++)
        all[i] = (unsigned char)i;
    buffer coded = {NULL, 0, 0, false};
    encode(all, sizeof all, &coded);
    CHECK(coded.length == 344 && decode(coded.bytes, &out));
    CHECK(out.length == 256 && memcmp(out.bytes, all, 256) == 0);
    buffer_free(&coded);
    buffer_free(&out);
    return 0;
}
