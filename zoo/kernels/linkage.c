/* Clusters merged by their distances: the closest pair over and over (centroid, median), or along a chain of nearest
   neighbours (complete, average, weighted, Ward).

   A union's distances are written to its own row and not to its column, of which each number lies in a line of the
   cache of its own: the other rows take them over when they are asked for. And a point's row is measured when it is
   first asked for, in the room of one that is dead: most of the matrix is never touched.

   Letters as in the Python modules: N clusters at the start, each at a position of its own; F features. */

#include "kernel.h"
#include <math.h>

enum { COMPLETE, AVERAGE, WEIGHTED, WARD, SINGLE, CENTROID, MEDIAN }; /* distances are squared from Ward on */

typedef struct {
    int64_t clusters, features, method; /* N, F; one of the above; no features: distances are given */
    const double *x;                    /* (N, F), points */
    double *matrix;                     /* (N, N): distances, symmetric, or room for them; consumed */
    double *sizes;                      /* (N), of the clusters; consumed */
    int64_t *pairs;                     /* (N - 1, 2): positions merged, of which the first goes on with the union */
    double *heights;                    /* (N - 1): their distance */
} Merging;

typedef double eight __attribute__((vector_size(64), aligned(8), may_alias));
typedef int64_t eight_integers __attribute__((vector_size(64), aligned(8), may_alias));

/* The clusters that live, at ascending positions among those that have merged into others. */
typedef struct {
    const Merging *task;
    int64_t features;     /* F, or none where all distances are known */
    int64_t width, count; /* W, the positions; how many of them live */
    double *sizes;        /* (W) */
    double *penalty;      /* (W): 0, or infinity for the dead */
    double *passing;      /* (W): a row that is not kept */
    double *turned;       /* (W / 8, F, 8): the points that were at these positions at first */
    double **rows;        /* (W): their distances; 0 for a point that was not asked for them */
    double **spare;       /* the rooms of the dead, `spares` of them */
    double *room;         /* what of the matrix was never used */
    int64_t *unions;      /* their positions in the order in which they were made, `made` of them, some dead by now */
    int64_t *latest;      /* (W): which of them is the cluster at a position, where one is */
    int64_t *taken;       /* (W): how many of them each row has taken over */
    int64_t *names;       /* (W): the position that each had at first */
    int64_t *places;      /* (W): after `shrink` where each of the living has gone */
    int64_t *kept;        /* (W): and the other way round */
    int64_t *before;      /* how many of the unions before one were kept */
    int64_t spares, made, uneven; /* and whether sizes at first are not all one, which Ward's distances tell */
} Living;

enum {
    BLOCK = 32, /* points that lie side by side */
    FEW = 256,  /* clusters whose matrix stays in the cache */
    WIDE = 64,  /* features that are read too often, row by row */
};

static void turn(Living *l) {
    const int64_t F = l->features, W = l->width;
    for (int64_t i = 0; i < (W + BLOCK - 1) / BLOCK * BLOCK && F; i++)
        for (int64_t f = 0; f < F; f++)
            l->turned[(i / 8 * F + f) * 8 + i % 8] = i < W ? l->task->x[l->names[i] * F + f] : 0.0;
}

/* Squared distances of points to some of a block of others, from differences, so that equal ones are equal. */
INLINE void differ(int points, const double *point, const double *turned, int64_t F, int64_t others, double *to, int64_t stride) {
    const int eights = points == 1 ? BLOCK / 8 : 1; /* as many sums at once as there are registers for */
    for (int e = 0; e < others; e += 8 * eights) {
        eight sums[8] = {};
        for (int64_t f = 0; f < F; f++)
#pragma GCC unroll 8
            for (int s = 0; s < points * eights; s++) {
                const eight away = *(const eight *)(turned + (e + s % eights * 8) * F + 8 * f) - point[s / eights * F + f];
                sums[s] += away * away;
            }
#pragma GCC unroll 8
        for (int s = 0; s < points * eights; s++) *(eight *)(to + s / eights * stride + e + s % eights * 8) = sums[s];
    }
}

/* Distances of the points at some positions from k on to those from `first` on, and to a few before. */
static void measure(const Living *l, int points, int64_t k, int64_t first, double *to, int64_t stride) {
    const int64_t F = l->features, W = l->width, begin = first / BLOCK * BLOCK;
    const double *point = l->task->x + l->names[k] * F, *sizes = l->sizes;
    for (int64_t at = begin; at < W; at += BLOCK) {
        const int64_t others = least(BLOCK, W - at), whole = others == BLOCK;
        double last[8 * BLOCK], *block = whole ? to + at : last;
        if (points == 1) differ(1, point, l->turned + at * F, F, BLOCK, block, BLOCK);
        else differ(8, point, l->turned + at * F, F, others, block, whole ? stride : BLOCK);
        for (int p = 0; p < points && !whole; p++) memcpy(to + p * stride + at, last + p * BLOCK, others * sizeof *to);
    }
    for (int p = 0; p < points; p++, k++, to += stride) {
        for (int64_t i = begin; i < W && l->task->method < WARD; i++) to[i] = sqrt(to[i]);
        for (int64_t i = begin; i < W && l->uneven; i++) to[i] *= 2 * sizes[k] * sizes[i] / (sizes[k] + sizes[i]);
        to[k] = INFINITY;
    }
}

static int begin(Living *l, const Merging *task) {
    const int64_t N = task->clusters, F = task->features, padded = (N + BLOCK - 1) / BLOCK * BLOCK;
    *l = (Living){.task = task, .features = F, .width = N, .count = N, .sizes = task->sizes, .room = task->matrix};
    l->penalty = aligned_alloc(64, padded * (F + 2) * sizeof *l->penalty);
    l->rows = malloc(2 * N * sizeof *l->rows), l->unions = malloc(7 * N * sizeof *l->unions);
    if (!l->penalty || !l->rows || !l->unions) return 1;
    l->passing = l->penalty + padded, l->turned = l->passing + padded, l->spare = l->rows + N;
    l->latest = l->unions + N, l->taken = l->latest + N, l->names = l->taken + N, l->places = l->names + N;
    l->kept = l->places + N, l->before = l->kept + N;
    for (int64_t k = 0; k < N; k++) {
        l->penalty[k] = 0.0, l->latest[k] = l->taken[k] = 0, l->names[k] = k, l->rows[k] = 0;
        l->uneven |= task->method == WARD && task->sizes[k] != 1.0;
    }
    turn(l);
    if (F && F <= (N <= FEW ? WIDE / 4 : WIDE)) return 0;
    for (int64_t k = 0, points; k < N; k += points) {
        points = k + 8 <= N ? 8 : 1;
        if (F) measure(l, points, k, 0, task->matrix + k * N, N);
        for (int64_t i = k; i < k + points; i++) l->rows[i] = task->matrix + i * N;
    }
    l->features = 0;
    return 0;
}

static void end(Living *l) { free(l->penalty), free(l->rows), free(l->unions); }

/* The distances of a cluster to the others; those to the dead are any numbers. */
static double *row(Living *l, int64_t k) {
    if (!l->rows[k]) {
        if (l->spares) l->rows[k] = l->spare[--l->spares];
        else l->rows[k] = l->room, l->room += l->task->clusters;
        measure(l, 1, k, 0, l->rows[k], 0);
    }
    double *to = l->rows[k];
    for (int64_t t = l->taken[k]; t < l->made; t++) to[l->unions[t]] = l->rows[l->unions[t]][k];
    l->taken[k] = l->made;
    return to;
}

/* Whether so many are dead that the rows are better without them; then they are, each in its own room. */
static int shrink(Living *l) {
    const int64_t W = l->width, n = l->count;
    if (n > W * 7 / 10 || W < 32) return 0;
    int64_t count = 0, made = 0;
    for (int64_t k = 0; k < W; k++)
        if (l->penalty[k] == 0.0) l->places[k] = count, l->kept[count++] = k;
    for (int64_t t = 0; t < l->made; t++) {
        const int64_t k = l->unions[t];
        l->before[t] = made;
        if (l->penalty[k] == 0.0 && l->latest[k] == t) l->unions[made++] = l->places[k];
    }
    l->before[l->made] = made;
    for (int64_t i = 0; i < n; i++) { /* what is read lies ahead of what is written */
        const int64_t from = l->kept[i];
        double *numbers = l->rows[i] = l->rows[from];
        for (int64_t k = 0; k < n && numbers; k++) numbers[k] = numbers[l->kept[k]];
        l->names[i] = l->names[from], l->sizes[i] = l->sizes[from], l->penalty[i] = 0.0;
        l->latest[i] = l->before[l->latest[from]], l->taken[i] = l->before[l->taken[from]];
    }
    l->width = n, l->made = made;
    turn(l);
    return 1;
}

/* The place of the least of `count` numbers with their penalties, the first of equal ones; -1 where all are infinite. */
static int64_t find_least(const double *numbers, const double *penalty, int64_t count, double *value) {
    eight least = (eight){} + INFINITY;
    eight_integers place = {}, here = {0, 1, 2, 3, 4, 5, 6, 7};
    int64_t found = -1, k = 0;
    for (; k + 8 <= count; k += 8, here += 8) {
        const eight number = *(const eight *)(numbers + k) + *(const eight *)(penalty + k);
        const eight_integers lesser = number < least;
        least = (eight)((lesser & (eight_integers)number) | (~lesser & (eight_integers)least));
        place = (lesser & here) | (~lesser & place);
    }
    *value = INFINITY;
    for (int lane = 0; lane < 8; lane++)
        if (least[lane] < *value || (least[lane] == *value && found >= 0 && place[lane] < found))
            *value = least[lane], found = place[lane];
    for (; k < count; k++)
        if (numbers[k] + penalty[k] < *value) *value = numbers[k] + penalty[k], found = k;
    return found;
}

/* The first of the living, but for one. */
static int64_t first_living(const Living *l, int64_t other) {
    int64_t k = 0;
    while (l->penalty[k] != 0.0 || k == other) k++;
    return k;
}

/* The distances of a union to the others, in the place of those of its first part; `method` is a constant here. */
INLINE void join(int method, Living *l, int64_t left, int64_t right, double gap) {
    double *restrict a = row(l, left);
    const double *restrict b = row(l, right), *restrict sizes = l->sizes;
    const double i = sizes[left], j = sizes[right], both = i + j, share = i / both, rest = j / both;
    const double less = i * j / (both * both) * gap, quarter = 0.25 * gap;
    for (int64_t k = 0; k < l->width; k++) {
        if (method == COMPLETE) a[k] = a[k] > b[k] ? a[k] : b[k];
        else if (method == AVERAGE) a[k] = a[k] * share + b[k] * rest;
        else if (method == WEIGHTED) a[k] = (a[k] + b[k]) * 0.5;
        else if (method == CENTROID) a[k] = a[k] * share + b[k] * rest - less;
        else if (method == MEDIAN) a[k] = a[k] * 0.5 + b[k] * 0.5 - quarter;
        else a[k] = ((i + sizes[k]) * a[k] + (j + sizes[k]) * b[k] - sizes[k] * gap) / (both + sizes[k]);
    }
    a[left] = INFINITY;
}

/* Write a merge down; the union goes on at `left`. */
static void merge(Living *l, int64_t left, int64_t right, double gap) {
    const Merging *task = l->task;
    const int64_t m = task->clusters - l->count--;
    task->pairs[2 * m] = l->names[left], task->pairs[2 * m + 1] = l->names[right], task->heights[m] = gap;
    switch (task->method) {
    case COMPLETE: join(COMPLETE, l, left, right, gap); break;
    case AVERAGE: join(AVERAGE, l, left, right, gap); break;
    case WEIGHTED: join(WEIGHTED, l, left, right, gap); break;
    case WARD: join(WARD, l, left, right, gap); break;
    case CENTROID: join(CENTROID, l, left, right, gap); break;
    default: join(MEDIAN, l, left, right, gap);
    }
    l->sizes[left] += l->sizes[right], l->penalty[right] = INFINITY;
    l->latest[left] = l->made, l->unions[l->made++] = left, l->taken[left] = l->made;
    l->spare[l->spares++] = l->rows[right];
}

KERNEL(merge_chain, Merging) {
    const int64_t N = task->clusters;
    Living l;
    int64_t *chain = malloc(N * sizeof *chain); /* each the nearest neighbour of the one before */
    double *gaps = malloc(N * sizeof *gaps);    /* from that one */
    const int failed = begin(&l, task) || !chain || !gaps;
    for (int64_t length = 0; l.count > 1 && !failed;) {
        if (!length) chain[0] = first_living(&l, -1), gaps[0] = INFINITY, length = 1;
        const int64_t tip = chain[length - 1];
        double gap;
        const int64_t near = find_least(row(&l, tip), l.penalty, l.width, &gap);
        if (near >= 0 && gap < gaps[length - 1]) {
            chain[length] = near, gaps[length++] = gap;
            continue;
        }
        if (length == 1) chain[1] = first_living(&l, tip), gaps[1] = INFINITY, length = 2; /* all are infinitely far */
        const int64_t other = chain[length - 2], left = tip > other ? tip : other, right = tip > other ? other : tip;
        gap = gaps[length - 1], length -= 2;
        merge(&l, left, right, gap);
        if (shrink(&l))
            for (int64_t k = 0; k < length; k++) chain[k] = l.places[chain[k]];
    }
    end(&l), free(chain), free(gaps);
    return failed;
}

/* The nearest cluster behind position i, the first of equal ones. Of a point its row is not kept for that. */
static int64_t search(Living *l, int64_t i, double *gap) {
    const int64_t after = i + 1;
    double *numbers = l->passing;
    if (l->rows[i] || l->task->clusters <= FEW) numbers = row(l, i);
    else {
        measure(l, 1, i, after, numbers, 0);
        for (int64_t t = 0; t < l->made; t++)
            if (l->unions[t] > i) numbers[l->unions[t]] = l->rows[l->unions[t]][i];
    }
    const int64_t found = find_least(numbers + after, l->penalty + after, l->width - after, gap);
    return found < 0 ? found : found + after;
}

KERNEL(merge_closest, Merging) {
    const int64_t N = task->clusters;
    Living l;
    double *gap = malloc(N * sizeof *gap);         /* of each living position to the nearest behind it, or a lower bound */
    int64_t *near = malloc(N * sizeof *near);      /* which that is; -1 where it has to be looked for */
    const int failed = begin(&l, task) || !gap || !near;
    for (int64_t i = 0; i < N && !failed; i++) near[i] = search(&l, i, gap + i);
    while (l.count > 1 && !failed) {
        int64_t left;
        double height;
        for (;;) { /* the least bound that is a distance */
            left = find_least(gap, l.penalty, l.width, &height);
            if (left < 0) left = first_living(&l, -1); /* all are infinitely far */
            if (near[left] >= 0) break;
            near[left] = search(&l, left, gap + left);
            if (near[left] < 0) near[left] = first_living(&l, left);
        }
        const int64_t right = near[left];
        merge(&l, left, right, row(&l, left)[right]);
        const double *a = row(&l, left);
        for (int64_t k = 0; k < left; k++) {
            const int closer = a[k] <= gap[k], lost = near[k] == left || near[k] == right;
            gap[k] = closer ? a[k] : gap[k], near[k] = closer ? left : lost ? -1 : near[k];
        }
        for (int64_t k = left + 1; k < right; k++) near[k] = near[k] == right ? -1 : near[k];
        near[left] = search(&l, left, gap + left);
        if (shrink(&l))
            for (int64_t k = 0; k < l.width; k++) {
                const int64_t before = near[l.kept[k]];
                gap[k] = gap[l.kept[k]], near[k] = before < 0 ? -1 : l.places[before];
            }
    }
    end(&l), free(gap), free(near);
    return failed;
}

/* -- single linkage ------------------------------------------------------------------------------------------------ */

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

/* -- the whole of it for few points --------------------------------------------------------------------------------- */

typedef struct {
    int64_t points, features, method; /* N, F; one of the above */
    const double *x;                  /* (N, F) */
    double *matrix;                   /* (N, N): room */
    double *hierarchy;                /* (N - 1, 4): SciPy's matrix */
    int64_t *strange;                 /* (): out, whether some points are equal, not finite, or of squares that are not */
} Hierarchy;

/* Numbers in ascending order, and of equal ones the first first. */
static int64_t *ordered(const double *numbers, int64_t count, int ascending) {
    int64_t *order = malloc((2 * count + 1) * sizeof *order), *other = order + count;
    for (int64_t i = 0; i < count && order; i++) order[i] = i;
    for (int64_t width = 1; width < count && order && ascending; width *= 2) { /* runs are joined two by two */
        for (int64_t begin = 0; begin < count; begin += 2 * width) {
            const int64_t middle = least(begin + width, count), end = least(begin + 2 * width, count);
            for (int64_t i = begin, j = middle, k = begin; k < end; k++)
                other[k] = i < middle && (j == end || numbers[order[i]] <= numbers[order[j]]) ? order[i++] : order[j++];
        }
        memcpy(order, other, count * sizeof *order);
    }
    return order;
}

KERNEL(hierarchy, Hierarchy) {
    const int64_t N = task->points, F = task->features, M = N - 1, method = task->method;
    const int euclidean = method >= WARD, closest = method >= CENTROID;
    double largest = 0.0, wrong = 0.0;
    for (int64_t i = 0; i < N * F; i++) {
        const double size = fabs(task->x[i]);
        largest = size > largest ? size : largest, wrong += size * 0.0;
    }
    *task->strange = 1;
    if (wrong != 0.0 || !(1e-100 < largest && largest < 1e100)) return 0;
    int64_t *pairs = malloc(2 * N * sizeof *pairs), *sorted = malloc(2 * N * sizeof *sorted), *order = 0;
    double *heights = malloc(N * sizeof *heights), *found = malloc(N * sizeof *found), *sizes = malloc(N * sizeof *sizes);
    int failed = !pairs || !sorted || !heights || !found || !sizes, equal = 0;
    if (!failed && method == SINGLE) failed = span(&(Span){N, F, task->x, pairs, heights});
    else if (!failed) {
        const Merging merging = {N, F, method, task->x, task->matrix, sizes, pairs, heights};
        for (int64_t i = 0; i < N; i++) sizes[i] = 1.0;
        failed = closest ? merge_closest(&merging) : merge_chain(&merging);
    }
    for (int64_t m = 0; m < M && !failed; m++) equal |= heights[m] == 0.0; /* which are also centres that coincide */
    if (!failed && !equal) {
        for (int64_t m = 0; m < M && euclidean; m++) heights[m] = heights[m] > 0 ? sqrt(heights[m]) : 0.0;
        failed = !(order = ordered(heights, M, !closest));
        for (int64_t m = 0; m < M && !failed; m++) {
            found[m] = heights[order[m]];
            sorted[2 * m] = pairs[2 * order[m]], sorted[2 * m + 1] = pairs[2 * order[m] + 1];
        }
        failed = failed || label_merges(&(Label){M, sorted, found, task->hierarchy});
        *task->strange = 0;
    }
    free(pairs), free(sorted), free(order), free(heights), free(found), free(sizes);
    return failed;
}
