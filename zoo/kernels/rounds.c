/* A round of boosting: a tree for each output on the derivatives of its loss, and the outputs grown by its leaves.

   What zoo/models/trees/boosting.py does in torch operations, but for the predicted means, which come from torch.

   Letters: N rows, K outputs, S = 2 sums, C nodes of a tree at most. */

#include "boosting.h"
#include "tree_gains.h"

int grow_trees(const Grow *task);

typedef struct {
    const Grow *trees;   /* of all rounds, with room for each; weights, gradients and leaves are those of one tree */
    int64_t first, outputs, loss; /* the first tree of this round; K */
    double learning_rate;
    const double *mean;  /* what the outputs predict, (K, N) */
    const double *y;     /* targets, (K, N): of more than two classes 1 where a row has the class, else 0 */
    const double *train; /* weights of the derivatives, (N) */
    const double *weight; /* of the losses, (N) */
    const uint8_t *held_out; /* (N), or null */
    double *output;      /* (N, K), grown in place */
    double *units;       /* of weights and gradients of each tree, (T, 2); out */
    double *sums;        /* losses of each block of rows, of one output, (B, 2); out */
    /* room: */
    int64_t *fixed_weight, *fixed_gradient, *leaf; /* (N) */
    double *largest, *value;                       /* (threads, 2), (C) */
} Round;

/* The power of two above a value; 1 for 0. */
static double power_above(double value) {
    int exponent;
    if (!(value > 0)) return 1;
    frexp(value, &exponent);
    return ldexp(1, exponent < -1022 ? -1022 : exponent > 1023 ? 1023 : exponent);
}

/* What is 1 of numbers up to `most`, whose sums have so many bits. */
static double unit_of(int64_t bits, double most) {
    int exponent;
    frexp(most, &exponent);
    return ldexp(1, bits - exponent < 1000 ? (int)(bits - exponent) : 1000);
}

/* The derivatives of one output as integers, in units that are written to the tree's struct. */
static void derive(const Round *r, int64_t output, Grow *tree) {
    const int64_t N = tree->num_rows, bits = tree->count_bits;
    const int threads = (int)tree->threads;
    Derive d = {.rows = N, .loss = r->loss, .threads = threads, .weight_unit = 1, .gradient_unit = 1,
                .mean = r->mean + output * N, .y = r->y + output * N, .weight = r->train, .largest = r->largest,
                .fixed_weight = r->fixed_weight, .fixed_gradient = r->fixed_gradient};
    largest_derivatives(&d);
    double bend = 0, gradient = 0;
    for (int t = 0; t < threads; t++) {
        bend = r->largest[2 * t] > bend ? r->largest[2 * t] : bend;
        gradient = r->largest[2 * t + 1] > gradient ? r->largest[2 * t + 1] : gradient;
    }
    bend = power_above(bend);
    d.weight_unit = tree->weight_unit = unit_of(62 - 2 * bits, bend > 1 ? bend : 1);
    d.gradient_unit = tree->gradient_unit = unit_of(62 - bits, power_above(gradient));
    fixed_derivatives(&d);
}

/* The tree of one output, in the room that is its own among those of all rounds. */
static int grow_one(const Round *r, int64_t output, Grow *tree) {
    const int64_t number = r->first + output, at = number * tree->capacity;
    tree->num_trees = 1, tree->path += number, tree->num_nodes += number;
    tree->weight = r->fixed_weight, tree->gradient = r->fixed_gradient;
    tree->feature += at, tree->code += at, tree->next_code += at, tree->child += at, tree->depth += at;
    tree->missing_left += at, tree->gain += at, tree->threshold += at, tree->sums += at * tree->num_sums;
    if (tree->subset) tree->subset += 4 * at;
    derive(r, output, tree);
    r->units[2 * number] = tree->weight_unit, r->units[2 * number + 1] = tree->gradient_unit;
    if (grow_trees(tree)) return 1;
    for (int64_t node = 0; node < *tree->num_nodes; node++)
        r->value[node] = value_of(tree, tree->sums + node * tree->num_sums) * r->learning_rate;
    return 0;
}

KERNEL(boost_round, Round) {
    const Round *r = task;
    const int64_t N = r->trees->num_rows, K = r->outputs;
    for (int64_t k = 0; k < K; k++) {
        Grow tree = *r->trees;
        if (grow_one(r, k, &tree)) return 1;
        for (int64_t i = 0; i < N; i++) r->leaf[i] = tree.leaf[i];
        if (K == 1) {
            const Step step = {.rows = N, .loss = r->loss, .threads = tree.threads, .output = r->output, .y = r->y,
                               .weight = r->weight, .leaf = r->leaf, .value = r->value, .held_out = r->held_out,
                               .after = r->output, .sums = r->sums};
            return add_leaves(&step);
        }
        for (int64_t i = 0; i < N; i++) r->output[i * K + k] += r->value[r->leaf[i]];
    }
    return 0;
}
