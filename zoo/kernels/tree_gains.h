/* What a split is worth: the sums of a node as numbers, their scores, and the best split among cells that come in order.

   Letters: T trees, N rows, F features, W codes, S sums, M entries. */

#pragma once
#include "kernel.h"
#include <math.h>

#if defined(__clang__)
#pragma clang fp contract(off)
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off") /* scores must have the bits that torch's have */
#endif

enum { GINI, ENTROPY, NEWTON, POISSON, ABSOLUTE };
enum { BLOCK = 256, ROWS_FOR_THREADS = 40000, KEPT_NUMBERS = 1 << 20 };

typedef struct {
    int64_t num_rows, num_features, num_trees, num_sums, width; /* N, F, T, S, W */
    int64_t threads;
    const uint8_t *narrow;   /* codes, column by column, (F, N); null where they are wide */
    const uint8_t *narrow_rows; /* the same, row by row, (N, F) */
    const int32_t *wide;     /* codes, column by column, (F, N) */
    const int64_t *row_starts;   /* or what the rows store, row by row: where each begins, (N + 1); null for codes above */
    const int32_t *row_features, *row_codes; /* (M) */
    const int64_t *column_starts; /* the same feature by feature, (F + 1) */
    const int32_t *column_rows, *column_codes; /* (M) */
    const int32_t *zero_code; /* of what is not stored, (F) */
    const double *lower, *upper; /* values of the bins, (F, W - 1) */
    const int32_t *index;    /* the sum that each row adds to, (N); null where rows add to all of them */
    const int64_t *weight;   /* of each row, (N), in units */
    const int64_t *gradient; /* (N, S - 1), in units; null with `index` */
    const double *values;    /* the target values that the sums are weights of, ascending, (S); of absolute errors alone */
    const int64_t *content;  /* hash of each row, (N), of which its bootstrap weights follow; null for none */
    const int64_t *tree_key; /* key of each tree's bootstrap, (T) */
    const int64_t *poisson;  /* thresholds of the 32-bit hash, (15): the weight is the number of those below it */
    const int64_t *path;     /* of the roots, (T) */
    const int8_t *monotone;  /* (F), or null */
    const uint8_t *categorical; /* whether the values of each feature are categories, (F), or null; needs narrow codes */
    int64_t criterion, count_bits;
    double weight_unit, gradient_unit, l2;
    int64_t max_depth, min_samples_split, min_samples_leaf, max_leaf_nodes, max_features, random_thresholds; /* -1: none */
    double min_weight_leaf, min_gain;
    int64_t capacity; /* nodes of a tree at most, C */
    /* what comes out: */
    int64_t *num_nodes; /* (T) */
    int32_t *feature, *code, *next_code, *child, *depth; /* (T, C); next_code -1 where only missing values go right */
    uint8_t *missing_left;
    uint64_t *subset;         /* bits of the codes that go left, of categories, (T, C, 4), or null */
    double *gain, *threshold; /* threshold NaN where the middle of both codes is meant */
    int64_t *sums;            /* (T, C, S) */
    int32_t *leaf;            /* of each row, (T, N), or null */
} Grow;

/* -- integers and hashes ------------------------------------------------------------------------------------------- */

static const uint64_t GAMMA = 0x9E3779B97F4A7C15u;

INLINE int64_t splitmix64(uint64_t key, int64_t counter) {
    uint64_t z = (uint64_t)counter * GAMMA + key + GAMMA;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (int64_t)(z ^ (z >> 31));
}

INLINE int64_t poisson_weight(const Grow *g, int64_t tree, int64_t row) {
    int64_t high = (splitmix64((uint64_t)g->tree_key[tree], g->content[row]) >> 32) & 0xFFFFFFFF, weight = 0;
    while (weight < 15 && high >= g->poisson[weight]) weight++;
    return weight;
}

/* -- scores -------------------------------------------------------------------------------------------------------- */

typedef struct {
    float gain;
    int32_t feature, code, next;
    int way;     /* 0 missing values go right, 1 left, 2 there are none */
    int pending; /* the next code is that of the first cell of the next block */
    double threshold;
    uint64_t subset[4]; /* of a categorical feature, the codes that go left */
    int64_t *left; /* (S) */
} Best;

typedef struct {
    int64_t start, end; /* of its rows */
    int64_t path;
    int32_t id, depth;
    double low, high; /* bounds of the value */
    int64_t *histogram; /* (F, W, S), or null */
    Best best;
    int64_t order; /* of creation */
    int closed;    /* a leaf, whatever its rows */
} Node;

typedef struct {
    int32_t codes[BLOCK];
    double score[2][BLOCK], weight[2][BLOCK], top[2][BLOCK]; /* of the left and the right side */
    double rows[2][BLOCK];
    float gain[2][BLOCK];
    int64_t *run;       /* (S, BLOCK), sums of the left sides */
    int64_t *missing;   /* (S) */
    int64_t *histogram; /* (W, S), zero between uses */
    int64_t *left;      /* (S), a running sum */
    int64_t *amount;    /* of the node's rows, (N) */
    int32_t *index;     /* (N) */
    int64_t *gradient;  /* (N, S - 1) */
    uint64_t *keys, *other; /* (N), of wide codes; of entries (M) and (N) */
    int32_t *drawn;     /* features, (F) */
    int64_t *hashes;    /* (F) */
    int64_t *rest;      /* of entries: the sums of the rows that store nothing, (S) */
    int32_t *found, *all; /* the features that a node's rows store, (F) */
    int64_t *starts, *ends; /* of their keys, (F); `ends` is zero between uses */
    int32_t *present;   /* of absolute errors, the target values that the node has, (S) */
    int64_t num_present;
    Best best;
    void *memory;
} Scratch;

typedef struct {
    const Grow *g;
    int64_t tree;
    uint32_t *rows, *spare; /* (N) */
    int64_t num_rows;
    int64_t *weight; /* packed, of each row, (N) */
    int64_t *factor; /* how often each row was drawn, (N), or null */
    int64_t *pairs;  /* (N, 2) packed weight and gradient, where S is 2 and rows add to both */
    uint32_t *position; /* of entries: where each row stands in `rows`, (N) */
    uint8_t *turns;     /* of entries: which way those go that are stored, (N), zero between uses */
    int32_t num_nodes;
    double root_weight;
    Scratch *scratch;
    int num_threads;
    int64_t *pool[64]; /* histograms that are free */
    int pooled;
} Tree;

INLINE double to_weight(const Grow *g, int64_t packed) { return (double)(packed >> g->count_bits) / g->weight_unit; }
INLINE int64_t to_count(const Grow *g, int64_t packed) { return packed & (((int64_t)1 << g->count_bits) - 1); }

SHARED int64_t count_of(const Grow *g, const int64_t *sums) {
    if (!g->index) return to_count(g, sums[0]);
    int64_t count = 0;
    for (int64_t c = 0; c < g->num_sums; c++) count += to_count(g, sums[c]);
    return count;
}

static double weight_of(const Grow *g, const int64_t *sums) {
    if (!g->index) return to_weight(g, sums[0]);
    double weight = 0;
    for (int64_t c = 0; c < g->num_sums; c++) weight += to_weight(g, sums[c]);
    return weight;
}

INLINE double xlog2(double x) { return x > 0 ? x * log2(x) : 0.0; }

/* The weighted median of a node's target values: the middle of the two, where there are two. */
static double median_of(const Grow *g, const int64_t *sums) {
    const double half = weight_of(g, sums) / 2;
    double below = 0, low = g->values[0], high = low;
    for (int64_t c = 0; c < g->num_sums && below <= half; c++) {
        if (below < half) low = g->values[c];
        high = g->values[c], below += to_weight(g, sums[c]);
    }
    return (low + high) / 2;
}

SHARED double score_of(const Grow *g, const int64_t *sums) {
    double score = 0;
    if (g->criterion == ABSOLUTE) {
        const double median = median_of(g, sums);
        for (int64_t c = 0; c < g->num_sums; c++) score -= to_weight(g, sums[c]) * fabs(g->values[c] - median);
        return score;
    }
    if (g->index) {
        double total = weight_of(g, sums);
        for (int64_t c = 0; c < g->num_sums; c++) {
            double w = to_weight(g, sums[c]);
            score += g->criterion == GINI ? w * w : xlog2(w);
        }
        return g->criterion == GINI ? score / total : score - xlog2(total);
    }
    double w = to_weight(g, sums[0]);
    if (g->criterion == POISSON) {
        double top = (double)sums[1] / g->gradient_unit;
        return top > 0 ? top * log(top / w) : 0.0;
    }
    for (int64_t k = 1; k < g->num_sums; k++) {
        double top = (double)sums[k] / g->gradient_unit;
        score += top * top / (w + g->l2);
    }
    return score;
}

/* The last value that a side predicts. */
SHARED double value_of(const Grow *g, const int64_t *sums) {
    int64_t last = g->num_sums - 1;
    if (g->criterion == ABSOLUTE) return median_of(g, sums);
    if (g->index) return to_weight(g, sums[last]) / weight_of(g, sums);
    const double bend = to_weight(g, sums[0]) + g->l2;
    return bend > 0 ? (double)sums[last] / g->gradient_unit / bend : 0; /* a tree that sees no row takes no step */
}

/* Scores of both sides by absolute errors; the medians stand in `top`. The target values that a node lacks are left out. */
static void score_medians(const Grow *g, Scratch *s, int64_t n, const int64_t *total, const int64_t *extra) {
    const int64_t shift = g->count_bits, mask = ((int64_t)1 << shift) - 1;
    const double unit = 1 / g->weight_unit;
    for (int side = 0; side < 2; side++) {
        double *score = s->score[side], *weight = s->weight[side], *rows = s->rows[side], *median = s->top[side];
        double low[BLOCK], high[BLOCK], below[BLOCK];
        for (int64_t i = 0; i < n; i++) score[i] = weight[i] = rows[i] = low[i] = high[i] = below[i] = 0;
#define FOR_EACH_VALUE(...)                                                    \
    for (int64_t p = 0; p < s->num_present; p++) {                             \
        const int64_t c = s->present[p];                                       \
        const int64_t *run = s->run + c * BLOCK, plus = extra ? extra[c] : 0;  \
        const double value = g->values[c];                                     \
        for (int64_t i = 0; i < n; i++) {                                      \
            const int64_t left = run[i] + plus, sum = side ? total[c] - left : left; \
            const double w = (double)(sum >> shift) * unit;                    \
            __VA_ARGS__;                                                       \
        }                                                                      \
    }
        FOR_EACH_VALUE((void)value, weight[i] += w, rows[i] += (double)(sum & mask))
        FOR_EACH_VALUE(low[i] = 2 * below[i] < weight[i] ? value : low[i], high[i] = 2 * below[i] <= weight[i] ? value : high[i],
                       below[i] += w)
        for (int64_t i = 0; i < n; i++) median[i] = (low[i] + high[i]) / 2;
        FOR_EACH_VALUE(score[i] -= w * fabs(value - median[i]))
#undef FOR_EACH_VALUE
    }
}

/* Scores of both sides of n splits whose left sums stand in `run`, with `extra` added to the left (or null). */
static void score_sides(const Grow *g, Scratch *s, int64_t n, const int64_t *total, const int64_t *extra) {
    const int64_t shift = g->count_bits, mask = ((int64_t)1 << shift) - 1;
    const double unit = 1 / g->weight_unit, slope = 1 / g->gradient_unit; /* powers of two */
    double *sl = s->score[0], *sr = s->score[1], *wl = s->weight[0], *wr = s->weight[1], *nl = s->rows[0], *nr = s->rows[1];
    if (g->criterion == ABSOLUTE) {
        score_medians(g, s, n, total, extra);
        return;
    }
    if (g->index) {
        for (int64_t i = 0; i < n; i++) sl[i] = sr[i] = wl[i] = wr[i] = nl[i] = nr[i] = 0;
        for (int64_t c = 0; c < g->num_sums; c++) {
            const int64_t *run = s->run + c * BLOCK, plus = extra ? extra[c] : 0, all = total[c];
            if (g->criterion == GINI) {
                for (int64_t i = 0; i < n; i++) {
                    int64_t l = run[i] + plus, r = all - l;
                    double a = (double)(l >> shift) * unit, b = (double)(r >> shift) * unit;
                    wl[i] += a, wr[i] += b, sl[i] += a * a, sr[i] += b * b;
                    nl[i] += (double)(l & mask), nr[i] += (double)(r & mask);
                }
            } else {
                for (int64_t i = 0; i < n; i++) {
                    int64_t l = run[i] + plus, r = all - l;
                    double a = (double)(l >> shift) * unit, b = (double)(r >> shift) * unit;
                    wl[i] += a, wr[i] += b, sl[i] += xlog2(a), sr[i] += xlog2(b);
                    nl[i] += (double)(l & mask), nr[i] += (double)(r & mask);
                }
            }
        }
        if (g->criterion == GINI)
            for (int64_t i = 0; i < n; i++) sl[i] /= wl[i], sr[i] /= wr[i];
        else
            for (int64_t i = 0; i < n; i++) sl[i] -= xlog2(wl[i]), sr[i] -= xlog2(wr[i]);
        return;
    }
    const int64_t plus = extra ? extra[0] : 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t l = s->run[i] + plus, r = total[0] - l;
        wl[i] = (double)(l >> shift) * unit, wr[i] = (double)(r >> shift) * unit;
        nl[i] = (double)(l & mask), nr[i] = (double)(r & mask);
        sl[i] = sr[i] = 0;
    }
    for (int64_t k = 1; k < g->num_sums; k++) {
        const int64_t *run = s->run + k * BLOCK, more = extra ? extra[k] : 0, all = total[k];
        double *tl = s->top[0], *tr = s->top[1];
        for (int64_t i = 0; i < n; i++) {
            int64_t l = run[i] + more;
            tl[i] = (double)l * slope, tr[i] = (double)(all - l) * slope;
        }
        if (g->criterion == NEWTON)
            for (int64_t i = 0; i < n; i++) {
                sl[i] += tl[i] * tl[i] / (wl[i] + g->l2);
                sr[i] += tr[i] * tr[i] / (wr[i] + g->l2);
            }
        else
            for (int64_t i = 0; i < n; i++) {
                sl[i] = tl[i] > 0 ? tl[i] * log(tl[i] / wl[i]) : 0.0;
                sr[i] = tr[i] > 0 ? tr[i] * log(tr[i] / wr[i]) : 0.0;
            }
    }
}

/* Gains of n splits as floats, -inf where they are not allowed. */
static void gains(const Grow *g, Scratch *s, int64_t n, const Node *node, const int64_t *total, double parent, int32_t feature,
                  const int64_t *extra, float *gain) {
    score_sides(g, s, n, total, extra);
    const double *sl = s->score[0], *sr = s->score[1], *wl = s->weight[0], *wr = s->weight[1];
    const double nothing = g->index ? 0.0 : -INFINITY, rows = g->min_samples_leaf > 1 ? (double)g->min_samples_leaf : 1.0;
    const double least_weight = g->min_weight_leaf > 0 ? g->min_weight_leaf : -INFINITY;
    const double *nl = s->rows[0], *nr = s->rows[1];
    for (int64_t i = 0; i < n; i++) {
        double value = sl[i] + sr[i] - parent;
        double noise = 1e-12 * (fabs(sl[i]) + fabs(sr[i]));
        value = value <= noise ? nothing : value;
        int allowed = (nl[i] >= rows) & (nr[i] >= rows) & (wl[i] >= least_weight) & (wr[i] >= least_weight);
        gain[i] = allowed ? (float)value : -INFINITY;
    }
    if (g->criterion == POISSON)
        for (int64_t i = 0; i < n; i++)
            if (!(s->top[0][i] > 0 && s->top[1][i] > 0)) gain[i] = -INFINITY;
    if (!g->monotone || !g->monotone[feature]) return;
    const int64_t last = g->num_sums - 1;
    const double sign = g->monotone[feature];
    for (int64_t i = 0; i < n; i++) {
        int64_t l = s->run[last * BLOCK + i] + (extra ? extra[last] : 0), r = total[last] - l;
        double a, b;
        if (g->criterion == ABSOLUTE)
            a = s->top[0][i], b = s->top[1][i];
        else if (g->index)
            a = to_weight(g, l) / wl[i], b = to_weight(g, r) / wr[i];
        else
            a = ((double)l / g->gradient_unit) / (wl[i] + g->l2), b = ((double)r / g->gradient_unit) / (wr[i] + g->l2);
        int allowed = (a - b) * sign <= 0 && a >= node->low && a <= node->high && b >= node->low && b <= node->high;
        if (!allowed) gain[i] = -INFINITY;
    }
}

/* Look at a block of n cells of a feature, whose running sums stand in `run`; `more` tells that another block follows. */
SHARED void look(const Grow *g, Scratch *s, int64_t n, const Node *node, const int64_t *total, double parent, int32_t feature,
                 int has_missing, double threshold) {
    if (!n) return;
    if (s->best.pending) s->best.next = s->codes[0], s->best.pending = 0;
    gains(g, s, n, node, total, parent, feature, 0, s->gain[0]);
    if (has_missing) gains(g, s, n, node, total, parent, feature, s->missing, s->gain[1]);
    float top = s->best.gain;
    int64_t at = -1;
    if (has_missing)
        for (int64_t i = 0; i < n; i++) {
            float here = s->gain[1][i] > s->gain[0][i] ? s->gain[1][i] : s->gain[0][i];
            if (here > top) top = here, at = i;
        }
    else
        for (int64_t i = 0; i < n; i++)
            if (s->gain[0][i] > top) top = s->gain[0][i], at = i;
    if (at < 0) return;
    Best *best = &s->best;
    best->gain = top, best->feature = feature, best->code = s->codes[at], best->threshold = threshold;
    best->way = has_missing ? s->gain[1][at] > s->gain[0][at] : 2;
    best->pending = at == n - 1, best->next = best->pending ? -1 : s->codes[at + 1];
    if (g->criterion == ABSOLUTE) { /* running sums of values that are not there were not kept */
        memset(best->left, 0, g->num_sums * sizeof *best->left);
        for (int64_t p = 0; p < s->num_present; p++) {
            const int64_t c = s->present[p];
            best->left[c] = s->run[c * BLOCK + at] + (best->way == 1 ? s->missing[c] : 0);
        }
        return;
    }
    for (int64_t c = 0; c < g->num_sums; c++) best->left[c] = s->run[c * BLOCK + at] + (best->way == 1 ? s->missing[c] : 0);
}
