/* Layer normalization and its way back, with what stands on the residual path beside it: see zoo/kernels/layer_norm.py.

   After its first time a row is read from the nearest cache. Letters: N rows, D columns. */

#include "vectors.h"
#include <math.h>

typedef struct {
    int64_t rows, columns, threads; /* N, D */
    double eps;
    const float *x, *gain, *shift; /* (N, D); (D) each, or NULL */
    const float *more, *level;     /* (N, D) and (D): what is added to x first, into `total`; or NULL */
    float *total, *y, *norms;      /* (N, D) each; (2, N): means, and 1 / sqrt(variance + eps) */
} LayerNorm;

typedef struct {
    int64_t rows, columns, threads;
    const float *d, *x, *gain, *norms; /* (N, D): the gradients of y; the others as above */
    const float *beside;               /* (N, D): what is added to the result, or NULL */
    float *d_x, *d_gain, *d_shift;     /* (N, D); (D) each */
} LayerNormBack;

#define BLOCK 64 /* rows whose shares in the gradients of gain and shift are summed in single precision */

/* x - mean, and 0 beyond the row. */
INLINE vec away(const float *x, float mean, int n) {
    const vec found = load(x, n) - mean;
    if (n == LANES) return found;
#if defined(__AVX512F__)
    return (vec)_mm512_maskz_mov_ps((__mmask16)((1 << n) - 1), (__m512)found);
#else
    vec kept = {};
    for (int lane = 0; lane < n; lane++) kept[lane] = found[lane];
    return kept;
#endif
}

static void normalize(const LayerNorm *task, int64_t i) {
    const int64_t D = task->columns;
    const float *x = task->x + i * D;
    vec sum = {}, rest = {}, squares = {};
    if (task->more) {
        for (int64_t j = 0; j < D; j += LANES) {
            const int n = lanes(D - j);
            vec v = load(x + j, n) + load(task->more + i * D + j, n);
            if (task->level) v += load(task->level + j, n);
            store(task->total + i * D + j, v, n);
        }
        x = task->total + i * D;
    }
    for (int64_t j = 0; j < D; j += LANES) sum += load(x + j, lanes(D - j));
    const float about = sum_of(sum) / (float)D;
    for (int64_t j = 0; j < D; j += LANES) { /* what rounding left of the mean is taken off both */
        const vec v = away(x + j, about, lanes(D - j));
        rest += v, squares += v * v;
    }
    const float more = sum_of(rest) / (float)D, mean = about + more;
    const float variance = sum_of(squares) / (float)D - more * more;
    const float rate = (float)(1.0 / sqrt((variance < 0.0f ? 0.0 : (double)variance) + task->eps));
    for (int64_t j = 0; j < D; j += LANES) {
        const int n = lanes(D - j);
        vec v = (load(x + j, n) - mean) * rate;
        if (task->gain) v *= load(task->gain + j, n);
        if (task->shift) v += load(task->shift + j, n);
        store(task->y + i * D + j, v, n);
    }
    task->norms[i] = mean, task->norms[task->rows + i] = rate;
}

KERNEL(layer_norm, LayerNorm) {
#pragma omp parallel for num_threads(task->threads) schedule(static) if (task->threads > 1)
    for (int64_t i = 0; i < task->rows; i++) normalize(task, i);
    return 0;
}

/* The gradient of a row, whose shares in those of gain and shift are added to `shares`, (2, D). */
static void back_row(const LayerNormBack *task, int64_t i, float *shares) {
    const int64_t D = task->columns;
    const float *d = task->d + i * D, *x = task->x + i * D, *beside = task->beside ? task->beside + i * D : NULL;
    const float mean = task->norms[i], rate = task->norms[task->rows + i];
    vec sum = {}, with = {};
    for (int64_t j = 0; j < D; j += LANES) {
        const int n = lanes(D - j);
        const vec up = load(d + j, n), place = away(x + j, mean, n) * rate;
        const vec down = task->gain ? (vec)(up * load(task->gain + j, n)) : up;
        sum += down, with += down * place;
        store(shares + j, load(shares + j, n) + up * place, n);
        store(shares + D + j, load(shares + D + j, n) + up, n);
    }
    const float level = sum_of(sum) / (float)D, slope = sum_of(with) / (float)D;
    for (int64_t j = 0; j < D; j += LANES) {
        const int n = lanes(D - j);
        const vec up = load(d + j, n), place = (load(x + j, n) - mean) * rate;
        const vec down = task->gain ? (vec)(up * load(task->gain + j, n)) : up;
        vec found = rate * (down - level - place * slope);
        if (beside) found += load(beside + j, n);
        store(task->d_x + i * D + j, found, n);
    }
}

KERNEL(layer_norm_back, LayerNormBack) {
    const int64_t D = task->columns, blocks = (task->rows + BLOCK - 1) / BLOCK, T = task->threads;
    float *shares = malloc((size_t)(2 * D * T) * sizeof *shares);
    double *sums = calloc((size_t)(2 * D * T), sizeof *sums);
    const int failed = !shares || !sums;
#pragma omp parallel for num_threads(T) schedule(static, 1) if (T > 1)
    for (int64_t t = 0; t < T; t++)
        for (int64_t block = blocks * t / T; block < blocks * (t + 1) / T && !failed; block++) {
            float *mine = shares + 2 * D * t;
            memset(mine, 0, 2 * (size_t)D * sizeof *mine);
            for (int64_t i = block * BLOCK; i < least((block + 1) * BLOCK, task->rows); i++) back_row(task, i, mine);
            for (int64_t j = 0; j < 2 * D; j++) sums[2 * D * t + j] += (double)mine[j];
        }
    for (int64_t j = 0; j < 2 * D && !failed; j++) {
        double sum = 0.0;
        for (int64_t t = 0; t < T; t++) sum += sums[2 * D * t + j];
        *(j < D ? task->d_gain + j : task->d_shift + j - D) = (float)sum;
    }
    free(shares), free(sums);
    return failed;
}
