/* The closest pair of clusters merged over and over, on a stored matrix of squared distances: centroid and median linkage.

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
