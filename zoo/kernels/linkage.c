/* Clusters merged on a stored matrix of distances: the closest pair over and over (centroid, median), or along a chain of
   nearest neighbours (complete, average, weighted, Ward).

   Letters as in the Python modules: N clusters at the start, each at a position of its own; a union takes the lower. */

#include "kernel.h"
#include <math.h>

typedef struct {
    int64_t clusters, median; /* N; whether the linkage is median, or else centroid */
    double *matrix;           /* (N, N), symmetric; consumed */
    double *sizes;            /* (N), of the clusters; consumed */
    int64_t *pairs;           /* (N - 1, 2): positions merged, the lower first */
    double *heights;          /* (N - 1): their squared distance */
} Closest;

/* The nearest cluster behind position i, the first of equal ones. */
static void search(const double *row, const int64_t *alive, int64_t count, int64_t after, double *gap, int64_t *near) {
    *gap = INFINITY, *near = -1;
    for (int64_t at = after; at < count; at++)
        if (row[alive[at]] < *gap) *gap = row[alive[at]], *near = alive[at];
}

enum { COMPLETE, AVERAGE, WEIGHTED, WARD };

typedef struct {
    int64_t clusters, method; /* N; one of the above */
    double *matrix;           /* (N, N), symmetric; consumed; squared for Ward */
    double *sizes;            /* (N), of the clusters; consumed */
    int64_t *pairs;           /* (N - 1, 2): positions merged, of which the first goes on with the union */
    double *heights;          /* (N - 1): their distance */
} Chain;

/* The distances of a union to the others, in the place of those of its first part; `method` is a constant here. */
INLINE void join(int method, const Chain *t, int64_t left, int64_t right, double gap, const int64_t *alive, int64_t count) {
    double *a = t->matrix + left * t->clusters;
    const double *b = t->matrix + right * t->clusters, i = t->sizes[left], j = t->sizes[right], both = i + j;
    for (int64_t at = 0; at < count; at++) {
        const int64_t k = alive[at];
        const double size = t->sizes[k];
        double distance;
        if (method == COMPLETE) distance = a[k] > b[k] ? a[k] : b[k];
        else if (method == AVERAGE) distance = a[k] * (i / both) + b[k] * (j / both);
        else if (method == WEIGHTED) distance = (a[k] + b[k]) * 0.5;
        else distance = ((i + size) * a[k] + (j + size) * b[k] - size * gap) / (both + size);
        a[k] = distance, t->matrix[k * t->clusters + left] = distance;
    }
    a[left] = INFINITY;
}

KERNEL(merge_chain, Chain) {
    const int64_t N = task->clusters;
    int64_t *alive = malloc(N * sizeof *alive); /* living positions, ascending */
    int64_t *chain = malloc(N * sizeof *chain); /* each the nearest neighbour of the one before */
    double *gaps = malloc(N * sizeof *gaps);    /* from that one */
    const int failed = !alive || !chain || !gaps;
    for (int64_t i = 0; i < N && !failed; i++) alive[i] = i;
    for (int64_t merge = 0, count = N, length = 0; merge < N - 1 && !failed;) {
        if (!length) chain[0] = alive[0], gaps[0] = INFINITY, length = 1;
        const int64_t tip = chain[length - 1];
        const double *row = task->matrix + tip * N;
        double gap = INFINITY;
        int64_t near = -1;
        for (int64_t at = 0; at < count; at++)
            if (row[alive[at]] < gap && alive[at] != tip) gap = row[alive[at]], near = alive[at];
        if (near >= 0 && gap < gaps[length - 1]) {
            chain[length] = near, gaps[length++] = gap;
            continue;
        }
        if (length == 1) { /* all are infinitely far */
            chain[1] = alive[0] == tip ? alive[1] : alive[0], gaps[1] = INFINITY, length = 2;
        }
        const int64_t other = chain[length - 2], left = tip > other ? tip : other, right = tip > other ? other : tip;
        gap = gaps[length - 1], length -= 2;
        task->pairs[2 * merge] = left, task->pairs[2 * merge + 1] = right, task->heights[merge++] = gap;
        int64_t at = 0;
        while (alive[at] != right) at++;
        memmove(alive + at, alive + at + 1, (--count - at) * sizeof *alive);
        switch (task->method) {
        case COMPLETE: join(COMPLETE, task, left, right, gap, alive, count); break;
        case AVERAGE: join(AVERAGE, task, left, right, gap, alive, count); break;
        case WEIGHTED: join(WEIGHTED, task, left, right, gap, alive, count); break;
        default: join(WARD, task, left, right, gap, alive, count);
        }
        task->sizes[left] += task->sizes[right];
    }
    free(alive), free(chain), free(gaps);
    return failed;
}

KERNEL(merge_closest, Closest) {
    const int64_t N = task->clusters;
    double *matrix = task->matrix, *sizes = task->sizes;
    double *gap = malloc(N * sizeof *gap);         /* of each living position to the nearest behind it, or a lower bound */
    int64_t *near = malloc(N * sizeof *near);      /* which that is; -1 where it has to be looked for */
    int64_t *alive = malloc(N * sizeof *alive);    /* living positions, ascending */
    const int failed = !gap || !near || !alive;
    for (int64_t i = 0; i < N && !failed; i++) alive[i] = i;
    for (int64_t i = 0; i < N && !failed; i++) search(matrix + i * N, alive, N, i + 1, gap + i, near + i);
    for (int64_t merge = 0, count = N; merge < N - 1 && !failed; merge++, count--) {
        int64_t at;
        for (;;) { /* the least bound that is a distance */
            double least_gap = INFINITY;
            at = 0;
            for (int64_t a = 0; a < count - 1; a++)
                if (gap[alive[a]] < least_gap) least_gap = gap[alive[a]], at = a;
            const int64_t i = alive[at];
            if (near[i] >= 0) break;
            search(matrix + i * N, alive, count, at + 1, gap + i, near + i);
            if (near[i] < 0) near[i] = alive[at + 1]; /* all are infinitely far */
        }
        const int64_t left = alive[at], right = near[left];
        const double height = matrix[left * N + right], i = sizes[left], j = sizes[right], both = i + j;
        const double share = task->median ? 0.5 : i / both, rest = task->median ? 0.5 : j / both;
        const double less = (task->median ? 0.25 : i * j / (both * both)) * height;
        task->pairs[2 * merge] = left, task->pairs[2 * merge + 1] = right, task->heights[merge] = height;
        sizes[left] = both;
        double *a = matrix + left * N;
        const double *b = matrix + right * N;
        int64_t kept = 0;
        for (int64_t position = 0; position < count; position++) {
            const int64_t k = alive[position];
            if (k == right) continue;
            alive[kept++] = k;
            if (k == left) continue;
            const double distance = a[k] * share + b[k] * rest - less;
            a[k] = distance, matrix[k * N + left] = distance;
            if (k < left && distance <= gap[k]) gap[k] = distance, near[k] = left;
            else if (near[k] == right || (k < left && near[k] == left)) near[k] = -1;
        }
        search(a, alive, kept, at + 1, gap + left, near + left);
    }
    free(gap), free(near), free(alive);
    return failed;
}
