/* Grown trees as they are kept: one after the other, each level by level, the left child before the right one. */

#include "tree_gains.h"

typedef struct {
    const Grow *grown;
    /* what comes out, M nodes of all trees together: */
    int64_t *root;                   /* (T) */
    int64_t *feature, *left, *depth; /* (M); feature and left -1 at a leaf, the right child stands behind the left one */
    double *threshold, *gain;        /* (M); 0 at a leaf */
    uint8_t *missing_left;           /* (M) */
    uint8_t *subset;                 /* whether each code goes left, (M, W - 1), or null */
    int64_t *sums;                   /* (M, S) */
    int64_t *leaf;                   /* of each row, (T, N), or null */
} Order;

/* The middle of two values, or the lower one where floating point has nothing between them. */
static double middle_of(double low, double high) {
    const double middle = low / 2 + high / 2;
    return middle >= low && middle < high ? middle : low;
}

/* `node` of the tree that begins at `from` comes to the place `to`, its left child to `left`. */
static void put(const Order *o, int64_t from, int64_t node, int64_t to, int64_t left) {
    const Grow *g = o->grown;
    const int64_t at = from + node, S = g->num_sums, bins = g->width - 1;
    const int inner = left >= 0;
    o->feature[to] = g->feature[at], o->left[to] = left, o->depth[to] = g->depth[at];
    o->missing_left[to] = inner && g->missing_left[at];
    o->gain[to] = inner ? g->gain[at] : 0;
    o->threshold[to] = 0;
    if (inner) {
        const int64_t row = g->feature[at] * bins;
        const double drawn = g->threshold[at];
        const int32_t next = g->next_code[at];
        o->threshold[to] = drawn == drawn ? drawn
                           : next < 0     ? INFINITY
                                          : middle_of(g->upper[row + g->code[at]], g->lower[row + next]);
    }
    for (int64_t c = 0; c < S; c++) o->sums[to * S + c] = g->sums[at * S + c];
    for (int64_t code = 0; o->subset && code < bins; code++)
        o->subset[to * bins + code] = inner && (g->subset[4 * at + (code >> 6)] >> (code & 63) & 1);
}

KERNEL(order_trees, Order) {
    const Order *o = task;
    const Grow *g = o->grown;
    int64_t most = 1, start = 0;
    for (int64_t tree = 0; tree < g->num_trees; tree++) most = g->num_nodes[tree] > most ? g->num_nodes[tree] : most;
    int64_t *nodes = malloc(most * sizeof *nodes), *places = malloc(most * sizeof *places);
    const int failed = !nodes || !places;
    for (int64_t tree = 0; tree < g->num_trees && !failed; tree++) {
        const int64_t from = tree * g->capacity;
        int64_t number = 1;
        nodes[0] = 0, o->root[tree] = start;
        for (int64_t i = 0; i < number; i++) { /* a level is behind the one before */
            const int64_t child = g->child[from + nodes[i]];
            put(o, from, nodes[i], start + i, child < 0 ? -1 : start + number);
            places[nodes[i]] = start + i;
            if (child >= 0) nodes[number++] = child, nodes[number++] = child + 1;
        }
        for (int64_t row = tree * g->num_rows; o->leaf && row < (tree + 1) * g->num_rows; row++)
            o->leaf[row] = places[g->leaf[row]];
        start += number;
    }
    free(nodes), free(places);
    return failed;
}
