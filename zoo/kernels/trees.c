/* Trees grown on coded rows in memory: what zoo/models/trees/growth.py does pass by pass, node by node.

   Both give the same trees: sums are integers, features are visited from the last to the first, gains are compared as
   floats and the first of equals wins. A node is looked at in one of three ways, by its size and the number of bins:
     - its histogram over all features is kept, that of the smaller child is counted by rows that lie row by row, and the
       other is what is left of the parent (all features, few bins);
     - one small histogram a feature (features drawn for each node, few bins);
     - its rows are sorted by code (many bins).
   Cells of a categorical feature are looked at in the order of what they predict, and the first ones go left.
   Several trees run side by side, one a thread; a single tree shares the features of a node among the threads, where the
   node has rows enough.

   Letters as in growth.py: T trees, N rows, F features, J of them looked at, W codes, S sums. */

#include "kernel.h"
#include <math.h>

#if defined(__clang__)
#pragma clang fp contract(off)
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off") /* scores must have the bits that torch's have */
#endif

enum { GINI, ENTROPY, NEWTON, POISSON };
enum { BLOCK = 256, ROWS_FOR_THREADS = 40000, KEPT_NUMBERS = 1 << 20 };

typedef struct {
    int64_t num_rows, num_features, num_trees, num_sums, width; /* N, F, T, S, W */
    int64_t threads;
    const uint8_t *narrow;   /* codes, column by column, (F, N); null where they are wide */
    const uint8_t *narrow_rows; /* the same, row by row, (N, F) */
    const int32_t *wide;     /* codes, column by column, (F, N) */
    const double *lower, *upper; /* values of the bins, (F, W - 1) */
    const int32_t *index;    /* the sum that each row adds to, (N); null where rows add to all of them */
    const int64_t *weight;   /* of each row, (N), in units */
    const int64_t *gradient; /* (N, S - 1), in units; null with `index` */
    const int64_t *content;  /* hash of each row, (N), of which its bootstrap weights follow; null for none */
    const int64_t *tree_key; /* key of each tree's bootstrap, (T) */
    const int64_t *poisson;  /* thresholds of the 32-bit hash, (16): the weight is the number of those below it */
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
    uint64_t *keys, *other; /* (N), of wide codes */
    int32_t *drawn;     /* features, (F) */
    int64_t *hashes;    /* (F) */
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
    int32_t num_nodes;
    double root_weight;
    Scratch *scratch;
    int num_threads;
    int64_t *pool[64]; /* histograms that are free */
    int pooled;
} Tree;

INLINE double to_weight(const Grow *g, int64_t packed) { return (double)(packed >> g->count_bits) / g->weight_unit; }
INLINE int64_t to_count(const Grow *g, int64_t packed) { return packed & (((int64_t)1 << g->count_bits) - 1); }

static int64_t count_of(const Grow *g, const int64_t *sums) {
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

static double score_of(const Grow *g, const int64_t *sums) {
    double score = 0;
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
static double value_of(const Grow *g, const int64_t *sums) {
    int64_t last = g->num_sums - 1;
    if (g->index) return to_weight(g, sums[last]) / weight_of(g, sums);
    return ((double)sums[last] / g->gradient_unit) / (to_weight(g, sums[0]) + g->l2);
}

/* Scores of both sides of n splits whose left sums stand in `run`, with `extra` added to the left (or null). */
static void score_sides(const Grow *g, Scratch *s, int64_t n, const int64_t *total, const int64_t *extra) {
    const int64_t shift = g->count_bits, mask = ((int64_t)1 << shift) - 1;
    const double unit = 1 / g->weight_unit, slope = 1 / g->gradient_unit; /* powers of two */
    double *sl = s->score[0], *sr = s->score[1], *wl = s->weight[0], *wr = s->weight[1], *nl = s->rows[0], *nr = s->rows[1];
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
        if (g->index)
            a = to_weight(g, l) / wl[i], b = to_weight(g, r) / wr[i];
        else
            a = ((double)l / g->gradient_unit) / (wl[i] + g->l2), b = ((double)r / g->gradient_unit) / (wr[i] + g->l2);
        int allowed = (a - b) * sign <= 0 && a >= node->low && a <= node->high && b >= node->low && b <= node->high;
        if (!allowed) gain[i] = -INFINITY;
    }
}

/* Look at a block of n cells of a feature, whose running sums stand in `run`; `more` tells that another block follows. */
static void look(const Grow *g, Scratch *s, int64_t n, const Node *node, const int64_t *total, double parent, int32_t feature,
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
    for (int64_t c = 0; c < g->num_sums; c++) best->left[c] = s->run[c * BLOCK + at] + (best->way == 1 ? s->missing[c] : 0);
}

/* -- one feature of one node --------------------------------------------------------------------------------------- */

typedef struct {
    const Grow *g;
    Scratch *s;
    const Node *node;
    const int64_t *total;
    double parent;
    int32_t feature;
    int has_missing;
    int64_t filled;
} Feature;

INLINE void next_cell(Feature *f, int32_t code, const int64_t *sums) {
    Scratch *s = f->s;
    const int64_t S = f->g->num_sums, i = f->filled++;
    s->codes[i] = code;
    for (int64_t c = 0; c < S; c++) s->run[c * BLOCK + i] = s->left[c] += sums[c];
    if (f->filled == BLOCK) {
        look(f->g, s, BLOCK, f->node, f->total, f->parent, f->feature, f->has_missing, NAN);
        f->filled = 0;
    }
}

static Feature begin(const Grow *g, Scratch *s, const Node *node, const int64_t *total, double parent, int32_t feature) {
    memset(s->left, 0, g->num_sums * sizeof *s->left);
    memset(s->missing, 0, g->num_sums * sizeof *s->missing);
    return (Feature){g, s, node, total, parent, feature, 0, 0};
}

static void finish(Feature *f) {
    look(f->g, f->s, f->filled, f->node, f->total, f->parent, f->feature, f->has_missing, NAN);
    f->s->best.pending = 0;
}

INLINE int any(const int64_t *sums, int64_t n) {
    int64_t bits = 0;
    for (int64_t c = 0; c < n; c++) bits |= sums[c];
    return bits != 0;
}

INLINE int is_category(const Grow *g, int64_t feature) { return g->categorical && g->categorical[feature]; }

/* By what the categories of a node are put in order: their value, or the share of the node's largest class. */
static double place_of(const Grow *g, const int64_t *sums, int64_t largest) {
    double place;
    if (g->index) {
        int64_t whole = 0;
        for (int64_t c = 0; c < g->num_sums; c++) whole += sums[c] >> g->count_bits;
        place = (double)(sums[largest] >> g->count_bits) / (double)whole;
    } else
        place = (double)sums[1] / g->gradient_unit / (to_weight(g, sums[0]) + g->l2);
    return place != place ? INFINITY : place;
}

/* Categories, at most 255 of them and so one block: in the order of their places, of which the first ones go left. */
static void by_category(Feature *f, const int64_t *histogram) {
    const Grow *g = f->g;
    const int64_t S = g->num_sums, missing = g->width - 1;
    int64_t largest = 0;
    if (g->index)
        for (int64_t c = 1; c < S; c++)
            if (f->total[c] >> g->count_bits > f->total[largest] >> g->count_bits) largest = c;
    int32_t order[BLOCK], number = 0;
    double places[BLOCK];
    for (int64_t code = 0; code < missing; code++) {
        if (!any(histogram + code * S, S)) continue;
        const double place = place_of(g, histogram + code * S, largest);
        int32_t i = number++;
        for (; i && places[i - 1] > place; i--) places[i] = places[i - 1], order[i] = order[i - 1];
        places[i] = place, order[i] = (int32_t)code;
    }
    for (int32_t i = 0; i < number; i++) next_cell(f, order[i], histogram + order[i] * S);
    finish(f);
    Best *best = &f->s->best;
    if (best->feature != f->feature) return;
    memset(best->subset, 0, sizeof best->subset);
    for (int32_t i = 0; i < number; i++) {
        best->subset[order[i] >> 6] |= (uint64_t)1 << (order[i] & 63);
        if (order[i] == best->code) break;
    }
}

static void by_histogram(Feature *f, const int64_t *histogram) {
    const Grow *g = f->g;
    const int64_t S = g->num_sums, missing = g->width - 1;
    memcpy(f->s->missing, histogram + missing * S, S * sizeof *histogram);
    f->has_missing = any(f->s->missing, S);
    if (is_category(g, f->feature)) {
        by_category(f, histogram);
        return;
    }
    for (int64_t code = 0; code < missing; code++)
        if (any(histogram + code * S, S)) next_cell(f, (int32_t)code, histogram + code * S);
    finish(f);
}

/* The sums of one row of the node, by its place. */
INLINE void add_row(const Grow *g, const Scratch *s, int64_t i, int64_t *sums) {
    if (g->index) {
        sums[s->index[i]] += s->amount[i];
        return;
    }
    sums[0] += s->amount[i];
    for (int64_t k = 1; k < g->num_sums; k++) sums[k] += s->gradient[i * (g->num_sums - 1) + k - 1];
}

static void by_small_histogram(Feature *f, const Tree *t) {
    const Grow *g = f->g;
    Scratch *s = f->s;
    const int64_t S = g->num_sums, n = f->node->end - f->node->start, missing = g->width - 1;
    const uint8_t *column = g->narrow + f->feature * g->num_rows;
    const uint32_t *rows = t->rows + f->node->start;
    int64_t *histogram = s->histogram;
    uint64_t seen[4] = {0};
    if (g->index && S == 2)
        for (int64_t i = 0; i < n; i++) {
            uint8_t code = column[rows[i]];
            histogram[code * 2 + s->index[i]] += s->amount[i];
            seen[code >> 6] |= (uint64_t)1 << (code & 63);
        }
    else if (g->index)
        for (int64_t i = 0; i < n; i++) {
            uint8_t code = column[rows[i]];
            histogram[code * S + s->index[i]] += s->amount[i];
            seen[code >> 6] |= (uint64_t)1 << (code & 63);
        }
    else
        for (int64_t i = 0; i < n; i++) {
            uint8_t code = column[rows[i]];
            add_row(g, s, i, histogram + code * S);
            seen[code >> 6] |= (uint64_t)1 << (code & 63);
        }
    if (seen[missing >> 6] >> (missing & 63) & 1) {
        memcpy(s->missing, histogram + missing * S, S * sizeof *histogram);
        memset(histogram + missing * S, 0, S * sizeof *histogram);
        f->has_missing = 1;
        seen[missing >> 6] &= ~((uint64_t)1 << (missing & 63));
    }
    const int categories = is_category(g, f->feature);
    if (categories) by_category(f, histogram);
    for (int word = 0; word < 4; word++)
        for (uint64_t bits = seen[word]; bits; bits &= bits - 1) {
            int64_t code = word * 64 + __builtin_ctzll(bits);
            if (!categories) next_cell(f, (int32_t)code, histogram + code * S);
            memset(histogram + code * S, 0, S * sizeof *histogram);
        }
    if (!categories) finish(f);
}

/* Sort keys by their upper half, of which `bits` matter; the result is in either array. */
static uint64_t *sort(uint64_t *keys, uint64_t *other, int64_t n, int bits) {
    if (n <= 48) {
        for (int64_t i = 1; i < n; i++) {
            uint64_t key = keys[i];
            int64_t j = i;
            for (; j && keys[j - 1] > key; j--) keys[j] = keys[j - 1];
            keys[j] = key;
        }
        return keys;
    }
    const int digit = n < 3000 ? 8 : 11, passes = (bits + digit - 1) / digit;
    uint32_t count[2048];
    for (int pass = 0; pass < passes; pass++) {
        const int shift = 32 + pass * digit, buckets = 1 << digit;
        memset(count, 0, buckets * sizeof *count);
        for (int64_t i = 0; i < n; i++) count[keys[i] >> shift & (buckets - 1)]++;
        uint32_t place = 0;
        for (int b = 0; b < buckets; b++) {
            uint32_t here = count[b];
            count[b] = place, place += here;
        }
        for (int64_t i = 0; i < n; i++) other[count[keys[i] >> shift & (buckets - 1)]++] = keys[i];
        uint64_t *swap = keys;
        keys = other, other = swap;
    }
    return keys;
}

static void by_sorting(Feature *f, const Tree *t) {
    const Grow *g = f->g;
    Scratch *s = f->s;
    const int64_t S = g->num_sums, n = f->node->end - f->node->start;
    const int32_t missing = (int32_t)g->width - 1;
    const int32_t *column = g->wide + f->feature * g->num_rows;
    const uint32_t *rows = t->rows + f->node->start;
    int64_t m = 0;
    uint32_t all = 0;
    for (int64_t i = 0; i < n; i++) {
        int32_t code = column[rows[i]];
        if (code == missing) {
            add_row(g, s, i, s->missing), f->has_missing = 1;
            continue;
        }
        all |= (uint32_t)code;
        s->keys[m++] = (uint64_t)code << 32 | (uint64_t)i;
    }
    const uint64_t *keys = sort(s->keys, s->other, m, all ? 32 - __builtin_clz(all) : 1);
    int64_t *sums = s->histogram; /* of the cell */
    for (int64_t i = 0; i < m;) {
        uint64_t code = keys[i] >> 32;
        if (i + 1 == m || keys[i + 1] >> 32 != code) { /* most cells hold one row */
            int64_t row = (int64_t)(keys[i] & 0xFFFFFFFF);
            add_row(g, s, row, sums);
            i++;
        } else
            for (; i < m && keys[i] >> 32 == code; i++) add_row(g, s, (int64_t)(keys[i] & 0xFFFFFFFF), sums);
        next_cell(f, (int32_t)code, sums);
        memset(sums, 0, S * sizeof *sums);
    }
    finish(f);
}

/* One drawn threshold: the two cells that it parts, and, with missing values, all others against them. */
static void by_drawing(Feature *f, const Tree *t) {
    const Grow *g = f->g;
    Scratch *s = f->s;
    const int64_t S = g->num_sums, n = f->node->end - f->node->start, bins = g->width - 1;
    const int32_t missing = (int32_t)bins;
    const uint32_t *rows = t->rows + f->node->start;
    const uint8_t *narrow = g->narrow ? g->narrow + f->feature * g->num_rows : 0;
    const int32_t *wide = g->wide ? g->wide + f->feature * g->num_rows : 0;
    int32_t first = INT32_MAX, last = -1;
    for (int64_t i = 0; i < n; i++) {
        int32_t code = narrow ? narrow[rows[i]] : wide[rows[i]];
        if (code == missing) {
            add_row(g, s, i, s->missing), f->has_missing = 1;
            continue;
        }
        first = code < first ? code : first, last = code > last ? code : last;
    }
    if (last < 0) return;
    const double *lower = g->lower + f->feature * bins, *upper = g->upper + f->feature * bins;
    int64_t word = splitmix64(0x7EE5, f->node->path + f->feature);
    double u = ((double)((word >> 32) & 0xFFFFFFFF) + 0.5) * 0x1p-32;
    double span = upper[last] - lower[first], drawn = u * span;
    drawn = lower[first] + drawn;
    int32_t low = -1, high = INT32_MAX; /* the codes on both sides */
    for (int64_t i = 0; i < n && first < last; i++) {
        int32_t code = narrow ? narrow[rows[i]] : wide[rows[i]];
        if (code == missing) continue;
        int left = code == first || (upper[code] <= drawn && code != last);
        if (left) {
            add_row(g, s, i, s->left);
            low = code > low ? code : low;
        } else
            high = code < high ? code : high;
    }
    if (first < last) {
        s->codes[0] = low, s->codes[1] = high;
        for (int64_t c = 0; c < S; c++) s->run[c * BLOCK] = s->left[c];
        look(g, s, 1, f->node, f->total, f->parent, f->feature, f->has_missing, upper[low] <= drawn && drawn < lower[high] ? drawn : NAN);
        if (s->best.pending) s->best.next = high, s->best.pending = 0;
    }
    if (f->has_missing) {
        s->codes[0] = last;
        for (int64_t c = 0; c < S; c++) s->run[c * BLOCK] = f->total[c] - s->missing[c];
        look(g, s, 1, f->node, f->total, f->parent, f->feature, 1, NAN);
        if (s->best.pending) s->best.next = -1, s->best.pending = 0;
    }
}

/* -- one node ------------------------------------------------------------------------------------------------------ */

static int64_t *sums_of(const Tree *t, int32_t node) {
    return t->g->sums + (t->tree * t->g->capacity + node) * t->g->num_sums;
}

/* Whether two best splits of the same node are in this order; features are visited from the last to the first. */
static int better(const Best *a, const Best *b) {
    return a->gain > b->gain || (a->gain == b->gain && a->gain > -INFINITY && a->feature > b->feature);
}

static void forget(Best *best) { best->gain = -INFINITY, best->feature = -1, best->pending = 0; }

static void take(const Grow *g, Best *to, const Best *from) {
    int64_t *left = to->left;
    *to = *from;
    to->left = left;
    memcpy(left, from->left, g->num_sums * sizeof *left);
}

/* What the rows of a node add, one after the other, for the features to share. */
static void gather(const Tree *t, Scratch *s, const Node *node) {
    const Grow *g = t->g;
    const int64_t n = node->end - node->start, K = g->num_sums - 1;
    const uint32_t *rows = t->rows + node->start;
    for (int64_t i = 0; i < n; i++) s->amount[i] = t->weight[rows[i]];
    if (g->index)
        for (int64_t i = 0; i < n; i++) s->index[i] = g->index[rows[i]];
    else
        for (int64_t i = 0; i < n; i++)
            for (int64_t k = 0; k < K; k++)
                s->gradient[i * K + k] = g->gradient[rows[i] * K + k] * (t->factor ? t->factor[rows[i]] : 1);
}

/* The features whose hashes come next, the last feature first. */
static int64_t draw(const Grow *g, Scratch *s, int64_t path, int64_t turn) {
    const int64_t F = g->num_features, J = g->max_features;
    for (int64_t f = 0; f < F; f++) s->hashes[f] = splitmix64(0xFEA7, path + f);
    /* the J smallest after those of earlier turns, by selection; (J turn .. J turn + J) modulo F in the sorted order */
    int32_t order[J * (turn + 1) < F ? J * (turn + 1) : F];
    int64_t wanted = J * (turn + 1) < F ? J * (turn + 1) : F, filled = 0;
    for (int32_t f = 0; f < F; f++) {
        int64_t i = filled;
        if (filled == wanted) {
            if (s->hashes[f] > s->hashes[order[wanted - 1]]) continue;
            i = wanted - 1;
        } else
            filled++;
        for (; i && s->hashes[order[i - 1]] > s->hashes[f]; i--) order[i] = order[i - 1];
        order[i] = f;
    }
    for (int64_t j = 0; j < J; j++) {
        int32_t feature = order[(turn * J + j) % F];
        int64_t i = j;
        for (; i && s->drawn[i - 1] < feature; i--) s->drawn[i] = s->drawn[i - 1];
        s->drawn[i] = feature;
    }
    return J;
}

static void look_at_feature(const Tree *t, Scratch *s, const Node *node, const int64_t *total, double parent, int32_t feature) {
    const Grow *g = t->g;
    Feature f = begin(g, s, node, total, parent, feature);
    if (node->histogram)
        by_histogram(&f, node->histogram + feature * g->width * g->num_sums);
    else if (g->random_thresholds)
        by_drawing(&f, t);
    else if (g->narrow)
        by_small_histogram(&f, t);
    else
        by_sorting(&f, t);
}

static void find_split(Tree *t, Node *node) {
    const Grow *g = t->g;
    Scratch *s = t->scratch;
    const int64_t *total = sums_of(t, node->id), F = g->num_features;
    const double parent = score_of(g, total);
    if (!node->histogram) gather(t, s, node);
    forget(&node->best);
    if (g->max_features < F) {
        for (int64_t turn = 0; turn * g->max_features < F && node->best.gain == -INFINITY; turn++) {
            int64_t J = draw(g, s, node->path, turn);
            forget(&s->best);
            for (int64_t j = 0; j < J; j++) look_at_feature(t, s, node, total, parent, s->drawn[j]);
            take(g, &node->best, &s->best);
        }
        return;
    }
    const int64_t n = node->end - node->start;
    const int threads = t->num_threads > 1 && !node->histogram && n * F > 8 * ROWS_FOR_THREADS ? t->num_threads : 1;
    for (int i = 0; i < threads; i++) forget(&t->scratch[i].best);
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)
    for (int i = 0; i < threads; i++) {
        Scratch *own = t->scratch + i;
        if (i) own->amount = s->amount, own->index = s->index, own->gradient = s->gradient;
        for (int64_t f = F - 1 - i; f >= 0; f -= threads) look_at_feature(t, own, node, total, parent, (int32_t)f);
    }
    for (int i = 0; i < threads; i++)
        if (better(&t->scratch[i].best, &node->best)) take(g, &node->best, &t->scratch[i].best);
}

/* -- histograms over all features ---------------------------------------------------------------------------------- */

static int64_t *take_histogram(Tree *t) {
    if (t->pooled) return t->pool[--t->pooled];
    return malloc(t->g->num_features * t->g->width * t->g->num_sums * sizeof(int64_t));
}

static void give_histogram(Tree *t, int64_t *histogram) {
    if (!histogram) return;
    if (t->pooled < 64)
        t->pool[t->pooled++] = histogram;
    else
        free(histogram);
}

typedef int64_t Pair __attribute__((vector_size(16), aligned(16)));

/* Count rows, features [from, to). */
static void count_rows(const Tree *t, const Node *node, int64_t *histogram, int64_t from, int64_t to) {
    const Grow *g = t->g;
    const int64_t S = g->num_sums, W = g->width, F = g->num_features, n = node->end - node->start, K = S - 1;
    const uint32_t *rows = t->rows + node->start;
    memset(histogram + from * W * S, 0, (to - from) * W * S * sizeof *histogram);
    for (int64_t i = 0; i < n; i++) {
        const int64_t ahead = i + 24 < n ? i + 24 : n - 1;
        __builtin_prefetch(g->narrow_rows + rows[ahead] * F + from);
        const int64_t row = rows[i];
        const uint8_t *codes = g->narrow_rows + row * F;
        if (t->pairs) {
            __builtin_prefetch(t->pairs + 2 * (int64_t)rows[ahead]);
            const Pair amount = *(const Pair *)(t->pairs + 2 * row);
            int64_t *cell = histogram + from * W * 2;
            for (int64_t f = from; f < to; f++, cell += W * 2) *(Pair *)(cell + codes[f] * 2) += amount;
            continue;
        }
        __builtin_prefetch(t->weight + rows[ahead]);
        const int64_t amount = t->weight[row];
        if (g->index) {
            int64_t *cell = histogram + from * W * S + g->index[row];
            for (int64_t f = from; f < to; f++, cell += W * S) cell[codes[f] * S] += amount;
        } else {
            const int64_t factor = t->factor ? t->factor[row] : 1;
            for (int64_t f = from; f < to; f++) {
                int64_t *cell = histogram + (f * W + codes[f]) * S;
                cell[0] += amount;
                for (int64_t k = 0; k < K; k++) cell[k + 1] += g->gradient[row * K + k] * factor;
            }
        }
    }
}

/* Histograms of children (or of the root, whose `other` is null) and their best splits, features shared among threads. */
static int count_and_find(Tree *t, Node *small, Node *large, int64_t *parent) {
    const Grow *g = t->g;
    const int64_t F = g->num_features, size = g->width * g->num_sums, n = small->end - small->start;
    small->histogram = take_histogram(t);
    if (!small->histogram) return 1;
    if (large) large->histogram = parent;
    const int threads = t->num_threads > 1 && n > ROWS_FOR_THREADS / 8 ? t->num_threads : 1;
    Node *both[2] = {small, large};
    double parents[2];
    for (int c = 0; c < 2; c++)
        if (both[c]) forget(&both[c]->best), parents[c] = score_of(g, sums_of(t, both[c]->id));
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)
    for (int i = 0; i < threads; i++) {
        const int64_t from = F * i / threads, to = F * (i + 1) / threads;
        Scratch *s = t->scratch + i;
        count_rows(t, small, small->histogram, from, to);
        if (large)
            for (int64_t k = from * size; k < to * size; k++) parent[k] -= small->histogram[k];
        for (int c = 0; c < 2; c++) {
            if (!both[c] || both[c]->closed) continue;
            forget(&s->best);
            for (int64_t f = to - 1; f >= from; f--)
                look_at_feature(t, s, both[c], sums_of(t, both[c]->id), parents[c], (int32_t)f);
#pragma omp critical(zoo_trees)
            if (better(&s->best, &both[c]->best)) take(g, &both[c]->best, &s->best);
        }
    }
    return 0;
}

/* -- one tree ------------------------------------------------------------------------------------------------------ */

static int is_closed(const Tree *t, const Node *node) {
    const Grow *g = t->g;
    const int64_t *sums = sums_of(t, node->id), count = count_of(g, sums);
    if (count < 2 || count < g->min_samples_split || count < 2 * g->min_samples_leaf) return 1;
    if (g->max_depth >= 0 && node->depth >= g->max_depth) return 1;
    if (!g->index) return 0;
    int64_t kinds = 0;
    for (int64_t c = 0; c < g->num_sums; c++) kinds += to_count(g, sums[c]) > 0;
    return kinds <= 1;
}

/* Rows that go left to the front, the others behind, without a branch. */
static int64_t part(Tree *t, const Node *node) {
    const Grow *g = t->g;
    const Best *best = &node->best;
    uint32_t *rows = t->rows + node->start, *spare = t->spare;
    const int64_t n = node->end - node->start;
    const int32_t missing = (int32_t)g->width - 1, code = best->code, with_missing = best->way == 1;
    int64_t left = 0, right = 0;
    if (is_category(g, best->feature)) {
        const uint8_t *column = g->narrow + best->feature * g->num_rows;
        for (int64_t i = 0; i < n; i++) {
            const uint32_t row = rows[i];
            const int32_t c = column[row];
            const int go = c == missing ? with_missing : (int)(best->subset[c >> 6] >> (c & 63) & 1);
            rows[left] = row, spare[right] = row;
            left += go, right += !go;
        }
    } else if (g->narrow) {
        const uint8_t *column = g->narrow + best->feature * g->num_rows;
        for (int64_t i = 0; i < n; i++) {
            const uint32_t row = rows[i];
            const int32_t c = column[row];
            const int go = (c <= code) | ((c == missing) & with_missing);
            rows[left] = row, spare[right] = row;
            left += go, right += !go;
        }
    } else {
        const int32_t *column = g->wide + best->feature * g->num_rows;
        for (int64_t i = 0; i < n; i++) {
            const uint32_t row = rows[i];
            const int32_t c = column[row];
            const int go = (c <= code) | ((c == missing) & with_missing);
            rows[left] = row, spare[right] = row;
            left += go, right += !go;
        }
    }
    memcpy(rows + left, spare, right * sizeof *rows);
    return left;
}

static void record(const Tree *t, const Node *node) {
    const Grow *g = t->g;
    const int64_t at = t->tree * g->capacity + node->id;
    g->feature[at] = -1, g->child[at] = -1, g->depth[at] = node->depth;
    g->gain[at] = 0, g->threshold[at] = 0, g->code[at] = 0, g->next_code[at] = -1, g->missing_left[at] = 0;
    if (g->subset) memset(g->subset + 4 * at, 0, 4 * sizeof *g->subset);
}

/* Give a node its children, whose histograms and splits are not looked at yet. */
static void split(Tree *t, Node *node, Node children[2]) {
    const Grow *g = t->g;
    const int64_t at = t->tree * g->capacity + node->id, S = g->num_sums;
    Best *best = &node->best;
    const int64_t *total = sums_of(t, node->id);
    const int32_t id = t->num_nodes;
    t->num_nodes += 2;
    int64_t *left = sums_of(t, id), *right = sums_of(t, id + 1);
    for (int64_t c = 0; c < S; c++) left[c] = best->left[c], right[c] = total[c] - best->left[c];
    double gain = score_of(g, left) + score_of(g, right) - score_of(g, total);
    g->feature[at] = best->feature, g->code[at] = best->code, g->next_code[at] = best->next, g->child[at] = id;
    g->gain[at] = gain > 0 ? gain : 0, g->threshold[at] = best->threshold;
    g->missing_left[at] = best->way == 2 ? 2 * count_of(g, left) > count_of(g, total) : best->way;
    if (is_category(g, best->feature)) memcpy(g->subset + 4 * at, best->subset, sizeof best->subset);
    const int64_t middle = node->start + part(t, node);
    children[0] = (Node){.start = node->start, .end = middle, .path = splitmix64(1, node->path), .id = id};
    children[1] = (Node){.start = middle, .end = node->end, .path = splitmix64(2, node->path), .id = id + 1};
    for (int side = 0; side < 2; side++) {
        Node *child = children + side;
        child->depth = node->depth + 1, child->low = node->low, child->high = node->high;
        record(t, child);
    }
    const int sign = g->monotone ? g->monotone[best->feature] : 0;
    if (sign) {
        double value = (value_of(g, left) + value_of(g, right)) / 2;
        children[sign > 0].low = value, children[sign < 0].high = value;
    }
}

static int is_good(const Tree *t, const Node *node) {
    const Grow *g = t->g;
    const Best *best = &node->best;
    if (best->gain == -INFINITY) return 0;
    if (g->min_gain <= 0) return 1;
    const int64_t S = g->num_sums, *total = sums_of(t, node->id);
    int64_t right[S];
    for (int64_t c = 0; c < S; c++) right[c] = total[c] - best->left[c];
    double gain = score_of(g, best->left) + score_of(g, right) - score_of(g, total);
    return (gain > 0 ? gain : 0) >= g->min_gain * t->root_weight;
}

typedef struct {
    Node *nodes;
    int64_t *lefts; /* room for the left sums of each, (capacity, S) */
    int64_t number, capacity;
} Queue;

/* Whether a comes before b, best first; nodes without a limit of leaves come as on a stack. */
static int before(const Grow *g, const Node *a, const Node *b) {
    if (g->max_leaf_nodes < 0) return a->order > b->order;
    return a->best.gain > b->best.gain || (a->best.gain == b->best.gain && a->order < b->order);
}

static void exchange(Node *a, Node *b) {
    Node swap = *a;
    *a = *b, *b = swap;
}

static int push(const Grow *g, Queue *q, const Node *node) {
    if (q->number == q->capacity) {
        int64_t capacity = 2 * q->capacity + 64;
        Node *nodes = realloc(q->nodes, capacity * sizeof *nodes);
        if (!nodes) return 1;
        q->nodes = nodes, q->capacity = capacity;
    }
    int64_t i = q->number++;
    q->nodes[i] = *node;
    q->nodes[i].best.left = malloc(g->num_sums * sizeof(int64_t));
    if (!q->nodes[i].best.left) return q->number--, 1;
    memcpy(q->nodes[i].best.left, node->best.left, g->num_sums * sizeof(int64_t));
    if (g->max_leaf_nodes < 0) return 0; /* a stack */
    for (; i && before(g, q->nodes + i, q->nodes + (i - 1) / 2); i = (i - 1) / 2) exchange(q->nodes + i, q->nodes + (i - 1) / 2);
    return 0;
}

static Node pop(const Grow *g, Queue *q) {
    if (g->max_leaf_nodes < 0) return q->nodes[--q->number];
    Node top = q->nodes[0];
    q->nodes[0] = q->nodes[--q->number];
    for (int64_t i = 0, child; (child = 2 * i + 1) < q->number; i = child) {
        if (child + 1 < q->number && before(g, q->nodes + child + 1, q->nodes + child)) child++;
        if (!before(g, q->nodes + child, q->nodes + i)) break;
        exchange(q->nodes + i, q->nodes + child);
    }
    return top;
}

static void settle_leaf(const Tree *t, const Node *node) {
    if (!t->g->leaf) return;
    int32_t *leaf = t->g->leaf + t->tree * t->g->num_rows;
    for (int64_t i = node->start; i < node->end; i++) leaf[t->rows[i]] = node->id;
}

static void start_rows(Tree *t) {
    const Grow *g = t->g;
    const int64_t N = g->num_rows, S = g->num_sums, K = S - 1;
    int64_t *sums = sums_of(t, 0), number = 0;
    memset(sums, 0, S * sizeof *sums);
    for (int64_t row = 0; row < N; row++) {
        const int64_t factor = g->content ? poisson_weight(g, t->tree, row) : 1;
        const int64_t weight = g->weight[row], here = weight > 0 && factor > 0;
        const int64_t packed = ((weight * factor) << g->count_bits) + here;
        t->weight[row] = here ? packed : 0;
        if (t->factor) t->factor[row] = factor;
        t->rows[number] = (uint32_t)row;
        number += here;
        if (!here) continue;
        if (g->index) {
            sums[g->index[row]] += packed;
            continue;
        }
        sums[0] += packed;
        for (int64_t k = 0; k < K; k++) sums[k + 1] += g->gradient[row * K + k] * factor;
        if (t->pairs) t->pairs[2 * row] = packed, t->pairs[2 * row + 1] = g->gradient[row] * factor;
    }
    t->num_rows = number;
}

static int grow_tree(Tree *t) {
    const Grow *g = t->g;
    const int64_t S = g->num_sums;
    const int keeps = g->narrow && g->max_features == g->num_features && !g->random_thresholds &&
                      g->num_features * g->width * S <= KEPT_NUMBERS;
    start_rows(t);
    t->num_nodes = 1, t->pooled = 0;
    t->root_weight = weight_of(g, sums_of(t, 0));
    int64_t room[3 * S];
    Queue queue = {0};
    Node node = {.start = 0, .end = t->num_rows, .path = g->path[t->tree], .low = -INFINITY, .high = INFINITY}, children[2];
    node.best.left = room;
    record(t, &node);
    int failed = 0;
    int64_t leaves = 1, order = 0;
    if (t->num_rows && !is_closed(t, &node)) {
        if (keeps)
            failed = count_and_find(t, &node, 0, 0);
        else
            find_split(t, &node);
        if (!failed && is_good(t, &node))
            failed = push(g, &queue, &node);
        else {
            settle_leaf(t, &node);
            give_histogram(t, node.histogram);
        }
    } else
        settle_leaf(t, &node);
    while (queue.number && !failed) {
        node = pop(g, &queue);
        if (g->max_leaf_nodes >= 0 && leaves >= g->max_leaf_nodes) {
            settle_leaf(t, &node);
            give_histogram(t, node.histogram);
            free(node.best.left);
            continue;
        }
        leaves++;
        split(t, &node, children);
        free(node.best.left);
        const int last = g->max_leaf_nodes >= 0 && leaves >= g->max_leaf_nodes;
        for (int side = 0; side < 2; side++) {
            children[side].best.left = room + (1 + side) * S;
            forget(&children[side].best);
            children[side].closed = last || is_closed(t, children + side);
        }
        const int small = children[1].end - children[1].start < children[0].end - children[0].start;
        Node *little = children + small, *big = children + !small;
        /* Of a few rows a histogram over all bins costs more than it saves. */
        const int counted = node.histogram && !(children[0].closed && children[1].closed) && big->end - big->start >= g->width;
        if (counted)
            failed = count_and_find(t, little, big, node.histogram);
        else
            give_histogram(t, node.histogram);
        for (int side = 0; side < 2; side++) { /* the left one first: its order breaks ties */
            Node *child = children + side;
            child->order = ++order;
            if (!failed && !child->closed) {
                if (!counted) find_split(t, child);
                if (is_good(t, child)) {
                    if (child->histogram && child->end - child->start < g->width) /* its children count few rows */
                        give_histogram(t, child->histogram), child->histogram = 0;
                    failed = push(g, &queue, child);
                    continue;
                }
            }
            settle_leaf(t, child);
            give_histogram(t, child->histogram);
        }
    }
    for (int64_t i = 0; i < queue.number; i++) free(queue.nodes[i].best.left), free(queue.nodes[i].histogram);
    free(queue.nodes);
    while (t->pooled) free(t->pool[--t->pooled]);
    g->num_nodes[t->tree] = t->num_nodes;
    return failed;
}

/* -- memory -------------------------------------------------------------------------------------------------------- */

static void *carve(char **at, int64_t bytes) {
    void *here = *at;
    if (*at) *at += (bytes + 63) / 64 * 64;
    return here;
}

/* The parts of a scratch, of which the first also holds what a node's rows add; returns the bytes. */
static int64_t lay_out(const Grow *g, Scratch *s, char *base, int holds_rows) {
    const int64_t S = g->num_sums, N = g->num_rows, F = g->num_features;
    const int64_t sizes[] = {S * BLOCK * 8, S * 8, (g->narrow ? g->width : 1) * S * 8, S * 8, S * 8, F * 4, F * 8,
                             holds_rows ? N * 8 : 0, holds_rows && g->index ? N * 4 : 0,
                             holds_rows && !g->index ? N * (S - 1) * 8 : 0, g->wide ? N * 8 : 0, g->wide ? N * 8 : 0};
    int64_t bytes = 64;
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) bytes += (sizes[i] + 63) / 64 * 64;
    if (!base) return bytes;
    char *at = (char *)(((uintptr_t)base + 63) / 64 * 64);
    s->run = carve(&at, sizes[0]), s->missing = carve(&at, sizes[1]), s->histogram = carve(&at, sizes[2]);
    s->left = carve(&at, sizes[3]), s->best.left = carve(&at, sizes[4]), s->drawn = carve(&at, sizes[5]);
    s->hashes = carve(&at, sizes[6]), s->amount = carve(&at, sizes[7]), s->index = carve(&at, sizes[8]);
    s->gradient = carve(&at, sizes[9]), s->keys = carve(&at, sizes[10]), s->other = carve(&at, sizes[11]);
    memset(s->histogram, 0, sizes[2]);
    return bytes;
}

static int make_tree(const Grow *g, Tree *t, int threads) {
    const int64_t N = g->num_rows;
    *t = (Tree){.g = g, .num_threads = threads};
    t->scratch = calloc(threads, sizeof *t->scratch);
    t->rows = malloc(N * sizeof *t->rows), t->spare = malloc(N * sizeof *t->spare);
    t->weight = malloc(N * sizeof *t->weight);
    if (g->content && !g->index) t->factor = malloc(N * sizeof *t->factor);
    if (!g->index && g->num_sums == 2 && g->narrow) t->pairs = aligned_alloc(64, (N * 16 + 63) / 64 * 64);
    if (!t->scratch || !t->rows || !t->spare || !t->weight || (g->content && !g->index && !t->factor)) return 1;
    for (int i = 0; i < threads; i++) {
        Scratch *s = t->scratch + i;
        s->memory = malloc(lay_out(g, 0, 0, i == 0));
        if (!s->memory) return 1;
        lay_out(g, s, s->memory, i == 0);
    }
    return 0;
}

static void free_tree(Tree *t) {
    for (int i = 0; t->scratch && i < t->num_threads; i++) free(t->scratch[i].memory);
    free(t->scratch), free(t->rows), free(t->spare), free(t->weight), free(t->factor), free(t->pairs);
}

KERNEL(grow_trees, Grow) {
    const Grow *g = task;
    int threads = (int)g->threads, failed = 0;
    if (g->num_trees == 1) {
        Tree tree;
        failed = make_tree(g, &tree, threads) || grow_tree(&tree);
        free_tree(&tree);
        return failed;
    }
    if (threads > g->num_trees) threads = (int)g->num_trees;
    int64_t next = 0;
#pragma omp parallel for num_threads(threads) schedule(static, 1) reduction(|| : failed) if (threads > 1)
    for (int i = 0; i < threads; i++) {
        Tree tree;
        failed = make_tree(g, &tree, 1);
        while (!failed) {
            int64_t mine = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED);
            if (mine >= g->num_trees) break;
            tree.tree = mine;
            failed = grow_tree(&tree);
        }
        free_tree(&tree);
    }
    return failed;
}

/* -- codes of values ------------------------------------------------------------------------------------------------- */

typedef struct {
    int64_t num_rows, num_features, num_edges, missing, threads;
    const double *x;      /* (N, F) */
    const double *edges;  /* (F, E), ascending */
    const int64_t *count; /* edges of each feature, (F) */
    uint8_t *narrow, *narrow_rows; /* (F, N) and (N, F), or null */
    int32_t *wide;                 /* (F, N), or null */
} Encode;

/* The number of edges below a value, without a branch; that of missing values for NaN. */
INLINE int64_t code_of(double value, const double *edges, int64_t count, int64_t missing) {
    int64_t low = 0;
    for (int64_t rest = count; rest > 0;) {
        const int64_t half = (rest + 1) / 2;
        low += edges[low + half - 1] < value ? half : 0;
        rest -= half;
    }
    return value != value ? missing : low;
}

KERNEL(encode_rows, Encode) {
    enum { ROWS = 512 };
    const Encode *e = task;
    const int64_t N = e->num_rows, F = e->num_features, blocks = (N + ROWS - 1) / ROWS;
#pragma omp parallel for num_threads(e->threads) schedule(static) if (e->threads > 1)
    for (int64_t block = 0; block < blocks; block++) {
        const int64_t start = block * ROWS, end = least(N, start + ROWS);
        for (int64_t f = 0; f < F; f++) {
            const double *edges = e->edges + f * e->num_edges;
            for (int64_t row = start; row < end; row++) {
                const int64_t code = code_of(e->x[row * F + f], edges, e->count[f], e->missing);
                if (e->wide) {
                    e->wide[f * N + row] = (int32_t)code;
                    continue;
                }
                e->narrow[f * N + row] = (uint8_t)code;
                e->narrow_rows[row * F + f] = (uint8_t)code;
            }
        }
    }
    return 0;
}
