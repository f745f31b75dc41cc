/* Log loss of standardized rows at given weights, with its gradient and its Hessian, block by block of rows.

   A block is standardized once and stays in the nearest cache for all three; nothing that has a number for each row is
   written outside of it. What is one number a row (logits, probabilities, losses) lies with the rows in the lanes.

   Letters as in the Python modules: N rows, F features, P columns (F, and one more for an intercept), C classes, K rows
   of weights (1, or one a class). */

#pragma once
#include "tiles.h"

#if defined(__AVX512F__)
#define ROWS 4 /* 4 x 4 sums, 4 rows and a factor fill 21 of 32 registers */
#else
#define ROWS 2 /* 2 x 4 sums, 2 rows and a factor fill 11 of 16 registers */
#endif
#define FEW 8     /* rows that are read twice from where they lie, where a block of them does not fit the nearest cache */
#define WIDE 256  /* columns from which on that is so */
#define BLOCK 32 /* rows: with 32 features a block and its weighted copy fill half of a cache of 32 KB */

typedef struct {
    int64_t rows, features, columns, outputs, classes, threads, single;
    const void *x;               /* (N, F), of float where `single`, of double else */
    const double *shift, *scale; /* (F), (F): rows are (x - shift) * scale */
    const int64_t *y;            /* (N) */
    const double *weight;        /* (N), or NULL */
    const double *class_weight;  /* (C), or NULL: what losses count times, beside that */
    double *point;               /* (K, P) */
    double *sums;                /* (2): losses, and weights of the rows that are put into another class */
    double *gradient;            /* (K, P) */
    double *hessian;             /* (K P, K P), or NULL */
} LogLoss;

/* What a thread has at hand. */
typedef struct {
    int64_t width;          /* P, up to a multiple of DEEP * LANES */
    double *flat, *scaled;  /* (BLOCK, width): rows, and weighted ones; zero from P on */
    double *point;          /* (K, width) */
    double *z, *p;          /* (K, BLOCK): logits, then weighted residuals; probabilities */
    double *gradient;       /* (K, width) */
    double *weights, *sums; /* (width): weights times scale, and sums of residuals times rows that are shifted alone */
    double *hessian;        /* (K (K + 1) / 2, width, width): pairs k >= l, of each the columns up to the diagonal */
    double losses, lost;    /* their sum, and what was rounded off it */
    double wrong;
    double weight[BLOCK], share[BLOCK]; /* of rows, and of their losses */
    int64_t y[BLOCK];
    void *memory;
} Block;

static int open_block(const LogLoss *task, Block *b) {
    const int64_t P = task->columns, K = task->outputs, width = padded(P);
    const int64_t pairs = task->hessian ? K * (K + 1) / 2 : 0, rows = BLOCK * width;
    memset(b, 0, sizeof(Block));
    b->width = width;
    const size_t count = (size_t)(rows + (pairs ? rows : 0) + (2 * K + 2) * width + 2 * K * BLOCK + pairs * width * width);
    double *room = b->memory = aligned_alloc(64, count * sizeof(double) / 64 * 64 + 64);
    if (!room) return 1;
    memset(room, 0, count * sizeof(double));
    b->flat = room, room += rows;
    b->scaled = room, room += pairs ? rows : 0;
    b->point = room, room += K * width;
    b->gradient = room, room += K * width;
    b->weights = room, room += width;
    b->sums = room, room += width;
    b->z = room, room += K * BLOCK;
    b->p = room, room += K * BLOCK;
    b->hessian = room;
    return 0;
}

/* Nothing added up, at the task's point. */
static void start_block(const LogLoss *task, Block *b) {
    const int64_t P = task->columns, K = task->outputs, pairs = task->hessian ? K * (K + 1) / 2 : 0;
    b->losses = b->lost = b->wrong = 0.0;
    memset(b->gradient, 0, K * b->width * sizeof(double));
    memset(b->hessian, 0, pairs * b->width * b->width * sizeof(double));
    for (int64_t k = 0; k < K; k++) memcpy(b->point + k * b->width, task->point + k * P, P * sizeof(double));
}

/* to = (x - shift) * scale for one row. */
static void standardize(const LogLoss *task, int64_t row, double *restrict to) {
    const int64_t F = task->features;
    const double *restrict shift = task->shift, *restrict scale = task->scale;
    if (task->single) {
        const float *restrict x = (const float *)task->x + row * F;
        for (int64_t f = 0; f < F; f++) to[f] = ((double)x[f] - shift[f]) * scale[f];
    } else {
        const double *restrict x = (const double *)task->x + row * F;
        for (int64_t f = 0; f < F; f++) to[f] = (x[f] - shift[f]) * scale[f];
    }
}

/* Read what is one number for each of some rows. */
static void read_targets(const LogLoss *task, Block *b, int64_t first, int64_t count) {
    for (int64_t r = 0; r < count; r++) {
        const int64_t y = b->y[r] = task->y[first + r];
        b->weight[r] = b->share[r] = task->weight ? task->weight[first + r] : 1.0;
        if (task->class_weight) b->share[r] *= y >= 0 && y < task->classes ? task->class_weight[y] : 0.0;
    }
}

/* Read the rows from `first` on; those that the block has too many of are zero and weigh nothing. */
static void read_rows(const LogLoss *task, Block *b, int64_t first, int64_t count) {
    const int64_t F = task->features, width = b->width;
    for (int64_t r = 0; r < count; r++) {
        double *to = b->flat + r * width;
        standardize(task, first + r, to);
        if (F < task->columns) to[F] = 1.0;
    }
    read_targets(task, b, first, count);
    for (int64_t r = count; r < BLOCK; r++) {
        memset(b->flat + r * width, 0, width * sizeof(double));
        b->weight[r] = b->share[r] = 0.0, b->y[r] = 0;
    }
}

/* z[k][r] for `classes` rows of weights, which is a constant here. */
INLINE void logits_of(int classes, Block *b, int64_t columns, int64_t k) {
    const double *w = b->point + k * b->width;
    for (int64_t r = 0; r < BLOCK; r += ROWS) {
        const double *x = b->flat + r * b->width;
        vec sum[ROWS][TILE];
#pragma GCC unroll 4
        for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 4
            for (int j = 0; j < classes; j++) sum[i][j] = (vec){};
        for (int64_t f = 0; f < columns; f += LANES) {
            vec row[ROWS];
#pragma GCC unroll 4
            for (int i = 0; i < ROWS; i++) row[i] = *(const vec *)(x + i * b->width + f);
#pragma GCC unroll 4
            for (int j = 0; j < classes; j++) {
                vec factor = *(const vec *)(w + j * b->width + f);
#pragma GCC unroll 4
                for (int i = 0; i < ROWS; i++) sum[i][j] += row[i] * factor;
            }
        }
#pragma GCC unroll 4
        for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 4
            for (int j = 0; j < classes; j++) b->z[(k + j) * BLOCK + r + i] = total(sum[i][j]);
    }
}

/* Add the block's losses, and put weighted residuals in the place of logits: one logit for two classes. */
static void lose_one(Block *b, int64_t rows) {
    vec losses = {}, wrong = {};
    for (int64_t r = 0; r < rows; r += LANES) {
        vec z = *(vec *)(b->z + r), weight = *(vec *)(b->weight + r), share = *(vec *)(b->share + r);
        ivec is_second = *(ivec *)(b->y + r) == 1, above = z > set(0.0);
        vec y = choose(is_second, set(1.0), set(0.0));
        vec e = exponential(choose(above, -z, z)), p = choose(above, set(1.0), e) / (e + 1.0);
        losses += share * (log_of_one_more(e) + (choose(above, z, set(0.0)) - y * z));
        wrong += choose(is_second ^ above, weight, set(0.0));
        *(vec *)(b->z + r) = share * (p - y);
        *(vec *)(b->p + r) = p;
    }
    b->losses = total(losses), b->wrong += total(wrong);
}

/* The same with a logit for each class. */
static void lose_many(Block *b, int64_t outputs) {
    vec losses = {}, wrong = {};
    for (int64_t r = 0; r < BLOCK; r += LANES) {
        vec greatest = *(vec *)(b->z + r), own = {}, rest = {};
        vec weight = *(vec *)(b->weight + r), share = *(vec *)(b->share + r);
        ivec best = {}, y = *(ivec *)(b->y + r);
        for (int64_t k = 1; k < outputs; k++) {
            vec z = *(vec *)(b->z + k * BLOCK + r);
            ivec greater = z > greatest;
            greatest = choose(greater, z, greatest);
            best = (greater & ((ivec){} + k)) | (~greater & best);
        }
        for (int64_t k = 0; k < outputs; k++) {
            vec z = *(vec *)(b->z + k * BLOCK + r), e = exponential(z - greatest);
            own = choose(y == k, z, own);
            rest += choose(best == k, set(0.0), e);
            *(vec *)(b->p + k * BLOCK + r) = e;
        }
        losses += share * (log_of_one_more(rest) + (greatest - own));
        wrong += choose(best != y, weight, set(0.0));
        for (int64_t k = 0; k < outputs; k++) {
            vec p = *(vec *)(b->p + k * BLOCK + r) / (rest + 1.0);
            *(vec *)(b->p + k * BLOCK + r) = p;
            *(vec *)(b->z + k * BLOCK + r) = share * (p - choose(y == k, set(1.0), set(0.0)));
        }
    }
    b->losses = total(losses), b->wrong += total(wrong);
}

/* gradient[k] += sum over r of z[k][r] flat[r], for `classes` of them. */
INLINE void add_gradient(int classes, Block *b, int64_t k) {
    for (int64_t f = 0; f < b->width; f += DEEP * LANES) {
        vec sum[TILE][DEEP];
#pragma GCC unroll 4
        for (int j = 0; j < classes; j++)
#pragma GCC unroll 2
            for (int v = 0; v < DEEP; v++) sum[j][v] = *(vec *)(b->gradient + (k + j) * b->width + f + v * LANES);
        for (int64_t r = 0; r < BLOCK; r++)
#pragma GCC unroll 2
            for (int v = 0; v < DEEP; v++) {
                vec row = *(const vec *)(b->flat + r * b->width + f + v * LANES);
#pragma GCC unroll 4
                for (int j = 0; j < classes; j++) sum[j][v] += row * set(b->z[(k + j) * BLOCK + r]);
            }
#pragma GCC unroll 4
        for (int j = 0; j < classes; j++)
#pragma GCC unroll 2
            for (int v = 0; v < DEEP; v++) *(vec *)(b->gradient + (k + j) * b->width + f + v * LANES) = sum[j][v];
    }
}

/* Add s p_k (1 - p_k) x x^T for one logit, and s p_k ([k = l] - p_l) x x^T for the pairs of classes. */
static void add_hessian(const LogLoss *task, Block *b) {
    double *hessian = b->hessian;
    for (int64_t k = 0; k < task->outputs; k++)
        for (int64_t l = 0; l <= k; l++, hessian += b->width * b->width) {
            for (int64_t r = 0; r < BLOCK; r++) {
                const double p = b->p[k * BLOCK + r], other = b->p[l * BLOCK + r];
                const vec bend = set(b->share[r] * p * ((k == l) - other));
                for (int64_t f = 0; f < b->width; f += LANES)
                    *(vec *)(b->scaled + r * b->width + f) = bend * *(const vec *)(b->flat + r * b->width + f);
            }
            add_products(b->scaled, b->flat, BLOCK, task->columns, b->width, hessian);
        }
}

/* Keep the sum of losses to the last digit (Neumaier): which of two points is the lower is read from it. */
static void add_losses(Block *b, double *sum) {
    const double before = *sum, more = b->losses;
    *sum = before + more;
    b->lost += fabs(before) >= fabs(more) ? (before - *sum) + more : (more - *sum) + before;
}

typedef float half __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* LANES numbers of a row from f on, less their means. */
INLINE vec shifted(const LogLoss *task, const int single, int64_t row, int64_t f) {
    const int64_t at = row * task->features + f;
    const vec x = single ? __builtin_convertvector(*(const half *)((const float *)task->x + at), vec)
                         : *(const vec *)((const double *)task->x + at);
    return x - *(const vec *)(task->shift + f);
}

INLINE double shifted_one(const LogLoss *task, const int single, int64_t row, int64_t f) {
    const int64_t at = row * task->features + f;
    return (single ? (double)((const float *)task->x)[at] : ((const double *)task->x)[at]) - task->shift[f];
}

/* The logits of some rows, and after `lose_one` what their residuals add to the gradient, without a copy of the rows. */
INLINE void few_logits(const LogLoss *task, const int single, Block *b, int64_t first) {
    const int64_t F = task->features, whole = F - F % LANES;
    for (int64_t start = 0; start < FEW; start += ROWS) {
        vec sum[ROWS] = {};
        for (int64_t f = 0; f < whole; f += LANES) {
            const vec w = *(const vec *)(b->weights + f);
#pragma GCC unroll 4
            for (int r = 0; r < ROWS; r++) sum[r] += shifted(task, single, first + start + r, f) * w;
        }
        for (int r = 0; r < ROWS; r++) {
            double z = total(sum[r]) + (F < task->columns ? b->point[F] : 0.0);
            for (int64_t f = whole; f < F; f++) z += shifted_one(task, single, first + start + r, f) * b->weights[f];
            b->z[start + r] = z;
        }
    }
}

/* Have the next rows come into the cache while these are worked on: short rows side by side are no stream. */
INLINE void fetch(const LogLoss *task, const int single, int64_t row, int64_t f) {
    const int64_t at = row * task->features + f;
    if (!single) __builtin_prefetch((const double *)task->x + at);
    else if (f % (2 * LANES) == 0) __builtin_prefetch((const float *)task->x + at);
}

INLINE void few_sums(const LogLoss *task, const int single, Block *b, int64_t first, int64_t next) {
    const int64_t F = task->features, whole = F - F % LANES;
    for (int64_t f = 0; f < whole; f += LANES) {
        vec sum = *(vec *)(b->sums + f);
#pragma GCC unroll 8
        for (int r = 0; r < FEW; r++) fetch(task, single, next + r, f);
#pragma GCC unroll 8
        for (int r = 0; r < FEW; r++) sum += shifted(task, single, first + r, f) * b->z[r];
        *(vec *)(b->sums + f) = sum;
    }
    for (int64_t f = whole; f < F; f++)
        for (int r = 0; r < FEW; r++) b->sums[f] += shifted_one(task, single, first + r, f) * b->z[r];
    for (int r = 0; r < FEW && F < task->columns; r++) b->gradient[F] += b->z[r];
}

/* Whether rows are read so: wide ones, for one logit and no Hessian, in units in which no product is lost. */
static int by_few(const LogLoss *task) {
    int fits = task->outputs == 1 && !task->hessian && task->features >= WIDE;
    for (int64_t f = 0; f < task->features && fits; f++)
        fits = task->scale[f] == 0.0 || (fabs(task->scale[f]) > 0x1p-400 && fabs(task->scale[f]) < 0x1p400);
    return fits;
}

/* Add rows as long as there are enough, and return where that ends. */
static int64_t add_few(const LogLoss *task, Block *b, int64_t start, int64_t end, double *losses) {
    const int64_t F = task->features;
    for (int64_t f = 0; f < F; f++) b->weights[f] = b->point[f] * task->scale[f], b->sums[f] = 0.0;
    int64_t first = start;
    for (; first + FEW <= end; first += FEW) {
        read_targets(task, b, first, FEW);
        if (task->single) few_logits(task, 1, b, first);
        else few_logits(task, 0, b, first);
        lose_one(b, FEW);
        add_losses(b, losses);
        const int64_t next = least(first + FEW, end - FEW);
        if (task->single) few_sums(task, 1, b, first, next);
        else few_sums(task, 0, b, first, next);
    }
    for (int64_t f = 0; f < F; f++) b->gradient[f] += b->sums[f] * task->scale[f];
    return first;
}

static void add_rows(const LogLoss *task, Block *b, int64_t start, int64_t end) {
    const int64_t K = task->outputs;
    double losses = 0.0;
    if (by_few(task)) start = add_few(task, b, start, end, &losses);
    for (int64_t first = start; first < end; first += BLOCK) {
        int64_t k = 0;
        read_rows(task, b, first, least(BLOCK, end - first));
        for (; k + TILE <= K; k += TILE) logits_of(TILE, b, task->columns, k);
        for (; k < K; k++) logits_of(1, b, task->columns, k);
        if (K == 1) lose_one(b, BLOCK);
        else lose_many(b, K);
        add_losses(b, &losses);
        for (k = 0; k + TILE <= K; k += TILE) add_gradient(TILE, b, k);
        for (; k < K; k++) add_gradient(1, b, k);
        if (task->hessian) add_hessian(task, b);
    }
    b->losses = losses + b->lost;
}

/* Add what a thread found to what is returned; of the Hessian what lies up to the diagonal. */
static void gather(const LogLoss *task, const Block *b) {
    const int64_t K = task->outputs, P = task->columns, width = b->width, size = K * P;
    const double *hessian = b->hessian;
    task->sums[0] += b->losses, task->sums[1] += b->wrong;
    for (int64_t k = 0; k < K; k++)
        for (int64_t f = 0; f < P; f++) task->gradient[k * P + f] += b->gradient[k * width + f];
    for (int64_t k = 0; k < K && task->hessian; k++)
        for (int64_t l = 0; l <= k; l++, hessian += width * width)
            for (int64_t i = 0; i < P; i++)
                for (int64_t j = 0; j <= i; j++)
                    task->hessian[(k * P + i) * size + l * P + j] += hessian[i * width + j];
}

/* The other halves of each block and of the whole are mirror images. */
static void mirror(const LogLoss *task) {
    const int64_t K = task->outputs, P = task->columns, size = K * P;
    for (int64_t k = 0; k < K; k++)
        for (int64_t l = 0; l <= k; l++)
            for (int64_t i = 0; i < P; i++)
                for (int64_t j = 0; j < i; j++) {
                    const double value = task->hessian[(k * P + i) * size + l * P + j];
                    task->hessian[(k * P + j) * size + l * P + i] = value;
                }
    for (int64_t i = 0; i < size; i++)
        for (int64_t j = 0; j < i; j++) task->hessian[j * size + i] = task->hessian[i * size + j];
}

static void close_blocks(const LogLoss *task, Block *blocks) {
    for (int64_t t = 0; t < task->threads && blocks; t++) free(blocks[t].memory);
    free(blocks);
}

/* What the threads have at hand, or NULL where memory ran out. */
static Block *open_blocks(const LogLoss *task) {
    Block *blocks = calloc((size_t)task->threads, sizeof(Block));
    int failed = !blocks;
    for (int64_t t = 0; t < task->threads && !failed; t++) failed = open_block(task, blocks + t);
    if (!failed) return blocks;
    close_blocks(task, blocks);
    return NULL;
}

/* sums, gradient and hessian at the task's point. */
static void add_up(const LogLoss *task, Block *blocks) {
    const int64_t threads = task->threads, size = task->outputs * task->columns;
    memset(task->sums, 0, 2 * sizeof(double)), memset(task->gradient, 0, size * sizeof(double));
    if (task->hessian) memset(task->hessian, 0, size * size * sizeof(double));
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)
    for (int64_t t = 0; t < threads; t++) {
        start_block(task, blocks + t);
        add_rows(task, blocks + t, task->rows * t / threads, task->rows * (t + 1) / threads);
    }
    for (int64_t t = 0; t < threads; t++) gather(task, blocks + t);
    if (task->hessian) mirror(task);
}
