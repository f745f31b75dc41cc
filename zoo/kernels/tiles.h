/* The products of rows of double with each other, tile by tile. */

#pragma once
#include "doubles.h"

#define DEEP 2 /* vectors of columns in a tile */
#define TILE 4 /* columns that go with them */

/* Columns up to a whole number of tiles. */
static inline int64_t padded(int64_t columns) { return (columns + DEEP * LANES - 1) / (DEEP * LANES) * (DEEP * LANES); }

#if defined(__AVX512F__)
#define HIGH 8 /* columns that go with them in a product: 16 sums, 2 vectors and a factor of 32 registers */
#else
#define HIGH 4 /* 8 sums, 2 vectors and a factor of 16 registers */
#endif

/* sums (high, deep vectors) += left^T right of some rows, `width` apart as the sums are. */
INLINE void add_tile(const int high, const int deep, const double *left, const double *right, int64_t rows,
                     int64_t width, double *sums) {
    vec sum[HIGH][DEEP];
#pragma GCC unroll 8
    for (int j = 0; j < high; j++)
#pragma GCC unroll 2
        for (int v = 0; v < deep; v++) sum[j][v] = *(vec *)(sums + j * width + v * LANES);
    for (int64_t r = 0; r < rows; r++, left += width, right += width) {
#pragma GCC unroll 8
        for (int j = 0; j < high; j++)
#pragma GCC unroll 2
            for (int v = 0; v < deep; v++) sum[j][v] += *(const vec *)(right + v * LANES) * set(left[j]);
    }
#pragma GCC unroll 8
    for (int j = 0; j < high; j++)
#pragma GCC unroll 2
        for (int v = 0; v < deep; v++) *(vec *)(sums + j * width + v * LANES) = sum[j][v];
}

/* The tiles of `deep` vectors up to the diagonal. */
INLINE void add_tiles(const int deep, const double *left, const double *right, int64_t rows, int64_t columns,
                      int64_t width, double *sums) {
    int64_t i = 0;
    for (; i + HIGH - TILE < columns; i += HIGH)
        for (int64_t f = 0; f < i + HIGH; f += deep * LANES)
            add_tile(HIGH, deep, left + i, right + f, rows, width, sums + i * width + f);
    for (; i < columns; i += TILE)
        for (int64_t f = 0; f < i + TILE; f += deep * LANES)
            add_tile(TILE, deep, left + i, right + f, rows, width, sums + i * width + f);
}

/* sums += left^T right of `rows` rows (rows, width), of each row of sums (width, width) the columns up to the diagonal. */
static void add_products(const double *left, const double *right, int64_t rows, int64_t columns, int64_t width,
                         double *sums) {
    if (width == LANES) add_tiles(1, left, right, rows, columns, width, sums);
    else add_tiles(DEEP, left, right, rows, columns, width, sums);
}
