/* What coefficients leave of float32 rows, and the slope of its square, in one pass and in double: four rows at a time,
   read for their residuals and again, from the nearest cache, for what these add to the slope. */

#include "doubles.h"

#define ROWS 4 /* at a time */
#define AHEAD 8 /* rows that are fetched while others are worked on: the first look into a page takes long */

typedef struct {
    int64_t rows, features, targets, threads;
    const float *x;           /* (N, F) */
    const double *y, *at, *w; /* (N, K); (F + K), what is subtracted from a row; (K, F) */
    double *sums;             /* (K + 1, F): of residuals times rows, and of rows */
    double *squares;          /* (K + 1, K + 1): of residuals, and ones behind them, times each other */
} Slope;

/* y - x w of some rows, (rows, K + 1), with a one behind each. */
INLINE void find_residuals(const Slope *task, int64_t first, const int rows, double *residual) {
    const int64_t F = task->features, K = task->targets, whole = F - F % LANES;
    const float *x = task->x + first * F;
    for (int64_t k = 0; k < K; k++) {
        const double *w = task->w + k * F;
        vec sum[ROWS] = {};
        for (int64_t f = 0; f < whole; f += LANES) {
            const vec by = *(const vec *)(w + f), at = *(const vec *)(task->at + f);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) sum[r] += (widened(x + r * F + f) - at) * by;
        }
        for (int r = 0; r < rows; r++) {
            double product = total(sum[r]);
            for (int64_t f = whole; f < F; f++) product += (x[r * F + f] - task->at[f]) * w[f];
            residual[r * (K + 1) + k] = task->y[(first + r) * K + k] - task->at[F + k] - product;
        }
    }
    for (int r = 0; r < rows; r++) residual[r * (K + 1) + K] = 1.0;
}

/* Add rows times their residuals, and the rows themselves, to the sums: each is widened once for all of them. */
INLINE void add_rows(const Slope *task, int64_t first, const int rows, const double *residual, double *sums) {
    const int64_t F = task->features, K = task->targets, whole = F - F % LANES;
    const float *x = task->x + first * F;
    double *ones = sums + K * F;
    for (int64_t f = 0; f < whole; f += LANES) {
        const vec at = *(const vec *)(task->at + f);
        vec row[ROWS], all = *(vec *)(ones + f);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) row[r] = widened(x + r * F + f) - at, all += row[r];
        *(vec *)(ones + f) = all;
        for (int64_t k = 0; k < K; k++) {
            vec add = *(vec *)(sums + k * F + f);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) add += row[r] * residual[r * (K + 1) + k];
            *(vec *)(sums + k * F + f) = add;
        }
    }
    for (int64_t k = 0; k <= K; k++)
        for (int64_t f = whole; f < F; f++)
            for (int r = 0; r < rows; r++) sums[k * F + f] += (x[r * F + f] - task->at[f]) * residual[r * (K + 1) + k];
}

INLINE void add_block(const Slope *task, int64_t first, const int rows, double *sums, double *squares, double *residual) {
    const int64_t width = task->targets + 1;
    const int64_t next = least(first + AHEAD, task->rows) * task->features, end = least(first + AHEAD + rows, task->rows);
    for (int64_t i = next; i < end * task->features; i += 16) __builtin_prefetch(task->x + i);
    find_residuals(task, first, rows, residual);
    add_rows(task, first, rows, residual, sums);
    for (int r = 0; r < rows; r++)
        for (int64_t k = 0; k < width; k++)
            for (int64_t l = 0; l < width; l++) squares[k * width + l] += residual[r * width + k] * residual[r * width + l];
}

KERNEL(least_squares_slope, Slope) {
    const int64_t threads = task->threads, width = task->targets + 1, sums = width * task->features;
    const int64_t all = sums + width * width + ROWS * width;
    double *memory = calloc((size_t)(threads * all), sizeof(double));
    if (!memory) return 1;
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)
    for (int64_t t = 0; t < threads; t++) {
        double *own = memory + t * all, *squares = own + sums, *residual = squares + width * width;
        int64_t row = task->rows * t / threads;
        const int64_t end = task->rows * (t + 1) / threads;
        for (; row + ROWS <= end; row += ROWS) add_block(task, row, ROWS, own, squares, residual);
        for (; row < end; row++) add_block(task, row, 1, own, squares, residual);
    }
    for (int64_t t = 0; t < threads; t++) {
        for (int64_t i = 0; i < sums; i++) task->sums[i] += memory[t * all + i];
        for (int64_t i = 0; i < width * width; i++) task->squares[i] += memory[t * all + sums + i];
    }
    free(memory);
    return 0;
}
