/* Lloyd's algorithm over rows in single or in double precision: what a pass adds up, labels, and all iterations.

   An iteration moves only those rows from sum to sum that have another nearest centroid than before.

   Letters as in the Python modules: N rows, D features, R restarts, K clusters. */

#include "lloyd.h"
#include <math.h>
#if defined(__AVX__)
#include <immintrin.h>
#endif

#define DEEP 2   /* vectors of rows in a block */
#define WIDE 128 /* features that are worked on at a time, so that what a block holds of them stays in the nearest cache */
#if defined(__AVX512F__)
#define VECTOR 64
#define TILE 8 /* 8 x 2 sums, 2 rows and a factor fill 19 of 32 registers */
#else
#define VECTOR 32
#define TILE 4 /* 4 x 2 sums, 2 rows and a factor fill 11 of 16 registers */
#endif

/* Eight doubles at a time. */
typedef double eight __attribute__((vector_size(64), aligned(8), may_alias));
typedef int64_t eight_integers __attribute__((vector_size(64), aligned(8), may_alias));

typedef struct {
    Rows rows;
    double rounding;       /* share of the squares up to which a distance is 0 */
    const void *centroids; /* (R*K, D + 1), as rows are after that; the last column -|c|^2 / 2 */
    double *moments;       /* (R, K, D + 1): sums of rows, and of weights; all written */
    double *gain, *norm;   /* (R,), (): sums of scores and of squares */
    const double *longest; /* (R,): the greatest |c|^2 */
    int64_t *label;        /* (R, N) */
    double *distance;      /* (R, N), squared; NULL where they are not asked for */
} Lloyd;

static void *room(int64_t bytes) { return aligned_alloc(64, ((size_t)bytes / 64 + 1) * 64); }

/* -- the place that rows are measured from -------------------------------------------------------------------------- */

/* The mean of points (N, D) on a grid about as coarse as they are spread, so that whole numbers keep few digits. */
static void find_reference(const double *points, int64_t number, int64_t D, double *reference) {
    double spread = 0.0;
    int exponent;
    memset(reference, 0, D * sizeof *reference);
    for (int64_t k = 0; k < number; k++)
        for (int64_t f = 0; f < D; f++) reference[f] += points[k * D + f];
    for (int64_t f = 0; f < D; f++) reference[f] /= (double)number;
    for (int64_t k = 0; k < number; k++)
        for (int64_t f = 0; f < D; f++) {
            const double away = fabs(points[k * D + f] - reference[f]);
            spread = away > spread ? away : spread;
        }
    frexp(spread, &exponent);
    const double grid = spread > 0 && spread < INFINITY ? ldexp(1.0, exponent - 1) : 1.0;
    for (int64_t f = 0; f < D; f++) reference[f] = rint(reference[f] / grid) * grid;
}

/* The power of two that brings numbers of that size to about 1; 1 where they are not far away. */
static double unit_scale(double size) {
    int exponent;
    if (!(size < INFINITY) || size == 0 || (0.25 < size && size < 0x1p30)) return 1.0;
    frexp(size, &exponent);
    return ldexp(1.0, -exponent);
}

/* Whether there are so few clusters that a row is better multiplied by one after the other than by a tile of them. */
static int few(const Rows *task) { return task->clusters <= TILE / 2 && task->features >= 16; }

static int64_t tiles(const Rows *task) { return (task->clusters + TILE - 1) / TILE; }

/* Of the rows, averaged over the features; from the sums of the first restart's clusters, (K, D + 1), and of squares. */
static double mean_variance(const Rows *task, const double *sums, double norm) {
    const int64_t D = task->features;
    double weight = 0.0, squares = 0.0;
    for (int64_t k = 0; k < task->clusters; k++) weight += sums[k * (D + 1) + D];
    for (int64_t f = 0; f < D; f++) {
        double sum = 0.0;
        for (int64_t k = 0; k < task->clusters; k++) sum += sums[k * (D + 1) + f];
        squares += sum / weight * (sum / weight);
    }
    const double variance = (norm / weight - squares) / (double)D;
    return variance > 0 ? variance : 0.0;
}

/* Turn sums (R, K, D + 1) into means, and those into the centroids, unless they are no numbers; `shift` is room (R).
   An empty cluster keeps its centroid, and its restart does not come to rest. */
static int move_centroids(const Iterate *all, double *sums, double *shift, double limit, int64_t *open) {
    const int64_t D = all->rows.features, K = all->rows.clusters, R = all->rows.restarts;
    for (int64_t r = 0; r < R; r++) {
        const double *c = all->centroids + r * K * D;
        shift[r] = 0.0;
        for (int64_t k = 0; k < K && !all->at_rest[r]; k++) {
            double *mean = sums + (r * K + k) * (D + 1);
            for (int64_t f = 0; f < D; f++) {
                mean[f] = all->empty[r * K + k] ? c[k * D + f] : mean[f] / mean[D];
                shift[r] += (mean[f] - c[k * D + f]) * (mean[f] - c[k * D + f]);
            }
        }
        if (!(shift[r] < INFINITY)) return 0;
    }
    for (int64_t r = 0; r < R; r++) {
        double *c = all->centroids + r * K * D, local = 0.0, whole = 0.0;
        int64_t empty = 0;
        if (all->at_rest[r]) continue;
        for (int64_t k = 0; k < K; k++)
            for (int64_t f = 0; f < D; f++) {
                const double mean = sums[(r * K + k) * (D + 1) + f];
                const void *origin = all->rows.reference;
                const double from = all->rows.single ? (double)((const float *)origin)[f] : ((const double *)origin)[f];
                const double there = mean + from * all->rows.scale;
                local += mean * mean, whole += there * there;
                c[k * D + f] = mean;
            }
        const double rounding = 8 * (all->eps * sqrt(local) + 0x1p-52 * sqrt(whole));
        all->own_iter[r]++;
        for (int64_t k = 0; k < K; k++) empty += all->empty[r * K + k];
        all->at_rest[r] = !empty && (shift[r] <= rounding * rounding || shift[r] <= limit);
        *open -= all->at_rest[r];
    }
    return 1;
}

#define REAL float
#define INTEGER int32_t
#define IS_FLOAT 1
#define NAME(x) x##_single
#include "lloyd_pass.h"
#undef REAL
#undef INTEGER
#undef IS_FLOAT
#undef NAME

#define REAL double
#define INTEGER int64_t
#define IS_FLOAT 0
#define NAME(x) x##_double
#include "lloyd_pass.h"

/* moments, gain and norm: what a pass adds up. */
KERNEL(lloyd_statistics, Lloyd) { return task->rows.single ? add_up_single(task) : add_up_double(task); }

/* The nearest centroid of each row, and the distance to it. */
KERNEL(lloyd_assign, Iterate) { return task->rows.single ? assign_single(task) : assign_double(task); }

/* Until the centroids are at rest, for `max_iter` iterations, or until one that leaves a cluster empty. */
KERNEL(lloyd_iterate, Iterate) { return task->rows.single ? iterate_single(task) : iterate_double(task); }
