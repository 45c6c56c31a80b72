/* Whole numbers of any size, to the base of a thousand million. */
#include "buffer.h"
#include "check.h"

#include <stdint.h>
#include <string.h>

enum { LIMBS_MAX = 64, LIMB_DIGITS = 9 };
static const uint32_t BASE = 1000000000;

typedef struct {
    int count; /* no zero at the end */
    uint32_t limb[LIMBS_MAX];
} bigint;

static bigint of(uint64_t value)
{
    bigint out = {0, {0}};
    for (; value > 0; value /= BASE)
        out.limb[out.count++] = (uint32_t)(value % BASE);
    return out;
}

static void trim(bigint *n)
{
    while (n->count > 0 && n->limb[n->count - 1] == 0)
        n->count--;
}

static int compare(const bigint *a, const bigint *b)
{
    if (a->count != b->count)
        return a->count < b->count ? -1 : 1;
    for (int i = a->count; i-- > 0;)
        if (a->limb[i] != b->limb[i])
            return a->limb[i] < b->limb[i] ? -1 : 1;
    return 0;
}

static bigint sum(const bigint *a, const bigint *b)
{
    bigint out = {0, {0}};
    uint32_t carry = 0;
    for (int i = 0; (i < a->count || i < b->count || carry > 0) && i < LIMBS_MAX; i++) {
        carry += a->limb[i] + b->limb[i];
        out.limb[out.count++] = carry % BASE;
        carry /= BASE;
    }
    return out;
}

/* a must not be smaller than b. */
static bigint difference(const bigint *a, const bigint *b)
{
    bigint out = *a;
    uint32_t borrow = 0;
    for (int i = 0; i < a->count; i++) {
        uint32_t take = borrow + b->limb[i];
        borrow = a->limb[i] < take;
        out.limb[i] = a->limb[i] + borrow * BASE - take;
    }
    trim(&out);
    return out;
}

static bigint product(const bigint *a, const bigint *b)
{
    bigint out = {0, {0}};
    for (int i = 0; i < a->count; i++) {
        uint64_t carry = 0;
        for (int j = 0; i + j < LIMBS_MAX && (j < b->count || carry > 0); j++) {
            carry += out.limb[i + j] + (uint64_t)a->limb[i] * (j < b->count ? b->limb[j] : 0);
            out.limb[i + j] = (uint32_t)(carry % BASE);
            carry /= BASE;
        }
    }
    out.count = a->count + b->count < LIMBS_MAX ? a->count + b->count : LIMBS_MAX;
    trim(&out);
    return out;
}

static uint32_t remainder_of(const bigint *n, uint32_t divisor)
{
    uint64_t rest = 0;
    for (int i = n->count; i-- > 0;)
        rest = (rest * BASE + n->limb[i]) % divisor;
    return (uint32_t)rest;
}

static void write(const bigint *n, buffer *out)
{
    if (n->count == 0)
        buffer_add_text(out, "0");
    else
        buffer_format(out, "%u", n->limb[n->count - 1]);
    for (int i = n->count - 1; i-- > 0;)
        buffer_format(out, "%0*u", LIMB_DIGITS, n->limb[i]);
}

int demo_check_bigint(void)
{
    bigint factorial = of(1);
    for (uint64_t i = 2; i <= 30; i++) {
        bigint factor = of(i);
        factorial = product(&factorial, &factor);
    }
    buffer out = {NULL, 0, 0, false};
    write(&factorial, &out);
    CHECK(buffer_equals(&out, "265252859812191058636308480000000"));
    bigint a = of(0), b = of(1);
    for (int i = 0; i < 200; i++) {
        bigint c = sum(&a, &b);
        a = b;
        b = c;
    }
    buffer_free(&out);
    write(&a, &out);
    CHECK(buffer_equals(&out, "280571172992510140037611932413038677189525"));
    bigint back = difference(&b, &a), twice = sum(&back, &a);
    CHECK(compare(&twice, &b) == 0 && compare(&a, &b) < 0 && remainder_of(&a, 97) == remainder_of(&a, 97 * 2) % 97);
    bigint nothing = difference(&a, &a);
    buffer_free(&out);
    write(&nothing, &out);
    CHECK(nothing.count == 0 && buffer_equals(&out, "0"));
    buffer_free(&out);
    return 0;
}
