/* Mean and scatter matrix of narrow rows, or the squares of each column, in one pass.

   A block of rows is centred on its own mean in the nearest cache, where it stays for the products (Chan, Golub &
   LeVeque 1983); the row that joins two means (1979) goes with it. Sums are of double, whatever the rows are. */

#include "tiles.h"

#define NUMBERS 2048 /* of a block: half of a cache of 32 KB */

typedef struct {
    int64_t rows, features, targets, single, threads;
    const void *x;        /* (N, F), of float where `single`, of double else */
    const double *y;      /* (N, K), or NULL */
    const double *weight; /* (N), or NULL */
    const double *at;     /* (D), what is subtracted first; D = F + K */
    double *count, *mean; /* (1), (D): the sum of the weights, and the mean beside `at` */
    double *scatter;      /* (D, D), or NULL */
    double *squares;      /* (D), or NULL */
} Moments;

/* What a thread adds up, about its own mean. */
typedef struct {
    int64_t width, height;          /* D, padded; rows of a block, with one more for the join */
    double count;
    double *mean, *middle, *sums;   /* (width): of all so far, of the block; (width, width), or (width) of squares */
    double *rows;                   /* (height + 1, width), zero from D on */
    double *memory;
} Share;

static int open_share(const Moments *task, Share *s) {
    const int64_t width = padded(task->features + task->targets), height = NUMBERS / width < 8 ? 8 : NUMBERS / width;
    const int64_t sums = task->scatter ? width * width : width, count = 2 * width + sums + (height + 1) * width;
    *s = (Share){.width = width, .height = height};
    s->memory = aligned_alloc(64, (size_t)count * sizeof(double));
    if (!s->memory) return 1;
    memset(s->memory, 0, (size_t)count * sizeof(double));
    s->mean = s->memory, s->middle = s->mean + width, s->sums = s->middle + width, s->rows = s->sums + sums;
    return 0;
}

/* Read rows that weigh anything, less `at`, each times the root of its weight where `roots`; return their weight. */
static double read_block(const Moments *task, Share *s, int64_t first, int64_t rows) {
    const int64_t F = task->features, K = task->targets;
    double mass = 0.0;
    for (int64_t r = 0; r < rows; r++) {
        const double weight = task->weight ? task->weight[first + r] : 1.0;
        double *to = s->rows + r * s->width;
        mass += weight;
        if (!(weight > 0.0)) { /* may hold anything */
            memset(to, 0, (size_t)(F + K) * sizeof(double));
            continue;
        }
        if (task->single) {
            const float *x = (const float *)task->x + (first + r) * F;
            for (int64_t f = 0; f < F; f++) to[f] = (double)x[f] - task->at[f];
        } else {
            const double *x = (const double *)task->x + (first + r) * F;
            for (int64_t f = 0; f < F; f++) to[f] = x[f] - task->at[f];
        }
        for (int64_t k = 0; k < K; k++) to[F + k] = task->y[(first + r) * K + k] - task->at[F + k];
    }
    return mass;
}

/* middle = the block's mean. */
static void find_middle(const Moments *task, Share *s, int64_t first, int64_t rows, double mass) {
    for (int64_t f = 0; f < s->width; f += LANES) {
        vec sum = {};
        for (int64_t r = 0; r < rows; r++) {
            const double weight = task->weight ? task->weight[first + r] : 1.0;
            sum += *(const vec *)(s->rows + r * s->width + f) * set(weight);
        }
        *(vec *)(s->middle + f) = sum / mass;
    }
}

/* Centre the block, weigh its rows, and put the row that joins its mean with that of the rows before behind them. */
static void centre(const Moments *task, Share *s, int64_t first, int64_t rows, double mass) {
    const double share = mass / (s->count + mass), root = sqrt(s->count * share);
    for (int64_t r = 0; r < rows; r++) {
        const double weight = task->weight ? task->weight[first + r] : 1.0;
        const vec by = set(sqrt(weight));
        double *row = s->rows + r * s->width;
        for (int64_t f = 0; f < s->width && weight > 0.0; f += LANES) {
            *(vec *)(row + f) = (*(vec *)(row + f) - *(vec *)(s->middle + f)) * by;
        }
    }
    for (int64_t f = 0; f < s->width; f += LANES) {
        const vec shift = *(vec *)(s->middle + f) - *(vec *)(s->mean + f);
        *(vec *)(s->rows + rows * s->width + f) = shift * root;
        *(vec *)(s->mean + f) += shift * share;
    }
    s->count += mass;
}

static void add_squares(Share *s, int64_t rows) {
    for (int64_t f = 0; f < s->width; f += LANES) {
        vec sum = *(vec *)(s->sums + f);
        for (int64_t r = 0; r < rows; r++) {
            const vec row = *(const vec *)(s->rows + r * s->width + f);
            sum += row * row;
        }
        *(vec *)(s->sums + f) = sum;
    }
}

static void add_rows(const Moments *task, Share *s, int64_t start, int64_t end) {
    for (int64_t first = start; first < end; first += s->height) {
        const int64_t rows = least(s->height, end - first);
        const double mass = read_block(task, s, first, rows);
        if (!(mass > 0.0)) continue;
        find_middle(task, s, first, rows, mass);
        centre(task, s, first, rows, mass);
        if (task->scatter) add_products(s->rows, s->rows, rows + 1, task->features + task->targets, s->width, s->sums);
        else add_squares(s, rows + 1);
    }
}

/* Add what a thread found to what is returned, with the row that joins their means. */
static void merge(const Moments *task, const Share *s) {
    const int64_t D = task->features + task->targets;
    const double both = *task->count + s->count, share = both > 0.0 ? s->count / both : 0.0;
    const double joint = *task->count * share;
    for (int64_t i = 0; i < D; i++) {
        const double shift = s->mean[i] - task->mean[i];
        for (int64_t j = 0; j <= i && task->scatter; j++)
            task->scatter[i * D + j] += s->sums[i * s->width + j] + joint * shift * (s->mean[j] - task->mean[j]);
        if (task->squares) task->squares[i] += s->sums[i] + joint * shift * shift;
    }
    for (int64_t i = 0; i < D; i++) task->mean[i] += share * (s->mean[i] - task->mean[i]);
    *task->count = both;
}

KERNEL(moments, Moments) {
    const int64_t threads = task->threads, D = task->features + task->targets;
    Share *shares = calloc((size_t)threads, sizeof(Share));
    int failed = !shares;
    for (int64_t t = 0; t < threads && !failed; t++) failed = open_share(task, shares + t);
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)
    for (int64_t t = 0; t < threads; t++)
        if (!failed) add_rows(task, shares + t, task->rows * t / threads, task->rows * (t + 1) / threads);
    for (int64_t t = 0; t < threads && !failed; t++) merge(task, shares + t);
    for (int64_t i = 0; i < D && task->scatter; i++)
        for (int64_t j = 0; j < i; j++) task->scatter[j * D + i] = task->scatter[i * D + j];
    for (int64_t t = 0; t < threads && shares; t++) free(shares[t].memory);
    free(shares);
    return failed;
}
