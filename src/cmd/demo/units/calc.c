/* Arithmetic with precedence, by a table and two stacks. */
#include "check.h"
#include "text.h"

enum { STACK_MAX = 32 };

typedef struct {
    char sign;
    int precedence;
    bool from_right;
} operation;

static const operation operations[] = {{'+', 1, false}, {'-', 1, false}, {'*', 2, false}, {'/', 2, false}, {'%', 2, false}, {'^', 3, true}};

typedef struct {
    long values[STACK_MAX];
    char signs[STACK_MAX];
    int value_count, sign_count;
    const char *wrong;
} machine;

static const operation *find(char sign)
{
    for (unsigned i = 0; i < sizeof operations / sizeof *operations; i++)
        if (operations[i].sign == sign)
            return &operations[i];
    return NULL;
}

static long power(long base, long exponent)
{
    long out = 1;
    for (; exponent > 0; exponent >>= 1, base *= exponent > 0 ? base : 1)
        if (exponent & 1)
            out *= base;
    return out;
}

static void apply(machine *m)
{
    char sign = m->signs[--m->sign_count];
    if (m->value_count < 2) {
        m->wrong = "a value is missing";
        return;
    }
    long right = m->values[--m->value_count], *left = &m->values[m->value_count - 1];
    switch (sign) {
    case '+': *left += right; break;
    case '-': *left -= right; break;
    case '*': *left *= right; break;
    case '^': *left = power(*left, right); break;
    case '/':
    case '%':
        if (right == 0)
            m->wrong = "division by zero";
        else
            *left = sign == '/' ? *left / right : *left % right;
        break;
    default: m->wrong = "a bracket is not closed";
    }
}

static void push_sign(machine *m, char sign)
{
    const operation *now = find(sign), *before;
    while (m->sign_count > 0 && (before = find(m->signs[m->sign_count - 1])) != NULL &&
           (before->precedence > now->precedence || (before->precedence == now->precedence && !now->from_right)))
        apply(m);
    m->signs[m->sign_count++] = sign;
}

/* NULL, or what is wrong. */
static const char *calculate(const char *line, long *result)
{
    machine m = {.wrong = NULL};
    for (const char *at = line; *at != '\0' && m.wrong == NULL; at++) {
        text digits = {at, 0};
        while (at[digits.length] >= '0' && at[digits.length] <= '9')
            digits.length++;
        if (m.value_count == STACK_MAX || m.sign_count == STACK_MAX) {
            m.wrong = "too deep";
        } else if (digits.length > 0) {
            if (!text_number(digits, &m.values[m.value_count++]))
                m.wrong = "a number is too large";
            at += digits.length - 1;
        } else if (*at == '(') {
            m.signs[m.sign_count++] = '(';
        } else if (*at == ')') {
            while (m.sign_count > 0 && m.signs[m.sign_count - 1] != '(' && m.wrong == NULL)
                apply(&m);
            if (m.sign_count-- == 0)
                return "a bracket is not open";
        } else if (find(*at) != NULL) {
            push_sign(&m, *at);
        } else if (*at != ' ') {
            m.wrong = "an unknown sign";
        }
    }
    while (m.sign_count > 0 && m.wrong == NULL)
        apply(&m);
    if (m.wrong == NULL && m.value_count != 1)
        m.wrong = "an operator is missing";
    *result = m.values[0];
    return m.wrong;
}

int demo_check_calc(void)
{
    static const struct {
        const char *line;
        long result;
    } good[] = {{"1 + 2 * 3", 7}, {"(1+2)*3", 9}, {"2^3^2", 512}, {"100 / 7 % 4 - 20", -18}, {"((((42))))", 42}, {"2*(3+4)^2-1", 97}};
    static const char *const bad[] = {"", "1 +", "1 2", "(1", "1)", "1/0", "x", "99999999999999999999"};
    long result = 0;
    for (unsigned i = 0; i < sizeof good / sizeof *good; i++)
        CHECK(calculate(good[i].line, &result) == NULL && result == good[i].result);
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK(calculate(bad[i], &result) != NULL);
    return 0;
}
