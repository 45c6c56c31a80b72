#include "matrix.h"

#include "check.h"

static const double TINY = 1e-12;

static double magnitude(double x)
{
    return x < 0 ? -x : x;
}

matrix matrix_zero(int rows, int columns)
{
    matrix m = {rows, columns, {{0}}};
    return m;
}

matrix matrix_identity(int side)
{
    matrix m = matrix_zero(side, side);
    for (int i = 0; i < side; i++)
        m.at[i][i] = 1;
    return m;
}

matrix matrix_product(const matrix *a, const matrix *b)
{
    matrix out = matrix_zero(a->rows, b->columns);
    for (int i = 0; i < a->rows; i++)
        for (int k = 0; k < a->columns; k++)
            for (int j = 0; j < b->columns; j++)
                out.at[i][j] += a->at[i][k] * b->at[k][j];
    return out;
}

matrix matrix_transposed(const matrix *m)
{
    matrix out = matrix_zero(m->columns, m->rows);
    for (int i = 0; i < m->rows; i++)
        for (int j = 0; j < m->columns; j++)
            out.at[j][i] = m->at[i][j];
    return out;
}

static void swap_rows(matrix *m, int a, int b)
{
    for (int j = 0; j < m->columns; j++) {
        double kept = m->at[a][j];
        m->at[a][j] = m->at[b][j];
        m->at[b][j] = kept;
    }
}

/* Gauss and Jordan, with the largest pivot; does the same to `other`. Gives the determinant. */
static double reduce(matrix *m, matrix *other)
{
    double determinant = 1;
    for (int column = 0; column < m->rows; column++) {
        int pivot = column;
        for (int i = column + 1; i < m->rows; i++)
            if (magnitude(m->at[i][column]) > magnitude(m->at[pivot][column]))
                pivot = i;
        double value = m->at[pivot][column];
        if (magnitude(value) < TINY)
            return 0;
        if (pivot != column) {
            swap_rows(m, pivot, column);
            swap_rows(other, pivot, column);
            determinant = -determinant;
        }
        determinant *= value;
        for (int j = 0; j < m->columns; j++) {
            m->at[column][j] /= value;
            other->at[column][j] /= value;
        }
        for (int i = 0; i < m->rows; i++) {
            double factor = i == column ? 0 : m->at[i][column];
            for (int j = 0; j < m->columns; j++) {
                m->at[i][j] -= factor * m->at[column][j];
                other->at[i][j] -= factor * other->at[column][j];
            }
        }
    }
    return determinant;
}

double matrix_determinant(matrix m)
{
    matrix other = matrix_identity(m.rows);
    return reduce(&m, &other);
}

bool matrix_inverse(matrix m, matrix *inverse)
{
    *inverse = matrix_identity(m.rows);
    return magnitude(reduce(&m, inverse)) > 0;
}

int demo_check_matrix(void)
{
    matrix m = matrix_zero(3, 3), inverse;
    const double values[3][3] = {{0, 2, 1}, {1, -2, 3}, {4, 0, 5}};
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++)
            m.at[i][j] = values[i][j];
    CHECK(magnitude(matrix_determinant(m) - 22) < 1e-9);
    CHECK(matrix_inverse(m, &inverse));
    matrix product = matrix_product(&m, &inverse);
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++)
            CHECK(magnitude(product.at[i][j] - (i == j)) < 1e-9);
    matrix flipped = matrix_transposed(&m);
    CHECK(magnitude(flipped.at[2][0] - 1) < TINY && magnitude(matrix_determinant(flipped) - 22) < 1e-9);
    for (int j = 0; j < 3; j++)
        m.at[2][j] = m.at[0][j] + m.at[1][j];
    CHECK(!matrix_inverse(m, &inverse));
    return 0;
}
