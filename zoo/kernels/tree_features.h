/* The best split of one feature of one node, from the sums of its cells: those of a histogram, of categories in the order
   of what they predict, of sorted rows, or of the two sides of a drawn threshold. */

#pragma once
#include "tree_gains.h"

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
    if (f->g->criterion == ABSOLUTE)
        for (int64_t p = 0; p < s->num_present; p++) {
            const int64_t c = s->present[p];
            s->run[c * BLOCK + i] = s->left[c] += sums[c];
        }
    else if (S == 2)
        s->run[i] = s->left[0] += sums[0], s->run[BLOCK + i] = s->left[1] += sums[1];
    else
        for (int64_t c = 0; c < S; c++) s->run[c * BLOCK + i] = s->left[c] += sums[c];
    if (f->filled == BLOCK) {
        look(f->g, s, BLOCK, f->node, f->total, f->parent, f->feature, f->has_missing, NAN);
        f->filled = 0;
    }
}

static Feature begin(const Grow *g, Scratch *s, const Node *node, const int64_t *total, double parent, int32_t feature) {
    memset(s->left, 0, g->num_sums * sizeof *s->left);
    memset(s->missing, 0, g->num_sums * sizeof *s->missing);
    s->num_present = 0;
    for (int64_t c = 0; g->criterion == ABSOLUTE && c < g->num_sums; c++)
        if (total[c]) s->present[s->num_present++] = (int32_t)c;
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

/* All cells of weights and gradients in one block, without a branch on what is empty, and without those that leave too
   few rows on the left; behind the first that leaves too few on the right nothing is split. */
static void cells_of_pairs(Feature *f, const int64_t *histogram) {
    const Grow *g = f->g;
    const int64_t most = to_count(g, f->total[0]) - g->min_samples_leaf, missing = g->width - 1;
    int64_t *weight = f->s->run, *gradient = weight + BLOCK, filled = 0;
    int64_t left = 0, slope = 0;
    for (int64_t code = 0; code < missing; code++) {
        const int64_t here = histogram[2 * code];
        left += here, slope += histogram[2 * code + 1];
        const int64_t count = to_count(g, left);
        f->s->codes[filled] = (int32_t)code, weight[filled] = left, gradient[filled] = slope;
        filled += (here != 0) & (count >= g->min_samples_leaf);
        if (count > most) break;
    }
    f->filled = filled;
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
    if (S == 2 && !g->index && !f->has_missing && missing <= BLOCK)
        cells_of_pairs(f, histogram);
    else
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
    else if (S == 2)
        for (int64_t i = 0; i < n; i++) {
            uint8_t code = column[rows[i]];
            histogram[code * 2] += s->amount[i], histogram[code * 2 + 1] += s->gradient[i];
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

/* -- which features, and the best of them -------------------------------------------------------------------------- */

static void forget(Best *best) { best->gain = -INFINITY, best->feature = -1, best->pending = 0; }

static void take(const Grow *g, Best *to, const Best *from) {
    int64_t *left = to->left;
    *to = *from;
    to->left = left;
    memcpy(left, from->left, g->num_sums * sizeof *left);
}

static void hash_features(const Grow *g, Scratch *s, int64_t path) {
    for (int64_t f = 0; f < g->num_features; f++) s->hashes[f] = splitmix64(0xFEA7, path + f);
}

/* The features whose hashes come next, the last feature first. */
static int64_t draw(const Grow *g, Scratch *s, int64_t path, int64_t turn) {
    const int64_t F = g->num_features, J = g->max_features;
    if (!turn) hash_features(g, s, path);
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
