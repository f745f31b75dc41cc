/* The forces between the points of a t-SNE map in single precision: all pairs in one sweep, a vector of points at a time,
   and the pull along the pairs that are near.

   Letters as in the Python modules: N points, E dimensions of the map (1 to 3), M near pairs. Each point's sums are its
   own, so that they depend on neither the order nor the number of threads. */

#include "vectors.h"

typedef struct {
    int64_t points, dimensions, threads;
    const float *y;       /* (E, N): the map, a coordinate after the other */
    const float *matrix;  /* (N, N): P, or NULL */
    float *pull;          /* (N, E): sum of p_ij w_ij (y_i - y_j), where there is a matrix */
    float *push;          /* (N, E): sum of w_ij^2 (y_i - y_j) */
    float *weight;        /* (N): sum of w_ij over the others, j != i */
} Sweep;

typedef struct {
    int64_t points, dimensions, threads;
    const float *y;         /* (N, E) */
    const int32_t *pointer; /* (N + 1): where the entries of each row begin */
    const int32_t *column;  /* (2 M) */
    const float *near;      /* (2 M): p_ij */
    float *pull;            /* (N, E) */
} Pull;

INLINE float total(vec v) {
    float sum = 0.0f;
    for (int lane = 0; lane < LANES; lane++) sum += v[lane];
    return sum;
}

#define SPAN 1024 /* points whose sums are taken before they are added to those before: rounding stays small */

/* The sums of one point; E and `pulled` are constants here. */
INLINE void sweep_point(int E, int pulled, const Sweep *t, int64_t i) {
    const int64_t N = t->points;
    double push[3] = {0}, pull[3] = {0}, weight = 0.0;
    vec at[3];
    for (int e = 0; e < E; e++) at[e] = set(t->y[e * N + i]);
    for (int64_t first = 0; first < N; first += SPAN) {
        const int64_t end = least(first + SPAN, N);
        vec pushed[3] = {{0}}, drawn[3] = {{0}}, sum = {};
        for (int64_t j = first; j < end; j += LANES) {
            const int n = lanes(end - j);
            vec apart[3], square = set(1.0f);
            for (int e = 0; e < E; e++) {
                apart[e] = at[e] - load(t->y + e * N + j, n);
                square += apart[e] * apart[e];
            }
            vec w = 1.0f / square;
            if (n < LANES) { /* no points there */
                vec there = {};
                for (int lane = 0; lane < n; lane++) there[lane] = 1.0f;
                w *= there;
            }
            sum += w;
            if (pulled) {
                vec p = load(t->matrix + i * N + j, n) * w;
                for (int e = 0; e < E; e++) drawn[e] += p * apart[e];
            }
            w *= w;
            for (int e = 0; e < E; e++) pushed[e] += w * apart[e];
        }
        weight += (double)total(sum);
        for (int e = 0; e < E; e++) push[e] += (double)total(pushed[e]);
        for (int e = 0; e < E && pulled; e++) pull[e] += (double)total(drawn[e]);
    }
    t->weight[i] = (float)(weight - 1.0); /* less its own */
    for (int e = 0; e < E; e++) t->push[i * E + e] = (float)push[e];
    for (int e = 0; e < E && pulled; e++) t->pull[i * E + e] = (float)pull[e];
}

#define EACH_POINT(call)                                                                                        \
    _Pragma("omp parallel for num_threads(task->threads) schedule(static, 1) if (task->threads > 1)")           \
    for (int64_t part = 0; part < task->threads; part++)                                                        \
        for (int64_t i = part * task->points / task->threads; i < (part + 1) * task->points / task->threads; i++) call

KERNEL(tsne_sweep, Sweep) {
    const int pulled = task->matrix != NULL;
    switch (2 * task->dimensions + pulled) {
    case 2: EACH_POINT(sweep_point(1, 0, task, i)); break;
    case 3: EACH_POINT(sweep_point(1, 1, task, i)); break;
    case 4: EACH_POINT(sweep_point(2, 0, task, i)); break;
    case 5: EACH_POINT(sweep_point(2, 1, task, i)); break;
    case 6: EACH_POINT(sweep_point(3, 0, task, i)); break;
    default: EACH_POINT(sweep_point(3, 1, task, i)); break;
    }
    return 0;
}

/* The pull on one point; E is a constant here. */
INLINE void pull_point(int E, const Pull *t, int64_t i) {
    vec pull[3] = {{0}}, at[3];
    for (int e = 0; e < E; e++) at[e] = set(t->y[i * E + e]);
    for (int64_t k = t->pointer[i]; k < t->pointer[i + 1]; k += LANES) {
        const int n = lanes(t->pointer[i + 1] - k);
        float others[3][LANES] = {{0}};
        for (int lane = 0; lane < n; lane++)
            for (int e = 0; e < E; e++) others[e][lane] = t->y[(int64_t)t->column[k + lane] * E + e];
        vec apart[3], square = set(1.0f);
        for (int e = 0; e < E; e++) {
            apart[e] = at[e] - *(const vec *)others[e];
            square += apart[e] * apart[e];
        }
        vec p = load(t->near + k, n) / square; /* zero where there is no entry */
        for (int e = 0; e < E; e++) pull[e] += p * apart[e];
    }
    for (int e = 0; e < E; e++) t->pull[i * E + e] = total(pull[e]);
}

KERNEL(tsne_pull, Pull) {
    switch (task->dimensions) {
    case 1: EACH_POINT(pull_point(1, task, i)); break;
    case 2: EACH_POINT(pull_point(2, task, i)); break;
    default: EACH_POINT(pull_point(3, task, i)); break;
    }
    return 0;
}
