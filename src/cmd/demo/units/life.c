/* Conway's game on a torus, 64 cells to a word: eight neighbours are added up bit by bit. */
#include "buffer.h"
#include "check.h"

#include <stdint.h>
#include <string.h>

enum { ROWS = 64, COLUMNS = 64 };

typedef struct {
    uint64_t row[ROWS];
} world;

static uint64_t left(uint64_t row)
{
    return row << 1 | row >> 63;
}

static uint64_t right(uint64_t row)
{
    return row >> 1 | row << 63;
}

/* Adds one bit per cell to a number of two bits per cell that stops at three and a mark for more. */
static void add(uint64_t bit, uint64_t *ones, uint64_t *twos, uint64_t *more)
{
    uint64_t carry = *ones & bit;
    *ones ^= bit;
    *more |= *twos & carry;
    *twos ^= carry;
}

static void step(world *w)
{
    world next;
    for (int r = 0; r < ROWS; r++) {
        uint64_t above = w->row[(r + ROWS - 1) % ROWS], here = w->row[r], below = w->row[(r + 1) % ROWS];
        uint64_t ones = 0, twos = 0, more = 0;
        const uint64_t neighbours[] = {left(above), above, right(above), left(here), right(here), left(below), below, right(below)};
        for (unsigned i = 0; i < 8; i++)
            add(neighbours[i], &ones, &twos, &more);
        next.row[r] = twos & ~more & (ones | here);
    }
    *w = next;
}

static void place(world *w, int row, int column, const char *picture)
{
    int c = column;
    for (; *picture != '\0'; picture++) {
        if (*picture == '\n') {
            row++;
            c = column;
        } else {
            if (*picture == '#')
                w->row[row % ROWS] |= UINT64_C(1) << (c % COLUMNS);
            c++;
        }
    }
}

static int population(const world *w)
{
    int count = 0;
    for (int r = 0; r < ROWS; r++)
        for (uint64_t row = w->row[r]; row != 0; row &= row - 1)
            count++;
    return count;
}

static void draw(const world *w, int row, int column, int side, buffer *out)
{
    for (int r = row; r < row + side; r++) {
        for (int c = column; c < column + side; c++)
            buffer_add_text(out, w->row[r % ROWS] >> (c % COLUMNS) & 1 ? "#" : ".");
        buffer_add_text(out, "\n");
    }
}

int demo_check_life(void)
{
    world w, begun;
    buffer out = {NULL, 0, 0, false};
    memset(&w, 0, sizeof w);
    place(&w, 0, 0, ".#.\n..#\n###\n");
    begun = w;
    for (int i = 0; i < 4; i++)
        step(&w);
    draw(&w, 1, 1, 3, &out);
    CHECK(buffer_equals(&out, ".#.\n..#\n###\n") && population(&w) == 5);
    for (int i = 4; i < 4 * 64; i++)
        step(&w);
    CHECK(memcmp(&w, &begun, sizeof w) == 0); /* once around the torus */
    memset(&w, 0, sizeof w);
    place(&w, 30, 30, ".##\n##.\n.#.\n"); /* the R-pentomino lives long */
    for (int i = 0; i < 100; i++)
        step(&w);
    CHECK(population(&w) == 121);
    buffer_free(&out);
    return 0;
}
