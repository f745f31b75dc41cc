/* The leaf that each row comes to in each tree. */

#include "kernel.h"

typedef struct {
    int64_t num_rows, num_features, num_trees, num_nodes, threads;
    const double *x;      /* (N, F); null where the rows are of float, or sparse */
    const float *single;  /* (N, F) */
    const int64_t *starts, *columns; /* or sparse rows: where each begins, (N + 1), and the feature of each value, (M) */
    const double *values; /* (M) */
    const int64_t *root;  /* (T) */
    const int64_t *feature, *left; /* of the nodes; left -1 at a leaf, the right child stands behind the left one */
    const double *threshold;
    const uint8_t *missing_left;
    int64_t *leaf; /* (T, N) */
} Walk;

enum { NUMBERS = 1 << 15, TOGETHER = 4 }; /* numbers of rows that stay in the cache; rows that are walked side by side */

static const uint32_t MISSING_LEFT = 1u << 31;

/* A node with all that a step needs side by side. */
typedef struct {
    double threshold;
    uint32_t feature; /* and whether missing values go left */
    int32_t left;     /* -1 at a leaf */
} Node;

static Node *pack(const Walk *w) {
    Node *nodes = malloc((w->num_nodes ? w->num_nodes : 1) * sizeof *nodes);
    for (int64_t i = 0; nodes && i < w->num_nodes; i++) {
        const int64_t left = w->left[i];
        const uint32_t feature = left < 0 ? 0 : (uint32_t)w->feature[i];
        nodes[i] = (Node){w->threshold[i], feature | (w->missing_left[i] ? MISSING_LEFT : 0), (int32_t)left};
    }
    return nodes;
}

/* Walk rows [start, end), of which each begins `stride` numbers behind the one before; a row that has come to its leaf
   stays there until its neighbours have, too. */
#define WALK(name, type)                                                                                               \
    static void name(const Walk *w, const Node *nodes, const type *x, int64_t stride, int64_t start, int64_t end) {   \
        for (int64_t tree = 0; tree < w->num_trees; tree++)                                                            \
            for (int64_t first = start; first < end; first += TOGETHER) {                                              \
                const type *row[TOGETHER];                                                                             \
                int64_t at[TOGETHER], moved;                                                                           \
                for (int k = 0; k < TOGETHER; k++) {                                                                   \
                    row[k] = x + (least(first + k, end - 1) - start) * stride;                                         \
                    at[k] = w->root[tree];                                                                             \
                }                                                                                                      \
                do {                                                                                                   \
                    moved = 0;                                                                                         \
                    for (int k = 0; k < TOGETHER; k++) {                                                               \
                        const Node node = nodes[at[k]];                                                                \
                        const double value = row[k][node.feature & ~MISSING_LEFT];                                     \
                        const int left = (value <= node.threshold) | ((value != value) & (node.feature >> 31));        \
                        const int64_t next = node.left < 0 ? at[k] : node.left + !left;                                \
                        moved |= next ^ at[k], at[k] = next;                                                           \
                    }                                                                                                  \
                } while (moved);                                                                                       \
                for (int64_t k = 0; k < TOGETHER && first + k < end; k++) w->leaf[tree * w->num_rows + first + k] = at[k]; \
            }                                                                                                          \
    }

WALK(walk, double)
WALK(walk_single, float)

/* Sparse rows get their zeros for as long as they are walked. */
static void walk_sparse(const Walk *w, const Node *nodes, int64_t start, int64_t end, double *dense) {
    const int64_t F = w->num_features;
    for (int64_t row = start; row < end; row++)
        for (int64_t e = w->starts[row]; e < w->starts[row + 1]; e++) dense[(row - start) * F + w->columns[e]] = w->values[e];
    walk(w, nodes, dense, F, start, end);
    for (int64_t row = start; row < end; row++)
        for (int64_t e = w->starts[row]; e < w->starts[row + 1]; e++) dense[(row - start) * F + w->columns[e]] = 0;
}

KERNEL(find_leaves, Walk) {
    const Walk *w = task;
    const int64_t N = w->num_rows, F = w->num_features;
    const int64_t size = TOGETHER * (1 + NUMBERS / TOGETHER / (F ? F : 1)), blocks = (N + size - 1) / size;
    Node *nodes = pack(w);
    int failed = !nodes;
#pragma omp parallel num_threads(w->threads) reduction(|| : failed) if (w->threads > 1)
    {
        double *dense = w->starts ? calloc(size * F + 1, sizeof *dense) : 0;
        const int lacks = !nodes || (w->starts && !dense);
#pragma omp for schedule(static)
        for (int64_t block = 0; block < blocks; block++) {
            const int64_t start = block * size, end = least(N, start + size);
            if (lacks)
                failed = 1;
            else if (w->starts)
                walk_sparse(w, nodes, start, end, dense);
            else if (w->x)
                walk(w, nodes, w->x + start * F, F, start, end);
            else
                walk_single(w, nodes, w->single + start * F, F, start, end);
        }
        free(dense);
    }
    free(nodes);
    return failed;
}
