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

/* -- single linkage ------------------------------------------------------------------------------------------------ */

typedef double eight __attribute__((vector_size(64), aligned(8), may_alias));
typedef int64_t eight_integers __attribute__((vector_size(64), aligned(8), may_alias));

typedef struct {
    int64_t points, features; /* N, F; no features: distances are given */
    const double *x;          /* (N, F), or distances (N, N) */
    int64_t *pairs;           /* (N - 1, 2): the point that was reached last, and the one reached next */
    double *heights;          /* (N - 1): the distance of the latter to what was reached, squared where there are features */
} Span;

/* What is at hand: the points not yet reached, in no order, eight of them side by side. */
typedef struct {
    int64_t *names;
    double *gaps;   /* to what was reached */
    double *turned; /* (blocks, F, 8) */
    double *from;   /* (F): the point reached last */
} Unreached;

/* Squared distances of the last point to eight others. */
INLINE eight squares(const double *from, const double *turned, int64_t F) {
    eight even = {}, odd = {};
    int64_t f = 0;
    for (; f + 2 <= F; f += 2) {
        const eight a = from[f] - *(const eight *)(turned + 8 * f), b = from[f + 1] - *(const eight *)(turned + 8 * f + 8);
        even += a * a, odd += b * b;
    }
    if (f < F) {
        const eight a = from[f] - *(const eight *)(turned + 8 * f);
        even += a * a;
    }
    return even + odd;
}

/* Let the points have their distance to the last one, where it is the lesser; return the least of all. */
static double reach(const Span *t, const Unreached *u, int64_t last, int64_t count) {
    const int64_t F = t->features;
    eight least = (eight){} + INFINITY;
    for (int64_t at = 0; at < count; at += 8) {
        eight gap = *(eight *)(u->gaps + at), found = (eight){} + INFINITY;
        if (F) found = squares(u->from, u->turned + at * F, F);
        else
            for (int64_t i = at; i < count && i < at + 8; i++) found[i - at] = t->x[last * t->points + u->names[i]];
        const eight_integers nearer = found < gap;
        gap = (eight)((nearer & (eight_integers)found) | (~nearer & (eight_integers)gap));
        for (int64_t i = count; i < at + 8; i++) gap[i - at] = INFINITY; /* behind the last */
        *(eight *)(u->gaps + at) = gap;
        const eight_integers lesser = gap < least;
        least = (eight)((lesser & (eight_integers)gap) | (~lesser & (eight_integers)least));
    }
    double value = least[0];
    for (int lane = 1; lane < 8; lane++) value = least[lane] < value ? least[lane] : value;
    return value;
}

/* The next point of Prim's tree, over and over: of equally near ones the first. */
KERNEL(span, Span) {
    const int64_t N = task->points, F = task->features, blocks = (N + 7) / 8;
    Unreached u = {
        .names = malloc(blocks * 8 * sizeof *u.names), .gaps = aligned_alloc(64, (blocks + 1) * 64),
        .turned = aligned_alloc(64, (blocks * F + 1) * 64), .from = malloc((F + 1) * sizeof *u.from),
    };
    const int failed = !u.names || !u.gaps || !u.turned || !u.from;
    for (int64_t i = 0; i < blocks * 8 && !failed; i++) {
        u.names[i] = i + 1, u.gaps[i] = INFINITY; /* all but the first point */
        for (int64_t f = 0; f < F; f++) u.turned[(i / 8 * F + f) * 8 + i % 8] = i + 1 < N ? task->x[(i + 1) * F + f] : 0.0;
    }
    int64_t last = 0, count = N - 1;
    for (int64_t step = 0; step < N - 1 && !failed; step++) {
        if (F) memcpy(u.from, task->x + last * F, F * sizeof *u.from);
        const double gap = reach(task, &u, last, count);
        int64_t next = -1;
        for (int64_t i = 0; i < count; i++)
            if (u.gaps[i] == gap && (next < 0 || u.names[i] < u.names[next])) next = i;
        if (next < 0) next = 0; /* distances that are no numbers */
        task->pairs[2 * step] = last, task->pairs[2 * step + 1] = last = u.names[next], task->heights[step] = gap;
        const int64_t end = --count; /* the last takes its place */
        u.names[next] = u.names[end], u.gaps[next] = u.gaps[end], u.gaps[end] = INFINITY;
        for (int64_t f = 0; f < F; f++)
            u.turned[(next / 8 * F + f) * 8 + next % 8] = u.turned[(end / 8 * F + f) * 8 + end % 8];
    }
    free(u.names), free(u.gaps), free(u.turned), free(u.from);
    return failed;
}

/* -- names of clusters --------------------------------------------------------------------------------------------- */

typedef struct {
    int64_t merges;        /* N - 1 */
    const int64_t *pairs;  /* (N - 1, 2): a point of each of the two clusters */
    const double *heights; /* (N - 1) */
    double *hierarchy;     /* (N - 1, 4): SciPy's matrix */
} Label;

static int64_t root(int64_t *parent, int64_t node) {
    while (parent[node] != node) parent[node] = parent[parent[node]], node = parent[node];
    return node;
}

KERNEL(label_merges, Label) {
    const int64_t M = task->merges, nodes = 2 * M + 1;
    int64_t *parent = malloc(nodes * sizeof *parent), *size = malloc(nodes * sizeof *size);
    const int failed = !parent || !size;
    for (int64_t i = 0; i < nodes && !failed; i++) parent[i] = i, size[i] = 1;
    for (int64_t m = 0; m < M && !failed; m++) {
        const int64_t a = root(parent, task->pairs[2 * m]), b = root(parent, task->pairs[2 * m + 1]), node = M + 1 + m;
        double *row = task->hierarchy + 4 * m;
        parent[a] = parent[b] = node, size[node] = size[a] + size[b];
        row[0] = (double)(a < b ? a : b), row[1] = (double)(a < b ? b : a);
        row[2] = task->heights[m], row[3] = (double)size[node];
    }
    free(parent), free(size);
    return failed;
}
