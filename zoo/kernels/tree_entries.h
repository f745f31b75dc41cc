/* The best split of a node whose rows store few codes, as the words of a text: what a row does not store has the code of
   zero, and the sums of those rows are what the others leave of the node's.

   A node of few rows is looked at row by row: what they store is grouped by feature, and only features that are among it
   can part the rows. A node of many rows is looked at column by column, those of the features that it draws. Either way
   the features are visited, and their cells come, in the order that they have where all codes are there. */

#pragma once
#include "tree_features.h"

/* What a row adds to the sums of its cell. */
INLINE void add_drawn_row(const Tree *t, int64_t row, int64_t *sums) {
    const Grow *g = t->g;
    if (g->index) {
        sums[g->index[row]] += t->weight[row];
        return;
    }
    const int64_t K = g->num_sums - 1, factor = t->factor ? t->factor[row] : 1;
    sums[0] += t->weight[row];
    for (int64_t k = 0; k < K; k++) sums[k + 1] += g->gradient[row * K + k] * factor;
}

/* The cells of a feature that m rows of the node store, as keys of code and row. */
static void by_entries(Feature *f, const Tree *t, uint64_t *keys, int64_t m) {
    const Grow *g = f->g;
    Scratch *s = f->s;
    const int64_t S = g->num_sums, n = f->node->end - f->node->start;
    const uint64_t missing = (uint64_t)g->width - 1, zero = (uint64_t)g->zero_code[f->feature];
    int64_t *sums = s->histogram, *rest = s->rest; /* of a cell, and of the rows that store nothing */
    uint64_t all = 0;
    memset(rest, 0, S * sizeof *rest);
    for (int64_t i = 0; i < m; i++) {
        const int64_t row = (int64_t)(keys[i] & 0xFFFFFFFF);
        add_drawn_row(t, row, rest);
        all |= keys[i] >> 32;
        if (keys[i] >> 32 == missing) add_drawn_row(t, row, s->missing), f->has_missing = 1;
    }
    for (int64_t c = 0; c < S; c++) rest[c] = f->total[c] - rest[c];
    const uint64_t *sorted = sort(keys, s->other, m, all ? 64 - __builtin_clzll(all) : 1);
    int waits = m < n; /* the rows that store nothing */
    for (int64_t i = 0; i < m;) {
        const uint64_t code = sorted[i] >> 32;
        if (code == missing) break;
        if (waits && zero < code) next_cell(f, (int32_t)zero, rest), waits = 0;
        for (; i < m && sorted[i] >> 32 == code; i++) add_drawn_row(t, (int64_t)(sorted[i] & 0xFFFFFFFF), sums);
        next_cell(f, (int32_t)code, sums);
        memset(sums, 0, S * sizeof *sums);
    }
    if (waits) next_cell(f, (int32_t)zero, rest);
    finish(f);
}

/* Group what the rows of a node store by feature; returns how many features there are, in `found`, each with its keys from
   `starts` to `ends`. */
static int64_t group_entries(const Tree *t, Scratch *s, const Node *node) {
    const Grow *g = t->g;
    int64_t number = 0, place = 0;
    for (int64_t i = node->start; i < node->end; i++) {
        const int64_t row = t->rows[i], end = g->row_starts[row + 1];
        for (int64_t e = g->row_starts[row]; e < end; e++) {
            const int32_t feature = g->row_features[e];
            if (!s->ends[feature]++) s->found[number++] = feature;
        }
    }
    for (int64_t v = 0; v < number; v++) {
        const int32_t feature = s->found[v];
        const int64_t here = s->ends[feature];
        s->starts[feature] = s->ends[feature] = place, place += here;
    }
    for (int64_t i = node->start; i < node->end; i++) {
        const int64_t row = t->rows[i], end = g->row_starts[row + 1];
        for (int64_t e = g->row_starts[row]; e < end; e++)
            s->keys[s->ends[g->row_features[e]]++] = (uint64_t)g->row_codes[e] << 32 | (uint64_t)row;
    }
    return number;
}

static void look_at_group(const Tree *t, Scratch *s, const Node *node, const int64_t *total, double parent, int32_t feature) {
    Feature f = begin(t->g, s, node, total, parent, feature);
    by_entries(&f, t, s->keys + s->starts[feature], s->ends[feature] - s->starts[feature]);
}

/* How many features come before a hash in the order of a node's draws. */
static int64_t rank_of(const Scratch *s, int64_t num_features, int64_t hash) {
    int64_t rank = 0;
    for (int64_t f = 0; f < num_features; f++) rank += s->hashes[f] < hash;
    return rank;
}

/* Of the `number` features that are left in `found`, those of the first turn that has any of them, the last one first. */
static int64_t next_turn(const Grow *g, Scratch *s, int64_t *number) {
    const int64_t F = g->num_features, J = g->max_features;
    int64_t drawn = 0, end = 0;
    while (*number) {
        int64_t first = 0;
        for (int64_t v = 1; v < *number; v++)
            if (s->hashes[s->found[v]] < s->hashes[s->found[first]]) first = v;
        const int32_t feature = s->found[first];
        const int64_t rank = rank_of(s, F, s->hashes[feature]);
        if (drawn && rank >= end) break;
        end = (rank / J + 1) * J;
        s->found[first] = s->found[--*number];
        int64_t i = drawn++;
        for (; i && s->drawn[i - 1] < feature; i--) s->drawn[i] = s->drawn[i - 1];
        s->drawn[i] = feature;
    }
    return drawn;
}

static void find_by_rows(Tree *t, Scratch *s, const Node *node, const int64_t *total, double parent) {
    const Grow *g = t->g;
    const int64_t F = g->num_features, number = group_entries(t, s, node);
    memcpy(s->all, s->found, number * sizeof *s->found); /* to be forgotten at the end */
    if (g->max_features == F) {
        for (int64_t f = F - 1; f >= 0; f--)
            if (s->ends[f]) look_at_group(t, s, node, total, parent, (int32_t)f);
    } else {
        hash_features(g, s, node->path);
        for (int64_t left = number; left && s->best.gain == -INFINITY;) {
            const int64_t drawn = next_turn(g, s, &left);
            for (int64_t j = 0; j < drawn; j++) look_at_group(t, s, node, total, parent, s->drawn[j]);
        }
    }
    for (int64_t v = 0; v < number; v++) s->ends[s->all[v]] = 0;
}

/* Look at the first features that the node draws. */
static void find_by_columns(Tree *t, Scratch *s, const Node *node, const int64_t *total, double parent) {
    const Grow *g = t->g;
    const uint32_t start = (uint32_t)node->start, n = (uint32_t)(node->end - node->start);
    const int64_t J = draw(g, s, node->path, 0);
    for (int64_t j = 0; j < J; j++) {
        const int32_t feature = s->drawn[j];
        int64_t m = 0;
        for (int64_t e = g->column_starts[feature]; e < g->column_starts[feature + 1]; e++) {
            const uint32_t row = (uint32_t)g->column_rows[e];
            s->keys[m] = (uint64_t)g->column_codes[e] << 32 | row;
            m += t->position[row] - start < n;
        }
        if (!m) continue; /* all rows are in one cell */
        Feature f = begin(g, s, node, total, parent, feature);
        by_entries(&f, t, s->keys, m);
    }
}

static void find_among_entries(Tree *t, Node *node, const int64_t *total) {
    const Grow *g = t->g;
    Scratch *s = t->scratch;
    const double parent = score_of(g, total), F = (double)g->num_features, J = (double)g->max_features;
    forget(&node->best), forget(&s->best);
    /* What the rows, and the columns of a draw, store: about as much each. Either way all features are hashed. */
    const double entries = (double)g->row_starts[g->num_rows], by_columns = entries * J / F;
    const double by_rows = entries * (double)(node->end - node->start) / (double)g->num_rows;
    if (J < F && by_rows > 2 * by_columns && by_rows > F) find_by_columns(t, s, node, total, parent);
    if (s->best.gain == -INFINITY) find_by_rows(t, s, node, total, parent);
    if (s->best.gain > -INFINITY) take(g, &node->best, &s->best);
}

/* Rows that go left to the front, the others behind, each row's position noted; returns how many go left. */
static int64_t part_entries(Tree *t, const Node *node) {
    const Grow *g = t->g;
    const Best *best = &node->best;
    const int32_t missing = (int32_t)g->width - 1, code = best->code, with_missing = best->way == 1;
    const uint8_t others = g->zero_code[best->feature] <= code;
    const int64_t from = g->column_starts[best->feature], to = g->column_starts[best->feature + 1];
    for (int64_t e = from; e < to; e++) {
        const int32_t c = g->column_codes[e];
        t->turns[g->column_rows[e]] = 2 | (uint8_t)((c <= code) | ((c == missing) & with_missing));
    }
    uint32_t *rows = t->rows + node->start, *spare = t->spare;
    const int64_t n = node->end - node->start;
    int64_t left = 0, right = 0;
    for (int64_t i = 0; i < n; i++) {
        const uint32_t row = rows[i];
        const uint8_t turn = t->turns[row], go = turn & 2 ? turn & 1 : others;
        rows[left] = row, spare[right] = row;
        left += go, right += !go;
    }
    memcpy(rows + left, spare, right * sizeof *rows);
    for (int64_t i = 0; i < n; i++) t->position[rows[i]] = (uint32_t)(node->start + i);
    for (int64_t e = from; e < to; e++) t->turns[g->column_rows[e]] = 0;
    return left;
}
