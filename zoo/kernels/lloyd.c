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

#define ON_A_CENTROID 0x1p-88 /* share of the squares up to which a squared distance is 0: a centroid is a rounded mean */
#define CLOSE 64              /* rounding of scores, in eps of the greatest square */
#define NEAR 0x1p20
#define WIDENED 4096          /* rows that are made double at a time */

/* Eight doubles at a time. */
typedef double eight __attribute__((vector_size(64), aligned(8), may_alias));
typedef int64_t eight_integers __attribute__((vector_size(64), aligned(8), may_alias));

typedef struct {
    Rows rows;
    const void *centroids; /* (R*K, D + 1), as rows are after that; the last column -|c|^2 / 2 */
    double *moments;       /* (R, K, D + 1): sums of rows, and of weights; all written */
    double *gain, *norm;   /* (R,), (): sums of scores and of squares */
    const double *points;  /* (R, K, D): centroids where the rows are; NULL where no distances are asked for */
    double *distance;      /* (R, N), squared */
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

/* Turn sums (R, K, D + 1) into means, and those into the centroids, unless they are no numbers; `shift` (R) is how far
   each restart's last step went. An empty cluster keeps its centroid, and its restart does not come to rest. */
static int move_centroids(const Iterate *all, double *sums, double *shift, double limit, int64_t *open) {
    const int64_t D = all->rows.features, K = all->rows.clusters, R = all->rows.restarts;
    for (int64_t r = 0; r < R; r++) {
        const double *c = all->centroids + r * K * D;
        if (all->at_rest[r]) continue;
        shift[r] = 0.0;
        for (int64_t k = 0; k < K; k++) {
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

/* -- whether a precision suffices ------------------------------------------------------------------------------------- */

/* The squared distance of a centroid from the place that rows are measured from. */
static double square_from(const double *centroid, const double *reference, int64_t D) {
    double square = 0.0;
    for (int64_t f = 0; f < D; f++) square += (centroid[f] - reference[f]) * (centroid[f] - reference[f]);
    return square;
}

/* The greatest one of centroids (R K, D). */
static double reach_of(const Iterate *all, const double *reference) {
    const int64_t D = all->rows.features, clusters = all->rows.restarts * all->rows.clusters;
    double most = 0.0;
    for (int64_t k = 0; k < clusters; k++) most = fmax(most, square_from(all->centroids + k * D, reference, D));
    return most;
}

typedef struct {
    double norm; /* its distance from the reference point */
    const double *centroid;
} Placed;

static int by_norm(const void *a, const void *b) {
    const double one = ((const Placed *)a)->norm, other = ((const Placed *)b)->norm;
    return (one > other) - (one < other);
}

/* Whether two of a restart's centroids are so near to each other that rounding of scores, by eps of the reach, would mix
   up their rows. Two that are near to each other are about as far from the reference point, so that few are compared. */
static int too_close(const Iterate *all, const double *reference, double reach, double eps) {
    const int64_t D = all->rows.features, K = all->rows.clusters;
    const double least_apart = CLOSE * eps * reach, window = sqrt(least_apart) + 0x1p-40 * sqrt(reach);
    Placed *placed = room(K * sizeof *placed);
    int close = !placed;
    for (int64_t r = 0; r < all->rows.restarts && !close; r++) {
        for (int64_t k = 0; k < K; k++) {
            const double *centroid = all->centroids + (r * K + k) * D;
            placed[k] = (Placed){sqrt(square_from(centroid, reference, D)), centroid};
        }
        qsort(placed, (size_t)K, sizeof *placed, by_norm);
        for (int64_t a = 0; a < K && !close; a++)
            for (int64_t b = a + 1; b < K && placed[b].norm - placed[a].norm <= window && !close; b++) {
                const double *one = placed[a].centroid, *other = placed[b].centroid;
                double square = 0.0;
                for (int64_t first = 0; first < D && square < least_apart; first += 8)
                    for (int64_t f = first; f < least(first + 8, D); f++) square += (one[f] - other[f]) * (one[f] - other[f]);
                close = 0 < square && square < least_apart;
            }
    }
    free(placed);
    return close;
}

/* The same in double precision, where the centroids are now. */
static int too_close_in_double(const Iterate *all) {
    double *reference = room(all->rows.features * sizeof *reference);
    if (!reference) return 1;
    find_reference(all->centroids, all->rows.restarts * all->rows.clusters, all->rows.features, reference);
    const double reach = reach_of(all, reference);
    const int close = reach < INFINITY && too_close(all, reference, reach, 0x1p-52);
    free(reference);
    return close;
}

/* Whether rows that lie so near to their centroids would be rounded by more than a thousandth of that. */
static int too_near(const Iterate *all, double reach) {
    const int64_t number = all->rows.restarts * all->rows.number;
    double sum = 0.0;
    for (int64_t i = 0; i < number; i++) sum += all->distance[i];
    return sum < NEAR * all->eps * all->eps * reach * (double)number;
}

/* The same question about some of the rows, (count, D), which are written to `rows` in double. */
static Iterate widened(const Iterate *task, double *rows, int64_t first, int64_t count) {
    const int64_t D = task->rows.features;
    Iterate all = *task;
    for (int64_t r = 0; r < count; r++) {
        const float *x = (const float *)task->rows.x + (task->rows.index ? task->rows.index[first + r] : first + r) * D;
        for (int64_t f = 0; f < D; f++) rows[r * D + f] = (double)x[f];
    }
    all.rows.x = rows, all.rows.index = 0, all.rows.number = count, all.rows.single = 0, all.eps = 0x1p-52;
    return all;
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

/* moments, gain and norm: what a pass adds up; and distances. */
KERNEL(lloyd_statistics, Lloyd) { return task->rows.single ? add_up_single(task) : add_up_double(task); }

/* In double precision, some rows at a time. */
static int assign_widened(const Iterate *task) {
    const int64_t N = task->rows.number, R = task->rows.restarts, D = task->rows.features, size = least(N, WIDENED);
    const int64_t bytes = R * task->rows.clusters * D * (int64_t)sizeof(double);
    double *rows = room(size * D * sizeof *rows), *distance = room(R * size * sizeof *distance), *copy = room(bytes), extent = 0.0;
    int64_t *nearest = room(R * size * sizeof *nearest);
    int failed = !rows || !distance || !nearest || !copy;
    for (int64_t first = 0; first < N && !failed && !strange(extent); first += size) {
        const int64_t count = least(size, N - first);
        Iterate all = widened(task, rows, first, count);
        memcpy(copy, task->centroids, (size_t)bytes); /* which are written to */
        all.nearest = nearest, all.distance = distance, all.centroids = copy;
        failed = assign_double(&all);
        extent = *task->extent > extent || isnan(*task->extent) ? *task->extent : extent;
        for (int64_t r = 0; r < R; r++) {
            memcpy(task->nearest + r * N + first, nearest + r * count, (size_t)count * sizeof *nearest);
            memcpy(task->distance + r * N + first, distance + r * count, (size_t)count * sizeof *distance);
        }
    }
    *task->extent = extent;
    free(rows), free(distance), free(nearest), free(copy);
    return failed;
}

/* In double precision; -1 iterations where even that does not suffice. */
static int iterate_in_double(const Iterate *task) {
    int close = too_close_in_double(task);
    const int failed = !close && iterate_double(task);
    close = close || (!failed && !strange(*task->extent) && too_close_in_double(task));
    if (close) *task->num_iter = -1;
    return failed;
}

/* The same of rows in single precision; `copy` is room for the centroids. */
static int iterate_widened(const Iterate *task, double *copy) {
    double *rows = room(task->rows.number * task->rows.features * sizeof *rows);
    if (!rows) return 1;
    const Iterate all = widened(task, rows, 0, task->rows.number);
    const int failed = iterate_in_double(&all);
    free(rows);
    if (failed || strange(*task->extent) || *task->num_iter < 0) return failed;
    Iterate ended = *task;
    ended.centroids = memcpy(copy, task->centroids, task->rows.restarts * task->rows.clusters * task->rows.features * sizeof *copy);
    return lloyd_assign(&ended); /* the labels that these centroids give to such rows at any other time */
}

/* In single precision, unless centroids are, or become, too near to each other or to their rows for it. */
static int iterate_checked(const Iterate *task) {
    const int64_t D = task->rows.features, R = task->rows.restarts, K = task->rows.clusters;
    double *start = room(R * K * D * sizeof *start), *reference = room(D * sizeof *reference);
    int failed = !start || !reference, suffices = 0;
    if (!failed) {
        find_reference(task->centroids, R * K, D, reference);
        memcpy(start, task->centroids, R * K * D * sizeof *start);
        suffices = !too_close(task, reference, reach_of(task, reference), task->eps);
    }
    if (!failed && suffices) {
        failed = iterate_single(task);
        const double reach = reach_of(task, reference);
        int64_t open = 0;
        for (int64_t r = 0; r < R; r++) open += !task->at_rest[r];
        const int labelled = !open || *task->num_iter == task->max_iter;
        suffices = strange(*task->extent) || !(reach < INFINITY) || !(too_close(task, reference, reach, task->eps) || (labelled && too_near(task, reach)));
    }
    if (!failed && !suffices) {
        memcpy(task->centroids, start, R * K * D * sizeof *start);
        memset(task->at_rest, 0, (size_t)R), memset(task->own_iter, 0, R * sizeof *task->own_iter);
        memset(task->empty, 0, (size_t)(R * K));
        failed = iterate_widened(task, start);
    }
    free(start), free(reference);
    return failed;
}

/* Whether rounding of scores would mix up the rows of two centroids, for those that iterate pass by pass. */
KERNEL(lloyd_too_close, Iterate) {
    const double *reference = task->rows.reference;
    *task->extent = too_close(task, reference, reach_of(task, reference), task->eps);
    return 0;
}

/* The nearest centroid of each row, and the distance to it: by scores, or by differences where those lose too much. */
KERNEL(lloyd_assign, Iterate) {
    const int64_t D = task->rows.features;
    if (!task->rows.single) return too_close_in_double(task) ? assign_apart_double(task) : assign_double(task);
    double *reference = room(D * sizeof *reference);
    if (!reference) return 1;
    find_reference(task->centroids, task->rows.restarts * task->rows.clusters, D, reference);
    const int widen = too_close(task, reference, reach_of(task, reference), task->eps);
    free(reference);
    if (!widen) return assign_single(task);
    return too_close_in_double(task) ? assign_apart_single(task) : assign_widened(task);
}

/* Until the centroids are at rest, for `max_iter` iterations, or until one that leaves a cluster empty. */
KERNEL(lloyd_iterate, Iterate) { return task->rows.single ? iterate_checked(task) : iterate_in_double(task); }
