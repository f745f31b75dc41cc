/* A pass of Lloyd's algorithm over rows in single precision: scores, the greatest of them, and sums, block by block.

   A block of rows lies with its rows in the lanes, so that a score is a chain of multiplications and the greatest is
   found by comparing vectors; no score is ever written. Sums are double.

   Letters as in the Python modules: N rows, D features, R restarts, K clusters. */

#include "vectors.h"
#include <math.h>

#define DEEP 2 /* vectors of rows in a block */
#define ROWS_AT_ONCE (DEEP * LANES)
#if defined(__AVX512F__)
#define TILE 8 /* 8 x 2 sums, 2 rows and a factor fill 19 of 32 registers */
#else
#define TILE 4 /* 4 x 2 sums, 2 rows and a factor fill 11 of 16 registers */
#endif

/* Eight doubles at a time. */
typedef double eight __attribute__((vector_size(64), aligned(8), may_alias));
typedef float eight_floats __attribute__((vector_size(32), aligned(4), may_alias));

INLINE eight widen(const float *from) { return __builtin_convertvector(*(const eight_floats *)from, eight); }

typedef struct {
    int64_t rows, features, restarts, clusters;
    double scale;            /* what rows are multiplied by */
    double rounding;         /* share of the squares below which a distance is 0 */
    const float *x;          /* (N, D) */
    const float *reference;  /* (D), subtracted from rows */
    const float *centroids;  /* (R*K, D + 1), as rows are after that; the last column -|c|^2 / 2 */
    const double *weight;    /* (N), or NULL */
    double *moments;         /* (R, K, D + 1): sums of rows, and of weights; all written */
    double *gain, *norm;     /* (R,), (): sums of scores and of squares */
    const double *longest;   /* (R,): the greatest |c|^2 */
    int64_t *label;          /* (R, N) */
    double *distance;        /* (R, N), squared and scaled */
} Lloyd;

/* What is at hand while a block is worked on. */
typedef struct {
    float *packed; /* centroids in tiles, packed[restart][tile][feature][TILE], then their last column */
    int64_t width; /* D + 1, up to a multiple of 8 */
    float *flat;   /* (ROWS_AT_ONCE, width): rows from the reference point, then 1, then 0 */
    float *turned; /* (D, ROWS_AT_ONCE) */
    double *sums;  /* (R, K, width): on cache lines, from which a sum that was just stored is read at once */
    eight norm;
    float score[ROWS_AT_ONCE]; /* the greatest */
    int32_t best[ROWS_AT_ONCE];
} Block;

static float *room(int64_t count) { return aligned_alloc(64, ((size_t)count * sizeof(float) / 64 + 1) * 64); }

static int64_t tiles(const Lloyd *task) { return (task->clusters + TILE - 1) / TILE; }

/* A tile that is not full ends in clusters that score -inf, which nothing chooses. */
static void pack(const Lloyd *task, float *to) {
    const int64_t D = task->features, K = task->clusters;
    for (int64_t restart = 0; restart < task->restarts; restart++)
        for (int64_t first = 0; first < K; first += TILE)
            for (int64_t f = 0; f <= D; f++)
                for (int64_t k = first; k < first + TILE; k++)
                    *to++ = k < K ? task->centroids[(restart * K + k) * (D + 1) + f] : f < D ? 0.0f : -INFINITY;
}

static int open_block(const Lloyd *task, Block *b) {
    const int64_t D = task->features, width = (D + 8) / 8 * 8, count = task->restarts * task->clusters * width;
    b->width = width, b->norm = (eight){};
    b->packed = room(task->restarts * tiles(task) * TILE * (D + 1));
    b->flat = room(ROWS_AT_ONCE * width), b->turned = room(ROWS_AT_ONCE * D);
    b->sums = (double *)room(2 * count);
    if (!b->packed || !b->flat || !b->turned || !b->sums) return 1;
    pack(task, b->packed);
    memset(b->flat, 0, ROWS_AT_ONCE * width * sizeof(float));
    for (int r = 0; r < ROWS_AT_ONCE; r++) b->flat[r * width + D] = 1.0f;
    memset(b->sums, 0, count * sizeof(double));
    return 0;
}

static void close_block(Block *b) { free(b->packed), free(b->flat), free(b->turned), free(b->sums); }

/* to[c][r] = from[r][c] for LANES rows that are `width` apart, of which the first n columns are there. */
INLINE void turn(const float *from, int64_t width, int n, float *to) {
#if defined(__AVX512F__)
    __m512 a[16], t[16];
    const __mmask16 there = (__mmask16)((1u << n) - 1);
#pragma GCC unroll 16
    for (int r = 0; r < 16; r++) a[r] = _mm512_maskz_loadu_ps(there, from + r * width);
#pragma GCC unroll 8
    for (int r = 0; r < 16; r += 2) t[r] = _mm512_unpacklo_ps(a[r], a[r + 1]), t[r + 1] = _mm512_unpackhi_ps(a[r], a[r + 1]);
#pragma GCC unroll 4
    for (int r = 0; r < 16; r += 4)
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            __m512d low = _mm512_castps_pd(t[r + h]), high = _mm512_castps_pd(t[r + h + 2]);
            a[r + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
            a[r + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
        }
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) { /* a[4 q + c] has columns c, 4 + c, 8 + c and 12 + c of rows 4 q to 4 q + 3 */
        __m512 low = _mm512_shuffle_f32x4(a[c], a[c + 4], 0x88), high = _mm512_shuffle_f32x4(a[c + 8], a[c + 12], 0x88);
        __m512 low_ = _mm512_shuffle_f32x4(a[c], a[c + 4], 0xdd), high_ = _mm512_shuffle_f32x4(a[c + 8], a[c + 12], 0xdd);
        t[c] = _mm512_shuffle_f32x4(low, high, 0x88), t[c + 8] = _mm512_shuffle_f32x4(low, high, 0xdd);
        t[c + 4] = _mm512_shuffle_f32x4(low_, high_, 0x88), t[c + 12] = _mm512_shuffle_f32x4(low_, high_, 0xdd);
    }
#pragma GCC unroll 16
    for (int c = 0; c < 16; c++)
        if (c < n) _mm512_storeu_ps(to + c * ROWS_AT_ONCE, t[c]);
#else
    for (int c = 0; c < n; c++)
        for (int r = 0; r < LANES; r++) to[c * ROWS_AT_ONCE + r] = from[r * width + c];
#endif
}

/* Read the rows from `first` on; those that the block has too many of are zero. */
static void read_rows(const Lloyd *task, Block *b, int64_t first, int64_t count) {
    const int64_t D = task->features, width = b->width;
    const vec scale = set((float)task->scale);
    for (int64_t r = 0; r < count; r++) {
        const float *x = task->x + (first + r) * D;
        for (int64_t f = 0; f < D; f += LANES) {
            const int n = lanes(D - f);
            store(b->flat + r * width + f, (load(x + f, n) - load(task->reference + f, n)) * scale, n);
        }
    }
    for (int64_t r = count; r < ROWS_AT_ONCE; r++) memset(b->flat + r * width, 0, D * sizeof(float));
    for (int64_t f = 0; f < D; f += LANES)
        for (int v = 0; v < DEEP; v++)
            turn(b->flat + v * LANES * width + f, width, lanes(D - f), b->turned + f * ROWS_AT_ONCE + v * LANES);
}

/* The nearest of one restart's clusters to each row: that of the greatest score, the first of equal ones. */
static void find_nearest(const Lloyd *task, Block *b, int64_t restart) {
    const int64_t D = task->features, count = tiles(task);
    const float *c = b->packed + restart * count * TILE * (D + 1);
    vec best[DEEP];
    ivec index[DEEP];
    for (int v = 0; v < DEEP; v++) best[v] = set(-INFINITY), index[v] = (ivec){};
    for (int64_t tile = 0; tile < count; tile++, c += TILE) {
        vec s[TILE][DEEP];
#pragma GCC unroll 8
        for (int k = 0; k < TILE; k++)
#pragma GCC unroll 2
            for (int v = 0; v < DEEP; v++) s[k][v] = (vec){};
        const float *x = b->turned;
        for (int64_t f = 0; f < D; f++, x += ROWS_AT_ONCE, c += TILE) {
            vec rows[DEEP];
#pragma GCC unroll 2
            for (int v = 0; v < DEEP; v++) rows[v] = *(const vec *)(x + v * LANES);
#pragma GCC unroll 8
            for (int k = 0; k < TILE; k++) {
                vec factor = set(c[k]);
#pragma GCC unroll 2
                for (int v = 0; v < DEEP; v++) s[k][v] += factor * rows[v];
            }
        }
#pragma GCC unroll 8
        for (int k = 0; k < TILE; k++)
#pragma GCC unroll 2
            for (int v = 0; v < DEEP; v++) {
                vec score = s[k][v] + c[k];
                ivec greater = score > best[v];
                best[v] = choose(greater, score, best[v]);
                index[v] = (greater & ((ivec){} + (int32_t)(tile * TILE + k))) | (~greater & index[v]);
            }
    }
    for (int v = 0; v < DEEP; v++)
        memcpy(b->score + v * LANES, &best[v], sizeof(vec)), memcpy(b->best + v * LANES, &index[v], sizeof(ivec));
}

/* The sums of one restart's clusters, and with the first restart those of squares; `weighted` is a constant here. */
INLINE void add_rows(int weighted, const Lloyd *task, Block *b, int64_t restart, int64_t first, int64_t count) {
    double *sums = b->sums + restart * task->clusters * b->width, gain = 0.0;
    eight norm = {};
    for (int64_t r = 0; r < count; r++) {
        const float *row = b->flat + r * b->width;
        double *to = sums + b->best[r] * b->width;
        const double weight = weighted ? task->weight[first + r] : 1.0;
        for (int64_t f = 0; f < b->width; f += 8) {
            eight value = widen(row + f), share = value * weight;
            *(eight *)(to + f) += share;
            norm += share * value;
        }
        gain += weight * (double)b->score[r];
    }
    task->gain[restart] += gain;
    if (!restart) b->norm += norm;
}

/* moments, gain and norm: what a pass adds up. */
KERNEL(lloyd_statistics, Lloyd) {
    const int64_t D = task->features, clusters = task->restarts * task->clusters;
    Block b;
    int failed = open_block(task, &b);
    for (int64_t first = 0; first < task->rows && !failed; first += ROWS_AT_ONCE) {
        const int64_t count = least(ROWS_AT_ONCE, task->rows - first);
        read_rows(task, &b, first, count);
        for (int64_t restart = 0; restart < task->restarts; restart++) {
            find_nearest(task, &b, restart);
            if (task->weight) add_rows(1, task, &b, restart, first, count);
            else add_rows(0, task, &b, restart, first, count);
        }
    }
    for (int64_t k = 0; k < clusters && !failed; k++) {
        memcpy(task->moments + k * (D + 1), b.sums + k * b.width, (D + 1) * sizeof(double));
        if (k < task->clusters) *task->norm -= b.sums[k * b.width + D]; /* less the ones */
    }
    for (int lane = 0; lane < 8 && !failed; lane++) *task->norm += b.norm[lane];
    close_block(&b);
    return failed;
}

static double square(const float *row, int64_t count) {
    eight sums = {};
    double sum = 0.0;
    int64_t f = 0;
    for (; f + 8 <= count; f += 8) {
        eight value = widen(row + f);
        sums += value * value;
    }
    for (; f < count; f++) sum += (double)row[f] * (double)row[f];
    for (int lane = 0; lane < 8; lane++) sum += sums[lane];
    return sum;
}

/* label and distance of each row. */
KERNEL(lloyd_assign, Lloyd) {
    Block b;
    int failed = open_block(task, &b);
    for (int64_t first = 0; first < task->rows && !failed; first += ROWS_AT_ONCE) {
        const int64_t count = least(ROWS_AT_ONCE, task->rows - first);
        double squares[ROWS_AT_ONCE];
        read_rows(task, &b, first, count);
        for (int64_t r = 0; r < count; r++) squares[r] = square(b.flat + r * b.width, task->features);
        for (int64_t restart = 0; restart < task->restarts; restart++) {
            find_nearest(task, &b, restart);
            for (int64_t r = 0; r < count; r++) {
                const int64_t at = restart * task->rows + first + r;
                const double distance = squares[r] - 2.0 * (double)b.score[r];
                task->label[at] = b.best[r];
                task->distance[at] =
                    distance <= task->rounding * (squares[r] + task->longest[restart]) ? 0.0 : distance;
            }
        }
    }
    close_block(&b);
    return failed;
}
