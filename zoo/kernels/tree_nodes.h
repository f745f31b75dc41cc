/* The best split of one node: the features that it looks at, shared among threads, and histograms over all of them. */

#pragma once
#include "tree_entries.h"

/* -- one node ------------------------------------------------------------------------------------------------------ */

static int64_t *sums_of(const Tree *t, int32_t node) {
    return t->g->sums + (t->tree * t->g->capacity + node) * t->g->num_sums;
}

/* Whether two best splits of the same node are in this order; features are visited from the last to the first. */
static int better(const Best *a, const Best *b) {
    return a->gain > b->gain || (a->gain == b->gain && a->gain > -INFINITY && a->feature > b->feature);
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
    if (g->row_starts) {
        find_among_entries(t, node, total);
        return;
    }
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
        for (int c = 0; c < 2; c++) {
            if (!both[c] || both[c]->closed) continue;
            forget(&s->best);
            for (int64_t f = to - 1; f >= from; f--) {
                int64_t *cells = both[c]->histogram + f * size;
                if (c) /* what is left of the parent */
                    for (int64_t k = 0; k < size; k++) cells[k] -= small->histogram[f * size + k];
                look_at_feature(t, s, both[c], sums_of(t, both[c]->id), parents[c], (int32_t)f);
            }
#pragma omp critical(zoo_trees)
            if (better(&s->best, &both[c]->best)) take(g, &both[c]->best, &s->best);
        }
    }
    return 0;
}
