/* Bisecting k-means over rows in memory: all splits, and the way of rows down the tree of them.

   What a split asks of its rows is asked of `lloyd.c` and `kmeans.c`, which are told which rows these are: none are
   copied.

   Letters: N rows, D features, K clusters, R restarts of a split, L candidates of k-means++. */

#include "draws.h"
#include "lloyd.h"

#if defined(__clang__)
#pragma clang fp contract(off)
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off") /* on whole numbers and ties all variants agree */
#endif

#define CANDIDATES 2
#define WORK_PER_THREAD (1 << 23) /* multiplications */

typedef double eight __attribute__((vector_size(64), aligned(8), may_alias));

typedef struct {
    Rows rows;               /* all of them; `clusters` K, `restarts` R */
    int64_t greedy;          /* 1 for k-means++, 0 for rows at random */
    int64_t by_weight;       /* whether the heaviest cluster is split, or that of the greatest inertia */
    int64_t threads, max_iter;
    double tolerance, eps;   /* as of `Iterate` */
    const int64_t *content;  /* (N), hashes of the rows */
    const int64_t *offset;   /* (K - 1, 2, R), of the counter: for a split's first draws, and for its second */
    int64_t *label;          /* (N): the clusters; in and out, as the next six */
    double *centroids;       /* (K - 1, 2, D), of the splits */
    int64_t *split_of;       /* (K - 1): the cluster that was split */
    double *leaves;          /* (K, D): centroids of the clusters */
    double *inertia, *mass;  /* (K) */
    int64_t *number;         /* (): splits made */
    int64_t *restless;       /* (): iterations of a split that did not come to rest, or 0; out */
    double *extent;          /* (): how far rows lie apart; out */
} Bisecting;

typedef struct {
    Rows rows;
    int64_t threads, splits;
    double eps;
    const double *centroids; /* (S, 2, D) */
    const int64_t *split_of; /* (S) */
    const double *leaves;    /* (S + 1, D) */
    int64_t *label;          /* (N); out */
    double *distance;        /* (N), squared; out */
    double *extent;          /* (); out */
} Descent;

/* What the rows of one cluster are worked on in. */
typedef struct {
    int64_t count;
    int64_t *mine, *content, *nearest; /* (N), (N), (R L, N) */
    double *weight, *distance;         /* (N), (R L, N) */
    int32_t *room;                     /* (R, N) */
    double *starts, *pairs;            /* (R, 2, D), (R, L, 2, D) */
    int64_t *drawn, *own_iter;         /* (R, L), (R) */
    uint8_t *at_rest, *empty;          /* (R), (R, 2) */
} Part;

static int open_part(const Bisecting *t, Part *p) {
    const int64_t N = t->rows.number, D = t->rows.features, R = t->rows.restarts;
    p->mine = malloc((size_t)N * sizeof *p->mine), p->content = malloc((size_t)N * sizeof *p->content);
    p->nearest = malloc((size_t)(R * CANDIDATES * N) * sizeof *p->nearest);
    p->distance = malloc((size_t)(R * CANDIDATES * N) * sizeof *p->distance);
    p->weight = malloc((size_t)N * sizeof *p->weight), p->room = malloc((size_t)(R * N) * sizeof *p->room);
    p->starts = malloc((size_t)(R * 2 * D) * sizeof *p->starts);
    p->pairs = malloc((size_t)(R * CANDIDATES * 2 * D) * sizeof *p->pairs);
    p->drawn = malloc((size_t)(R * CANDIDATES) * sizeof *p->drawn);
    p->own_iter = malloc((size_t)R * sizeof *p->own_iter), p->at_rest = malloc((size_t)R), p->empty = malloc((size_t)(2 * R));
    return !p->mine || !p->content || !p->nearest || !p->distance || !p->weight || !p->room || !p->starts || !p->pairs ||
           !p->drawn || !p->own_iter || !p->at_rest || !p->empty;
}

static void close_part(Part *p) {
    free(p->mine), free(p->content), free(p->nearest), free(p->distance), free(p->weight), free(p->room);
    free(p->starts), free(p->pairs), free(p->drawn), free(p->own_iter), free(p->at_rest), free(p->empty);
}

static int64_t find_members(const int64_t *label, int64_t N, int64_t wanted, int64_t *to) {
    int64_t count = 0;
    for (int64_t i = 0; i < N; i++) to[count] = i, count += label[i] == wanted;
    return count;
}

/* The rows of a cluster. */
static void enter(const Bisecting *t, Part *p, int64_t cluster) {
    p->count = find_members(t->label, t->rows.number, cluster, p->mine);
    for (int64_t i = 0; i < p->count; i++) p->content[i] = t->content[p->mine[i]];
    for (int64_t i = 0; i < p->count && t->rows.weight; i++) p->weight[i] = t->rows.weight[p->mine[i]];
}

/* The cluster to split, the first of equal ones; -1 where none has rows that differ. */
static int64_t chosen(const Bisecting *t) {
    const double *size = t->by_weight ? t->mass : t->inertia;
    int64_t best = -1;
    if (!*t->number) return 0;
    for (int64_t k = 0; k <= *t->number; k++)
        if (t->inertia[k] > 0 && (best < 0 || size[k] > size[best])) best = k;
    return best;
}

/* A question to `lloyd.c` about the rows of a cluster, of `restarts` times `clusters` centroids. */
static Iterate ask(const Bisecting *t, const Part *p, int64_t restarts, int64_t clusters, double *centroids) {
    const int64_t work = p->count * restarts * (8 + clusters) * t->rows.features;
    const int64_t threads = least(t->threads, work / WORK_PER_THREAD);
    Rows rows = t->rows;
    rows.number = p->count, rows.restarts = restarts, rows.clusters = clusters;
    rows.index = p->count < t->rows.number ? p->mine : 0;
    rows.weight = t->rows.weight ? p->weight : 0;
    return (Iterate){.rows = rows, .threads = threads > 1 ? threads : 1, .max_iter = t->max_iter, .tolerance = t->tolerance,
                     .eps = t->eps, .centroids = centroids, .nearest = p->nearest, .distance = p->distance, .extent = t->extent};
}

/* to = a row of the cluster, in double. */
static void take_row(const Bisecting *t, const Part *p, int64_t place, double *to) {
    const int64_t D = t->rows.features, first = p->mine[place] * D;
    for (int64_t f = 0; f < D; f++)
        to[f] = t->rows.single ? (double)((const float *)t->rows.x)[first + f] : ((const double *)t->rows.x)[first + f];
}

/* Draw different rows by their weight, times `near` where that is given; return how many there are. */
static int64_t draw(const Bisecting *t, const Part *p, int64_t offset, const double *near, int64_t size, int64_t *to) {
    int64_t number;
    const Draw task = {.rows = p->count, .size = size, .offset = offset, .near = near, .content = p->content,
                       .weight = t->rows.weight ? p->weight : 0, .chosen = to, .number = &number};
    kmeans_sample(&task);
    return number;
}

static double sum_of(const Bisecting *t, const Part *p, const double *distance) {
    double sum = 0.0;
    for (int64_t i = 0; i < p->count; i++) sum += distance[i] * (t->rows.weight ? p->weight[i] : 1.0);
    return sum;
}

/* The second centroid of each restart by greedy k-means++; the first stands in where no row differs from it. */
static int draw_second(const Bisecting *t, Part *p, const int64_t *offset) {
    const int64_t D = t->rows.features, R = t->rows.restarts, L = CANDIDATES, n = p->count;
    for (int64_t r = 0; r < R; r++) memcpy(p->pairs + r * D, p->starts + r * 2 * D, D * sizeof(double));
    Iterate all = ask(t, p, R, 1, p->pairs);
    if (lloyd_assign(&all) || strange(*t->extent)) return 1;
    for (int64_t r = 0; r < R; r++) {
        int64_t *drawn = p->drawn + r * L;
        const int64_t number = draw(t, p, offset[r], p->distance + r * n, L, drawn);
        for (int64_t l = number; l < L; l++) drawn[l] = number ? drawn[0] : -1;
        for (int64_t l = 0; l < L; l++) {
            double *pair = p->pairs + (r * L + l) * 2 * D;
            memcpy(pair, p->starts + r * 2 * D, D * sizeof(double));
            if (number) take_row(t, p, drawn[l], pair + D);
            else memcpy(pair + D, pair, D * sizeof(double));
        }
    }
    all = ask(t, p, R * L, 2, p->pairs); /* which writes to the pairs */
    if (lloyd_assign(&all) || strange(*t->extent)) return 1;
    for (int64_t r = 0; r < R; r++) {
        double potential[CANDIDATES], smallest = INFINITY;
        int64_t best = 0;
        for (int64_t l = 0; l < L; l++) {
            potential[l] = sum_of(t, p, p->distance + (r * L + l) * n);
            smallest = potential[l] < smallest ? potential[l] : smallest;
        }
        while (best < L - 1 && potential[best] > smallest * (1 + 1e-9)) best++;
        double *first = p->starts + r * 2 * D;
        if (p->drawn[r * L] < 0) memcpy(first + D, first, D * sizeof(double));
        else take_row(t, p, p->drawn[r * L + best], first + D);
    }
    return 0;
}

/* The centroids that a split starts with, (R, 2, D). */
static int draw_both(const Bisecting *t, Part *p) {
    const int64_t D = t->rows.features, R = t->rows.restarts, *offset = t->offset + *t->number * 2 * R;
    for (int64_t r = 0; r < R; r++) {
        int64_t found[2];
        const int64_t number = draw(t, p, offset[r], 0, t->greedy ? 1 : 2, found);
        if (!number) return 1; /* nothing weighs anything */
        for (int64_t k = 0; k < 2; k++) take_row(t, p, found[k < number ? k : 0], p->starts + (r * 2 + k) * D);
    }
    return t->greedy && draw_second(t, p, offset + R);
}

/* Make the split of a cluster by the best restart; 1 where that is for others to do, and nothing has changed. */
static int split(const Bisecting *t, Part *p, int64_t cluster) {
    const int64_t D = t->rows.features, R = t->rows.restarts, made = *t->number, n = p->count;
    int64_t num_iter = 0, best = 0, settled = 1;
    double smallest = INFINITY, part[2] = {0}, mass[2] = {0};
    if (n < 2 || draw_both(t, p)) return 1;
    Iterate all = ask(t, p, R, 2, p->starts);
    all.label = p->room, all.own_iter = p->own_iter, all.at_rest = p->at_rest, all.empty = p->empty, all.num_iter = &num_iter;
    memset(p->own_iter, 0, (size_t)R * sizeof *p->own_iter), memset(p->at_rest, 0, (size_t)R);
    memset(p->empty, 0, (size_t)(2 * R));
    if (lloyd_iterate(&all) || strange(*t->extent)) return 1;
    for (int64_t r = 0; r < R; r++) settled &= p->at_rest[r];
    if (!settled && num_iter < t->max_iter) return 1; /* a cluster was empty */
    for (int64_t r = 0; r < R; r++) {
        const double sum = sum_of(t, p, p->distance + r * n);
        if (!(sum < INFINITY)) return 1;
        smallest = sum < smallest ? sum : smallest;
    }
    while (sum_of(t, p, p->distance + best * n) > smallest * (1 + 1e-9)) best++;
    for (int64_t i = 0; i < n; i++) {
        const int64_t child = p->nearest[best * n + i];
        const double weight = t->rows.weight ? p->weight[i] : 1.0;
        part[child] += weight * p->distance[best * n + i], mass[child] += weight;
        if (child) t->label[p->mine[i]] = made + 1;
    }
    for (int64_t k = 0; k < 2; k++) {
        const int64_t place = k ? made + 1 : cluster;
        const double *centroid = p->starts + (best * 2 + k) * D;
        memcpy(t->leaves + place * D, centroid, D * sizeof(double));
        memcpy(t->centroids + (made * 2 + k) * D, centroid, D * sizeof(double));
        t->inertia[place] = part[k], t->mass[place] = mass[k];
    }
    if (!p->at_rest[best]) *t->restless = num_iter;
    t->split_of[made] = cluster, ++*t->number;
    return 0;
}

/* Split until there are K clusters, none differ, or a split is for others to do. */
KERNEL(bisecting_splits, Bisecting) {
    Part part = {0};
    const int failed = open_part(task, &part);
    while (!failed && *task->number < task->rows.clusters - 1) {
        const int64_t cluster = chosen(task);
        if (cluster < 0) break;
        enter(task, &part, cluster);
        if (split(task, &part, cluster)) break;
    }
    close_part(&part);
    return failed;
}

/* The squared distance of a row from a point. */
static double between(const Rows *rows, int64_t place, const double *point) {
    typedef float narrow __attribute__((vector_size(32), aligned(4), may_alias));
    const int64_t D = rows->features;
    const float *single = (const float *)rows->x + place * D;
    const double *row = (const double *)rows->x + place * D;
    eight sums = {};
    double sum = 0.0;
    int64_t f = 0;
    for (; f + 8 <= D; f += 8) {
        const eight value = rows->single ? __builtin_convertvector(*(const narrow *)(single + f), eight) : *(const eight *)(row + f);
        const eight away = value - *(const eight *)(point + f);
        sums += away * away;
    }
    for (; f < D; f++) {
        const double away = (rows->single ? (double)single[f] : row[f]) - point[f];
        sum += away * away;
    }
    for (int lane = 0; lane < 8; lane++) sum += sums[lane];
    return sum;
}

/* The clusters of rows: each split parts those that have come to its own; and the distances to their centroids. */
KERNEL(bisecting_descend, Descent) {
    const int64_t N = task->rows.number, D = task->rows.features;
    int64_t *mine = malloc((size_t)(N + 1) * sizeof *mine), *nearest = malloc((size_t)(N + 1) * sizeof *nearest);
    double *pair = malloc((size_t)(2 * D) * sizeof *pair);
    int failed = !mine || !nearest || !pair;
    memset(task->label, 0, (size_t)N * sizeof *task->label);
    for (int64_t split = 0; split < task->splits && !failed; split++) {
        Rows rows = task->rows;
        rows.number = find_members(task->label, N, task->split_of[split], mine);
        rows.index = rows.number < N ? mine : 0, rows.restarts = 1, rows.clusters = 2;
        if (!rows.number) continue;
        const int64_t threads = least(task->threads, rows.number * 10 * D / WORK_PER_THREAD);
        const Iterate all = {.rows = rows, .threads = threads > 1 ? threads : 1, .eps = task->eps, .centroids = pair,
                             .nearest = nearest, .distance = task->distance, .extent = task->extent};
        memcpy(pair, task->centroids + split * 2 * D, (size_t)(2 * D) * sizeof *pair);
        failed = lloyd_assign(&all);
        if (strange(*task->extent)) break;
        for (int64_t i = 0; i < rows.number; i++)
            if (nearest[i]) task->label[mine[i]] = split + 1;
    }
    for (int64_t i = 0; i < N && !failed; i++) task->distance[i] = between(&task->rows, i, task->leaves + task->label[i] * D);
    free(mine), free(nearest), free(pair);
    return failed;
}
