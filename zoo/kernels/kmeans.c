/* k-means on few rows in double precision, where the cost of a call for each operation is most of it: the draws of greedy
   k-means++ and Lloyd's iterations, from start to end.

   Letters as in the Python modules: N rows, D features, R restarts, K clusters, L candidates. */

#include "kernel.h"
#include <math.h>

#if defined(__clang__)
#pragma clang fp contract(off)
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off") /* on whole numbers and ties all variants agree */
#endif

typedef double eight __attribute__((vector_size(64), aligned(8), may_alias));

typedef struct {
    int64_t rows, features, restarts, clusters;
    const double *x;      /* (N, D) */
    const double *weight; /* (N), or NULL */
    /* of the draws: */
    int64_t candidates;     /* L, at most 64 */
    double rounding;        /* share of squares below which a distance is 0 */
    const double *norm;     /* (N), squares of the rows */
    const int64_t *content; /* (N), hashes of the rows */
    const int64_t *offset;  /* (K, R), of the counter */
    int64_t *chosen;        /* (R, K), rows; out */
    /* of the iterations: */
    int64_t max_iter;
    double limit, eps;        /* squared movement at rest; rounding of a number */
    const double *reference;  /* (D) */
    double *centroids;        /* (R, K, D); in and out */
    int64_t *own_iter;        /* (R); out, zeros before */
    uint8_t *at_rest;         /* (R); out, zeros before */
    int64_t *num_iter;        /* (); out */
} KMeans;

INLINE int64_t blocks_of(int64_t columns) { return (columns + 7) / 8; }

static double *room(int64_t count) { return aligned_alloc(64, ((size_t)count * sizeof(double) / 64 + 1) * 64); }

/* Points (C, D) with their columns in lanes, to[block][feature][8]; missing ones are zero. */
static void turn(const double *points, int64_t count, int64_t D, double *to) {
    for (int64_t first = 0; first < count; first += 8)
        for (int64_t f = 0; f < D; f++)
            for (int64_t c = first; c < first + 8; c++) *to++ = c < count ? points[c * D + f] : 0.0;
}

/* Products of a row with eight points. */
INLINE eight products(const double *row, const double *turned, int64_t D) {
    eight even = {}, odd = {};
    int64_t f = 0;
    for (; f + 2 <= D; f += 2) {
        even += row[f] * *(const eight *)(turned + 8 * f);
        odd += row[f + 1] * *(const eight *)(turned + 8 * f + 8);
    }
    if (f < D) even += row[f] * *(const eight *)(turned + 8 * f);
    return even + odd;
}

/* -- greedy k-means++ ---------------------------------------------------------------------------------------------- */

static const uint64_t GAMMA = 0x9E3779B97F4A7C15u;

/* 1 / -log u of a content, as `draw_scores` has it. */
INLINE double draw_score(int64_t counter) {
    uint64_t z = (uint64_t)counter * GAMMA + GAMMA;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    return 1.0 / -log(((double)(z >> 12) + 0.5) * 0x1p-52);
}

/* The different rows of greatest score, the greatest first; how many there are. */
static int64_t take_sample(const KMeans *t, int64_t offset, const double *near, int64_t size, int64_t *rows) {
    double best[64];
    int64_t number = 0;
    for (int64_t i = 0; i < t->rows; i++) {
        const double mass = t->weight ? t->weight[i] : 1.0;
        if (!(mass > 0) || (near && !(near[i] > 0))) continue;
        double score = draw_score((int64_t)((uint64_t)t->content[i] + (uint64_t)offset)) * mass;
        if (near) score *= near[i];
        if (!(score > 0) || (number == size && score <= best[size - 1])) continue;
        int64_t at = 0;
        while (at < number && t->content[rows[at]] != t->content[i]) at++;
        if (at < number && best[at] >= score) continue;
        if (at == number) at = number < size ? number++ : size - 1;
        for (; at && best[at - 1] < score; at--) best[at] = best[at - 1], rows[at] = rows[at - 1];
        best[at] = score, rows[at] = i;
    }
    return number;
}

KERNEL(kmeans_draw, KMeans) {
    const int64_t N = task->rows, D = task->features, K = task->clusters, R = task->restarts, L = task->candidates;
    const int64_t wide = blocks_of(L);
    double *near = room(N), *distance = room(N * L), *points = room(L * D), *turned = room(wide * 8 * D);
    const int failed = !near || !distance || !points || !turned;
    double largest = 0;
    for (int64_t i = 0; i < N; i++) largest = task->norm[i] > largest ? task->norm[i] : largest;
    for (int64_t r = 0; r < R && !failed; r++)
        for (int64_t step = 0; step < K; step++) {
            int64_t rows[64], *chosen = task->chosen + r * K;
            const int64_t count = take_sample(task, task->offset[step * R + r], step ? near : 0, step ? L : 1, rows);
            if (!count) { /* no row is away from those drawn: the first one again */
                chosen[step] = step ? chosen[0] : 0;
                for (int64_t i = 0; i < N && !step; i++) near[i] = 0;
                continue;
            }
            double potential[64] = {0};
            for (int64_t l = 0; l < count; l++) memcpy(points + l * D, task->x + rows[l] * D, D * sizeof *points);
            turn(points, count, D, turned);
            for (int64_t i = 0; i < N; i++)
                for (int64_t first = 0; first < count; first += 8) {
                    const eight inner = products(task->x + i * D, turned + first * D, D);
                    const double mass = task->weight ? task->weight[i] : 1.0;
                    for (int64_t l = first; l < count && l < first + 8; l++) {
                        double d = task->norm[rows[l]] - 2.0 * inner[l - first] + task->norm[i];
                        d = d <= task->rounding * (task->norm[i] + largest) ? 0.0 : d;
                        d = step && near[i] < d ? near[i] : d;
                        distance[l * N + i] = d, potential[l] += d * mass;
                    }
                }
            double least = potential[0];
            for (int64_t l = 1; l < count; l++) least = potential[l] < least ? potential[l] : least;
            int64_t best = 0;
            while (potential[best] > least * (1 + 1e-9)) best++;
            chosen[step] = rows[best];
            memcpy(near, distance + best * N, N * sizeof *near);
        }
    free(near), free(distance), free(points), free(turned);
    return failed;
}

/* -- Lloyd's iterations -------------------------------------------------------------------------------------------- */

/* The sums of a restart's clusters, (K, D + 1), of rows and of weights. */
static void add_up(const KMeans *t, const double *centroids, double *turned, double *bias, double *sums) {
    const int64_t D = t->features, K = t->clusters;
    turn(centroids, K, D, turned);
    for (int64_t k = 0; k < K; k++) {
        bias[k] = 0;
        for (int64_t f = 0; f < D; f++) bias[k] += centroids[k * D + f] * centroids[k * D + f];
        bias[k] *= -0.5;
    }
    memset(sums, 0, K * (D + 1) * sizeof *sums);
    for (int64_t i = 0; i < t->rows; i++) {
        const double *row = t->x + i * D, weight = t->weight ? t->weight[i] : 1.0;
        double top = -INFINITY;
        int64_t best = 0;
        for (int64_t first = 0; first < K; first += 8) {
            const eight score = products(row, turned + first * D, D);
            for (int64_t k = first; k < K && k < first + 8; k++) {
                const double s = score[k - first] + bias[k];
                if (s > top) top = s, best = k;
            }
        }
        double *to = sums + best * (D + 1);
        for (int64_t f = 0; f < D; f++) to[f] += weight * row[f];
        to[D] += weight;
    }
}

KERNEL(kmeans_iterate, KMeans) {
    const int64_t D = task->features, K = task->clusters, R = task->restarts, size = K * D;
    double *turned = room(blocks_of(K) * 8 * D), *bias = room(K), *sums = room(R * K * (D + 1));
    int64_t step = 0, open = R;
    const int failed = !turned || !bias || !sums;
    for (; step < task->max_iter && open && !failed; step++) {
        int empty = 0;
        for (int64_t r = 0; r < R; r++) {
            double *mine = sums + r * K * (D + 1);
            if (task->at_rest[r]) continue;
            add_up(task, task->centroids + r * size, turned, bias, mine);
            for (int64_t k = 0; k < K; k++) empty |= !(mine[k * (D + 1) + D] > 0);
        }
        double shift[R]; /* at most as many as there are centroids */
        for (int64_t r = 0; r < R && !empty; r++) { /* sums become means */
            const double *c = task->centroids + r * size;
            shift[r] = 0;
            for (int64_t k = 0; k < K && !task->at_rest[r]; k++) {
                double *mean = sums + (r * K + k) * (D + 1);
                for (int64_t f = 0; f < D; f++) {
                    mean[f] /= mean[D];
                    shift[r] += (mean[f] - c[k * D + f]) * (mean[f] - c[k * D + f]);
                }
            }
            empty = !(shift[r] < INFINITY);
        }
        if (empty) break; /* or there are rows that are no numbers */
        for (int64_t r = 0; r < R; r++) {
            double *c = task->centroids + r * size, local = 0, whole = 0;
            if (task->at_rest[r]) continue;
            for (int64_t k = 0; k < K; k++)
                for (int64_t f = 0; f < D; f++) {
                    const double mean = sums[(r * K + k) * (D + 1) + f], there = mean + task->reference[f];
                    local += mean * mean, whole += there * there;
                    c[k * D + f] = mean;
                }
            const double rounding = 8 * task->eps * (sqrt(local) + sqrt(whole));
            task->own_iter[r]++;
            task->at_rest[r] = shift[r] <= rounding * rounding || shift[r] <= task->limit;
            open -= task->at_rest[r];
        }
    }
    *task->num_iter = step;
    free(turned), free(bias), free(sums);
    return failed;
}
