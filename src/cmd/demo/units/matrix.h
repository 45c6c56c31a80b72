/* Small dense matrices of doubles, by rows. */
#ifndef DEMO_MATRIX_H
#define DEMO_MATRIX_H

#include <stdbool.h>

enum { MATRIX_SIDE_MAX = 8 };

typedef struct {
    int rows, columns;
    double at[MATRIX_SIDE_MAX][MATRIX_SIDE_MAX];
} matrix;

matrix matrix_zero(int rows, int columns);
matrix matrix_identity(int side);
matrix matrix_product(const matrix *a, const matrix *b);
matrix matrix_transposed(const matrix *m);
double matrix_determinant(matrix m);
/* False if the matrix is singular, or nearly so. */
bool matrix_inverse(matrix m, matrix *inverse);

#endif
