/* Normal features of classes: the moments of the rows of each class, and the densities of rows.

   A block of rows is read twice, the second time from the cache: for the mean of each class, and for what lies beside
   it. Blocks merge after Chan, Golub & LeVeque (1979), with what rounding left of each mean kept beside it. Threads
   share columns there, and rows where densities are asked for, so that no sum hangs on how many there are. */

#include "doubles.h"

enum { COLUMNS = 512, NUMBERS = 1 << 15 }; /* of a tile; of a block of rows, which stays in the second cache */
enum { ROWS = 64, TOGETHER = 4 };          /* of a block whose densities are found; side by side */

typedef struct {
    int64_t rows, features, classes, single, threads;
    const void *x;                         /* (N, D), of float where `single`, of double else */
    const int64_t *y;                      /* (N), from 0 to C - 1 */
    const double *weight;                  /* (N), or NULL */
    double *count, *mean, *rest, *scatter; /* (C), (C, D): zeros, to which is added */
    int64_t *strangers;                    /* (1): rows of a class out of range, for which nothing is done */
} ClassMoments;

typedef struct {
    int64_t rows, features, classes, single, threads;
    const void *x;                                  /* (N, D), of float where `single`, of double else */
    const double *mean, *precision, *normalization; /* (C, D), (C, D), (C): the sum of log 2 pi sigma^2 */
    double *density;                                /* (N, C), its logarithm */
} ClassDensities;

/* What one block of rows adds to a tile of columns, and the weight of the rows before it. */
typedef struct {
    double *mean, *rest, *squares; /* (C, W) */
    double *mass, *before;         /* (C) */
    int64_t *number;               /* (C): rows */
} Block;

INLINE double number_at(const void *x, int64_t i, int single) {
    return single ? (double)((const float *)x)[i] : ((const double *)x)[i];
}

/* Sums and squares of rows [first, end), columns [column, column + width). */
INLINE void read_rows(const ClassMoments *t, Block *b, int64_t column, int64_t width, int64_t first, int64_t end,
                      const int single) {
    const int64_t D = t->features, C = t->classes;
    for (int64_t r = first; r < end; r++) {
        const double w = t->weight ? t->weight[r] : 1.0;
        double *restrict sum = b->mean + t->y[r] * width;
        for (int64_t d = 0; d < width; d++) sum[d] += w * number_at(t->x, r * D + column + d, single);
        b->mass[t->y[r]] += w, b->number[t->y[r]]++;
    }
    for (int64_t c = 0; c < C; c++)
        if (b->mass[c] > 0.0)
            for (int64_t d = 0; d < width; d++) b->mean[c * width + d] /= b->mass[c];
    for (int64_t r = first; r < end; r++) {
        const double w = t->weight ? t->weight[r] : 1.0;
        const double *restrict mean = b->mean + t->y[r] * width;
        double *restrict rest = b->rest + t->y[r] * width, *restrict squares = b->squares + t->y[r] * width;
        for (int64_t d = 0; d < width; d++) {
            const double left = number_at(t->x, r * D + column + d, single) - mean[d];
            rest[d] += w * left, squares[d] += w * left * left;
        }
    }
}

/* Join the block's moments of each class to those of the rows before. */
static void merge(const ClassMoments *t, Block *b, int64_t column, int64_t width) {
    for (int64_t c = 0; c < t->classes; c++) {
        if (!b->number[c]) continue;
        const double n = b->before[c], mass = b->mass[c], both = n + mass, divisor = mass > 0.0 ? mass : 1.0;
        const double share = both > 0.0 ? mass / both : 0.0, joint = n * share;
        double *restrict mean = t->mean + c * t->features + column, *restrict rest = t->rest + c * t->features + column;
        double *restrict scatter = t->scatter + c * t->features + column;
        for (int64_t d = 0; d < width; d++) {
            const double own = b->mean[c * width + d], own_rest = b->rest[c * width + d] / divisor;
            const double squares = b->squares[c * width + d] - divisor * own_rest * own_rest;
            const double start = n > 0.0 ? mean[d] : own, shift = (own - start) + (own_rest - rest[d]);
            const double step = rest[d] + share * shift;
            mean[d] = start + step;
            rest[d] = step - (mean[d] - start);
            scatter[d] += (squares < 0.0 ? 0.0 : squares) + joint * shift * shift;
        }
        b->before[c] = both;
    }
}

/* Add all rows to a tile of columns; return whether there was no memory. */
static int add_tile(const ClassMoments *t, int64_t column, int64_t width) {
    const int64_t C = t->classes, numbers = 3 * C * width + C;
    const int64_t size = NUMBERS / least(COLUMNS, t->features + !t->features), height = size < 4 * C ? 4 * C : size;
    double *memory = malloc((size_t)(numbers + C) * sizeof(double) + (size_t)C * sizeof(int64_t));
    if (!memory) return 1;
    Block b = {.mean = memory, .rest = memory + C * width, .squares = memory + 2 * C * width};
    b.mass = memory + 3 * C * width, b.before = b.mass + C, b.number = (int64_t *)(b.before + C);
    memset(b.before, 0, (size_t)C * sizeof(double));
    for (int64_t first = 0; first < t->rows; first += height) {
        const int64_t end = least(first + height, t->rows);
        memset(memory, 0, (size_t)numbers * sizeof(double));
        memset(b.number, 0, (size_t)C * sizeof(int64_t));
        if (t->single) read_rows(t, &b, column, width, first, end, 1);
        else read_rows(t, &b, column, width, first, end, 0);
        merge(t, &b, column, width);
    }
    if (!column) memcpy(t->count, b.before, (size_t)C * sizeof(double));
    free(memory);
    return 0;
}

KERNEL(class_moments, ClassMoments) {
    const int64_t D = task->features, threads = task->threads;
    for (int64_t r = 0; r < task->rows; r++) *task->strangers += task->y[r] < 0 || task->y[r] >= task->classes;
    if (*task->strangers) return 0;
    const int64_t share = (D / threads + 7) / 8 * 8, width = share > COLUMNS || !share ? COLUMNS : share;
    int failed = 0;
#pragma omp parallel for num_threads(threads) schedule(dynamic) reduction(|| : failed) if (threads > 1)
    for (int64_t column = 0; column < D + !D; column += width)
        failed = add_tile(task, column, least(width, D - column)) || failed;
    return failed;
}

/* sum_d (x_d - mean_d)^2 precision_d of a block of rows, a tile of columns at a time, added to (N, C). */
static void add_squares(const ClassDensities *t, double *memory, int64_t first, int64_t rows) {
    const int64_t D = t->features, C = t->classes;
    for (int64_t column = 0; column < D; column += COLUMNS) {
        const int64_t width = least(COLUMNS, D - column), whole = (width + LANES - 1) / LANES * LANES;
        double *numbers = memory, *mean = numbers + ROWS * whole, *precision = mean + whole;
        memset(memory, 0, (size_t)((ROWS + 2) * whole) * sizeof(double)); /* what fills a vector up adds nothing */
        for (int64_t r = 0; r < rows; r++) {
            const int64_t start = (first + r) * D + column;
            if (t->single)
                for (int64_t d = 0; d < width; d++) numbers[r * whole + d] = number_at(t->x, start + d, 1);
            else memcpy(numbers + r * whole, (const double *)t->x + start, (size_t)width * sizeof(double));
        }
        for (int64_t c = 0; c < C; c++) {
            memcpy(mean, t->mean + c * D + column, (size_t)width * sizeof(double));
            memcpy(precision, t->precision + c * D + column, (size_t)width * sizeof(double));
            for (int64_t r = 0; r < rows; r += TOGETHER) {
                vec sum[TOGETHER] = {};
                for (int64_t d = 0; d < whole; d += LANES) {
                    const vec middle = *(const vec *)(mean + d), factor = *(const vec *)(precision + d);
#pragma GCC unroll 4
                    for (int k = 0; k < TOGETHER; k++) {
                        const vec left = *(const vec *)(numbers + (r + k) * whole + d) - middle;
                        sum[k] += left * left * factor;
                    }
                }
                for (int64_t k = 0; k < TOGETHER && r + k < rows; k++) t->density[(first + r + k) * C + c] += total(sum[k]);
            }
        }
    }
}

KERNEL(class_densities, ClassDensities) {
    const int64_t N = task->rows, C = task->classes, width = least(COLUMNS, task->features) + LANES;
    int failed = 0;
#pragma omp parallel num_threads(task->threads) reduction(|| : failed) if (task->threads > 1)
    {
        double *memory = malloc((size_t)((ROWS + 2) * width) * sizeof(double));
        failed = !memory;
#pragma omp for schedule(static)
        for (int64_t first = 0; first < N; first += ROWS) {
            const int64_t rows = least(ROWS, N - first);
            double *density = task->density + first * C;
            memset(density, 0, (size_t)(rows * C) * sizeof(double));
            if (memory) add_squares(task, memory, first, rows);
            for (int64_t i = 0; i < rows * C; i++) {
                const double normalization = task->normalization[i % C];
                density[i] = normalization == INFINITY ? -INFINITY : -0.5 * (density[i] + normalization);
            }
        }
        free(memory);
    }
    return failed;
}
