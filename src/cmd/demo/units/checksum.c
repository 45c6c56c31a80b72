/* CRC-32 by a table that the preprocessor makes, Adler-32, and SipHash-2-4. */
#include "check.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define STEP(c) ((c)&1 ? 0xedb88320u ^ (c) >> 1 : (c) >> 1)
static uint32_t crc_table[256];

static void fill_table(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t value = i;
        for (int bit = 0; bit < 8; bit++)
            value = STEP(value);
        crc_table[i] = value;
    }
}

static uint32_t crc32(uint32_t crc, const void *bytes, size_t length)
{
    const unsigned char *at = bytes;
    crc = ~crc;
    while (length-- > 0)
        crc = crc_table[(crc ^ *at++) & 255] ^ crc >> 8;
    return ~crc;
}

static uint32_t adler32(const void *bytes, size_t length)
{
    const unsigned char *at = bytes;
    uint32_t low = 1, high = 0;
    while (length > 0) {
        /* The largest count for which `high` cannot overflow. */
        size_t piece = length < 5552 ? length : 5552;
        length -= piece;
        while (piece-- > 0) {
            low += *at++;
            high += low;
        }
        low %= 65521;
        high %= 65521;
    }
    return high << 16 | low;
}

static uint64_t rotate(uint64_t x, int by)
{
    return x << by | x >> (64 - by);
}

static void sip_round(uint64_t v[4])
{
    v[0] += v[1], v[1] = rotate(v[1], 13) ^ v[0], v[0] = rotate(v[0], 32);
    v[2] += v[3], v[3] = rotate(v[3], 16) ^ v[2];
    v[0] += v[3], v[3] = rotate(v[3], 21) ^ v[0];
    v[2] += v[1], v[1] = rotate(v[1], 17) ^ v[2], v[2] = rotate(v[2], 32);
}

static uint64_t siphash(const uint64_t key[2], const unsigned char *bytes, size_t length)
{
    uint64_t v[4] = {key[0] ^ UINT64_C(0x736f6d6570736575), key[1] ^ UINT64_C(0x646f72616e646f6d),
                     key[0] ^ UINT64_C(0x6c7967656e657261), key[1] ^ UINT64_C(0x7465646279746573)};
    size_t words = length / 8 + 1;
    for (size_t word = 0; word < words; word++) {
        uint64_t m = word + 1 == words ? (uint64_t)length << 56 : 0;
        for (size_t k = 0; k < 8 && word * 8 + k < length; k++)
            m |= (uint64_t)bytes[word * 8 + k] << (8 * k);
        v[3] ^= m;
        sip_round(v);
        sip_round(v);
        v[0] ^= m;
    }
    v[2] ^= 0xff;
    for (int i = 0; i < 4; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

int demo_check_checksum(void)
{
    fill_table();
    CHECK(crc32(0, "123456789", 9) == 0xcbf43926u);
    CHECK(crc32(crc32(0, "12345", 5), "6789", 4) == 0xcbf43926u);
    CHECK(adler32("Wikipedia", 9) == 0x11e60398u);
    static unsigned char many[20000];
    memset(many, 0xff, sizeof many);
    CHECK(adler32(many, sizeof many) == adler32(many, sizeof many) && adler32(many, 0) == 1);
    unsigned char bytes[15];
    for (unsigned char i = 0; i < sizeof bytes; i++)
        bytes[i] = i;
    const uint64_t key[2] = {UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908)};
    CHECK(siphash(key, bytes, 15) == UINT64_C(0xa129ca6149be45e5));
    CHECK(siphash(key, bytes, 0) == UINT64_C(0x726fdb47dd0e0e31));
    return 0;
}
