/* Mean and scatter matrix of narrow rows, or the squares of each column, in one pass.

   Rows are measured from a point near their mean, judged by some of them. The sums about it then have n (m - p)(m - p)^T
   too much, less than what is to be found; where the some misled, the mean that was found is the point of a second pass
   (Chan, Golub & LeVeque 1983). Sums are of double, whatever the rows are. */

#include "tiles.h"

#define NUMBERS 2048 /* of a block: half of a cache of 32 KB */
#define SOME 64      /* rows that the point is judged by */

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

/* What a thread adds up of rows less the point. */
typedef struct {
    int64_t width, height; /* D, padded; rows of a block */
    double count;
    double *total, *sums;  /* (width); (width, width), or (width) of squares */
    double *rows, *roots;  /* (height, width), zero from D on; (height), of their weights */
    double *memory;
} Share;

static int open_share(const Moments *task, Share *s) {
    const int64_t D = task->features + task->targets, width = D <= LANES ? LANES : padded(D);
    const int64_t height = NUMBERS / width < 8 ? 8 : NUMBERS / width, sums = task->scatter ? width * width : width;
    const int64_t numbers = width + sums + height * width + height;
    *s = (Share){.width = width, .height = height};
    s->memory = aligned_alloc(64, ((size_t)numbers * sizeof(double) + 63) / 64 * 64);
    if (!s->memory) return 1;
    memset(s->memory, 0, (size_t)numbers * sizeof(double));
    s->total = s->memory, s->sums = s->total + width, s->rows = s->sums + sums, s->roots = s->rows + height * width;
    return 0;
}

/* out = a row less a point, both up to a whole number of vectors, and zero there. */
INLINE void read_row(const Moments *task, const int single, int64_t row, const double *point, double *out) {
    const int64_t F = task->features, K = task->targets, left = (task->rows - row) * F;
    const float *x = (const float *)task->x + row * F;
    const double *wide = (const double *)task->x + row * F;
    for (int64_t f = 0; f < F; f += LANES) {
        if (f + LANES > left) { /* the end of all rows */
            for (; f < F; f++) out[f] = (single ? (double)x[f] : wide[f]) - point[f];
            break;
        }
        const vec found = (single ? widened(x + f) : *(const vec *)(wide + f)) - *(const vec *)(point + f);
        *(vec *)(out + f) = f + LANES <= F ? found : choose(first_lanes(F - f), found, set(0.0));
    }
    for (int64_t k = 0; k < K; k++) out[F + k] = task->y[row * K + k] - point[F + k];
}

/* The same with the root of its weight as a factor; return the weight. */
INLINE double read_weighted(const Moments *task, const int single, int64_t row, const double *point, int64_t width,
                            double *out, double *root) {
    const double weight = task->weight[row];
    *root = sqrt(weight);
    if (weight > 0.0) {
        read_row(task, single, row, point, out);
        for (int64_t f = 0; f < width; f += LANES) *(vec *)(out + f) *= set(*root);
    } else {
        memset(out, 0, (size_t)width * sizeof(double)); /* it may hold anything */
    }
    return weight;
}

/* point (width) = the mean of some rows, measured from the first of them; `row` (width) is room for one. */
static void find_point(const Moments *task, int64_t width, double *point, double *row) {
    const int64_t step = task->rows / SOME + 1;
    double mass = 0.0, *sum = row + width;
    memset(point, 0, (size_t)width * sizeof(double));
    memset(sum, 0, (size_t)width * sizeof(double));
    for (int64_t r = 0; r < task->rows; r += step) {
        const double weight = task->weight ? task->weight[r] : 1.0;
        if (!(weight > 0.0)) continue;
        if (task->single) read_row(task, 1, r, point, row);
        else read_row(task, 0, r, point, row);
        if (mass > 0.0)
            for (int64_t f = 0; f < width; f += LANES) *(vec *)(sum + f) += *(vec *)(row + f) * set(weight);
        else memcpy(point, row, (size_t)width * sizeof(double));
        mass += weight;
    }
    for (int64_t f = 0; f < width && mass > 0.0; f++) point[f] += sum[f] / mass;
}

static void add_total(Share *s, int64_t rows) {
    for (int64_t f = 0; f < s->width; f += LANES) {
        vec sum[4] = {*(vec *)(s->total + f)};
        int64_t r = 0;
        for (; r + 4 <= rows; r += 4)
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) sum[i] += *(vec *)(s->rows + (r + i) * s->width + f) * set(s->roots[r + i]);
        for (; r < rows; r++) sum[0] += *(vec *)(s->rows + r * s->width + f) * set(s->roots[r]);
        *(vec *)(s->total + f) = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    }
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

INLINE void add_rows(const Moments *task, const int single, Share *s, const double *point, int64_t start, int64_t end) {
    memset(s->total, 0, (size_t)(s->rows - s->total) * sizeof(double)); /* and the sums, of a first pass */
    s->count = 0.0;
    for (int64_t r = 0; r < s->height; r++) s->roots[r] = 1.0;
    for (int64_t first = start; first < end; first += s->height) {
        const int64_t rows = least(s->height, end - first);
        for (int64_t r = 0; r < rows; r++) {
            double *row = s->rows + r * s->width;
            if (task->weight) s->count += read_weighted(task, single, first + r, point, s->width, row, s->roots + r);
            else read_row(task, single, first + r, point, row), s->count += 1.0;
        }
        add_total(s, rows);
        if (task->scatter) add_products(s->rows, s->rows, rows, task->features + task->targets, s->width, s->sums);
        else add_squares(s, rows);
    }
}

/* What threads found about the point, put together; 1 where the point was so far from the mean that digits are lost. */
static int put_together(const Moments *task, const Share *shares) {
    const int64_t D = task->features + task->targets, width = shares->width;
    double count = 0.0, *mean = task->mean;
    memset(mean, 0, (size_t)D * sizeof(double));
    for (const Share *s = shares; s < shares + task->threads; s++) {
        count += s->count;
        for (int64_t i = 0; i < D; i++) mean[i] += s->total[i];
    }
    for (int64_t i = 0; i < D; i++) mean[i] = count > 0.0 ? mean[i] / count : 0.0;
    int far = 0;
    for (int64_t i = 0; i < D; i++)
        for (int64_t j = task->scatter ? 0 : i; j <= i; j++) {
            const int64_t place = task->scatter ? i * width + j : i;
            const double surplus = count * mean[i] * mean[j];
            double sum = -surplus;
            for (const Share *s = shares; s < shares + task->threads; s++) sum += s->sums[place];
            if (i == j) far |= surplus > sum, sum = sum < 0.0 ? 0.0 : sum;
            if (task->scatter) task->scatter[i * D + j] = task->scatter[j * D + i] = sum;
            else task->squares[i] = sum;
        }
    *task->count = count;
    return far;
}

KERNEL(moments, Moments) {
    const int64_t threads = task->threads, D = task->features + task->targets;
    Share *shares = calloc((size_t)threads, sizeof(Share));
    int failed = !shares;
    for (int64_t t = 0; t < threads && !failed; t++) failed = open_share(task, shares + t);
    const int64_t width = failed ? 0 : shares->width;
    double *point = calloc((size_t)(3 * width + 1), sizeof(double));
    failed |= !point;
    if (!failed) find_point(task, width, point, point + width);
    for (int pass = 0; pass < 2 && !failed; pass++) {
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)
        for (int64_t t = 0; t < threads; t++) {
            const int64_t start = task->rows * t / threads, end = task->rows * (t + 1) / threads;
            if (task->single) add_rows(task, 1, shares + t, point, start, end);
            else add_rows(task, 0, shares + t, point, start, end);
        }
        const int far = put_together(task, shares);
        for (int64_t i = 0; i < D && far && !pass; i++) point[i] += task->mean[i];
        if (!far) break;
    }
    for (int64_t i = 0; i < D && !failed; i++) task->mean[i] += point[i] - task->at[i];
    for (int64_t t = 0; t < threads && shares; t++) free(shares[t].memory);
    free(point);
    free(shares);
    return failed;
}
