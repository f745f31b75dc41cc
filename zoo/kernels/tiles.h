/* The products of rows of double with each other, tile by tile. */

#pragma once
#include "doubles.h"

#define DEEP 2 /* vectors of columns in a tile */
#define TILE 4 /* columns that go with them */

/* Columns up to a whole number of tiles. */
static inline int64_t padded(int64_t columns) { return (columns + DEEP * LANES - 1) / (DEEP * LANES) * (DEEP * LANES); }

/* sums += left^T right of `rows` rows (rows, width), of each row of sums (width, width) the columns up to the diagonal. */
static void add_products(const double *left, const double *right, int64_t rows, int64_t columns, int64_t width,
                         double *sums) {
    for (int64_t i = 0; i < columns; i += TILE)
        for (int64_t f = 0; f < i + TILE; f += DEEP * LANES) {
            vec sum[TILE][DEEP];
#pragma GCC unroll 4
            for (int j = 0; j < TILE; j++)
#pragma GCC unroll 2
                for (int v = 0; v < DEEP; v++) sum[j][v] = *(vec *)(sums + (i + j) * width + f + v * LANES);
            for (int64_t r = 0; r < rows; r++) {
                const double *row = right + r * width + f, *factor = left + r * width + i;
#pragma GCC unroll 2
                for (int v = 0; v < DEEP; v++)
#pragma GCC unroll 4
                    for (int j = 0; j < TILE; j++) sum[j][v] += *(const vec *)(row + v * LANES) * set(factor[j]);
            }
#pragma GCC unroll 4
            for (int j = 0; j < TILE; j++)
#pragma GCC unroll 2
                for (int v = 0; v < DEEP; v++) *(vec *)(sums + (i + j) * width + f + v * LANES) = sum[j][v];
        }
}
