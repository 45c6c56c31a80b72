/* Tables in comma-separated values, RFC 4180: summed up by a column. */
#include "buffer.h"
#include "check.h"
#include "hashmap.h"

#include <stdlib.h>
#include <string.h>

enum { FIELDS_MAX = 16 };

typedef struct {
    const char *at, *end;
    arena fields;
} reader;

/* One field, its quotes taken off. Gives the sign that ended it: a comma, a line's end, or zero. */
static char read_field(reader *r, text *field)
{
    char *bytes = arena_take(&r->fields, (size_t)(r->end - r->at) + 1);
    size_t length = 0;
    bool quoted = r->at < r->end && *r->at == '"';
    if (quoted)
        r->at++;
    while (bytes != NULL && r->at < r->end) {
        char c = *r->at++;
        if (quoted && c == '"') {
            if (r->at < r->end && *r->at == '"')
                r->at++;
            else {
                quoted = false;
                continue;
            }
        } else if (!quoted && (c == ',' || c == '\n')) {
            *field = (text){bytes, length};
            return c;
        }
        bytes[length++] = c;
    }
    *field = (text){bytes, length};
    return '\0';
}

static int read_line(reader *r, text *fields)
{
    int count = 0;
    while (r->at < r->end && count < FIELDS_MAX)
        if (read_field(r, &fields[count++]) != ',')
            break;
    return count;
}

static int column_of(const text *head, int count, const char *name)
{
    for (int i = 0; i < count; i++)
        if (text_is_ignoring_case(text_trim(head[i]), name))
            return i;
    return -1;
}

/* For each value of column `by`, the sum of column `of`. False if the table has no such columns, or a sum no number. */
static bool sum_by(const char *table, const char *by, const char *of, hashmap *sums)
{
    reader r = {table, table + strlen(table), {NULL, 0}};
    text fields[FIELDS_MAX];
    int width = read_line(&r, fields), key = column_of(fields, width, by), value = column_of(fields, width, of);
    bool good = key >= 0 && value >= 0;
    while (good && r.at < r.end) {
        long number = 0;
        int64_t *sum = NULL;
        good = read_line(&r, fields) == width && text_number(text_trim(fields[value]), &number) &&
               (sum = hashmap_at(sums, fields[key])) != NULL;
        if (good)
            *sum += number;
    }
    arena_free(&r.fields);
    return good;
}

int demo_check_csv(void)
{
    static const char table[] = "Machine, Units ,note\n"
                                "tower,120,\"fast, and \"\"near\"\"\"\n"
                                "attic, 7,\n"
                                "tower,30,\"two\nlines\"\n"
                                "\"the, odd\",-5,x";
    hashmap sums = {{NULL, 0}, NULL, 0, 0};
    CHECK(sum_by(table, "machine", "units", &sums) && sums.count == 3);
    CHECK(*hashmap_find(&sums, text_of("tower")) == 150);
    CHECK(*hashmap_find(&sums, text_of("attic")) == 7);
    CHECK(*hashmap_find(&sums, text_of("the, odd")) == -5);
    CHECK(!sum_by(table, "machine", "absent", &sums));
    CHECK(!sum_by("a,b\n1,2\n3\n", "a", "b", &sums));
    CHECK(!sum_by("a,b\n1,two\n", "a", "b", &sums));
    hashmap_free(&sums);

    buffer wide = {NULL, 0, 0, false};
    buffer_add_text(&wide, "k,v\n");
    for (int i = 0; i < 300; i++)
        buffer_format(&wide, "\"key %d\",%d\n", i % 10, i);
    hashmap tens = {{NULL, 0}, NULL, 0, 0};
    CHECK(!wide.failed && sum_by(wide.bytes, "k", "v", &tens) && tens.count == 10);
    CHECK(*hashmap_find(&tens, text_of("key 3")) == 30 * 3 + 10 * (29 * 30 / 2));
    hashmap_free(&tens);
    buffer_free(&wide);
    return 0;
}
