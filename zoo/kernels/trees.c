/* Trees grown on coded rows in memory: what zoo/models/trees/in_memory.py does pass by pass, node by node.

   Both give the same trees: sums are integers, features are visited from the last to the first, gains are compared as
   floats and the first of equals wins. A node is looked at in one of three ways, by its size and the number of bins:
     - its histogram over all features is kept, that of the smaller child is counted by rows that lie row by row, and the
       other is what is left of the parent (all features, few bins);
     - one small histogram a feature (features drawn for each node, few bins);
     - its rows are sorted by code (many bins).
   Rows that store few codes have a way of their own (tree_entries.h).
   Cells of a categorical feature are looked at in the order of what they predict, and the first ones go left.
   Several trees run side by side, one a thread; a single tree shares the features of a node among the threads, where the
   node has rows enough.

   Letters: T trees, N rows, F features, J of them looked at, W codes, S sums. */

#include "tree_nodes.h"

enum { MOST_SUMS = 1 << 10 }; /* that a thread has on the stack */

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

/* Of n rows those that go left to their front, the others to `spare`, without a branch; returns how many go left. */
static int64_t part_some(const Tree *t, const Best *best, uint32_t *rows, uint32_t *spare, int64_t n) {
    const Grow *g = t->g;
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
    return left;
}

/* Rows that go left to the front, the others behind, both in the order in which they stood. */
static int64_t part(Tree *t, const Node *node) {
    if (t->g->row_starts) return part_entries(t, node);
    uint32_t *rows = t->rows + node->start;
    const int64_t n = node->end - node->start;
    const int threads = t->num_threads > 1 && n > ROWS_FOR_THREADS ? t->num_threads : 1;
    int64_t lefts[threads], left = 0;
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)
    for (int i = 0; i < threads; i++) {
        const int64_t from = n * i / threads, to = n * (i + 1) / threads;
        lefts[i] = part_some(t, &node->best, rows + from, t->spare + from, to - from);
    }
    for (int i = 0; i < threads; i++) { /* each part lies at or behind its place */
        if (i) memmove(rows + left, rows + n * i / threads, lefts[i] * sizeof *rows);
        left += lefts[i];
    }
    for (int64_t i = 0, place = left; i < threads; i++) {
        const int64_t from = n * i / threads, rights = n * (i + 1) / threads - from - lefts[i];
        memcpy(rows + place, t->spare + from, rights * sizeof *rows);
        place += rights;
    }
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

/* The code of a row that stands in no node. */
static int32_t code_of(const Grow *g, int64_t row, int32_t feature) {
    if (g->narrow) return g->narrow[feature * g->num_rows + row];
    if (g->wide) return g->wide[feature * g->num_rows + row];
    for (int64_t e = g->row_starts[row]; e < g->row_starts[row + 1]; e++)
        if (g->row_features[e] == feature) return g->row_codes[e];
    return g->zero_code[feature];
}

/* Rows that the tree did not see come to a leaf, too. */
static void settle_others(const Tree *t) {
    const Grow *g = t->g;
    const int64_t from = t->tree * g->capacity;
    for (int64_t row = 0; g->leaf && t->num_rows < g->num_rows && row < g->num_rows; row++) {
        if (t->weight[row]) continue;
        int64_t node = 0;
        while (g->child[from + node] >= 0) {
            const int64_t at = from + node;
            const int32_t feature = g->feature[at], code = code_of(g, row, feature);
            const int left = code == g->width - 1        ? g->missing_left[at]
                             : is_category(g, feature) ? (int)(g->subset[4 * at + (code >> 6)] >> (code & 63) & 1)
                                                         : code <= g->code[at];
            node = g->child[at] + !left;
        }
        g->leaf[t->tree * g->num_rows + row] = (int32_t)node;
    }
}

/* How often a row counts in a tree. */
INLINE int64_t factor_of(const Tree *t, int64_t row) {
    return t->g->content ? poisson_weight(t->g, t->tree, row) : 1;
}

/* Rows [from, to) that the tree sees, from the place `number` on, and the sums of them; returns the place behind them. */
static int64_t start_some(Tree *t, int64_t from, int64_t to, int64_t number, int64_t *sums) {
    const Grow *g = t->g;
    const int64_t K = g->num_sums - 1;
    for (int64_t row = from; row < to; row++) {
        const int64_t factor = factor_of(t, row), weight = g->weight[row], here = weight > 0 && factor > 0;
        const int64_t packed = ((weight * factor) << g->count_bits) + here;
        t->weight[row] = here ? packed : 0;
        if (t->factor) t->factor[row] = factor;
        if (t->position) t->position[row] = here ? (uint32_t)number : UINT32_MAX;
        if (!here) continue;
        t->rows[number++] = (uint32_t)row;
        if (g->index) {
            sums[g->index[row]] += packed;
            continue;
        }
        sums[0] += packed;
        for (int64_t k = 0; k < K; k++) sums[k + 1] += g->gradient[row * K + k] * factor;
        if (t->pairs) t->pairs[2 * row] = packed, t->pairs[2 * row + 1] = g->gradient[row] * factor;
    }
    return number;
}

static void start_rows(Tree *t) {
    const Grow *g = t->g;
    const int64_t N = g->num_rows, S = g->num_sums;
    const int threads = S > MOST_SUMS ? 1 : t->num_threads;
    int64_t *sums = sums_of(t, 0), others[threads > 1 ? (threads - 1) * S : 1], first[threads + 1];
    memset(sums, 0, S * sizeof *sums), memset(others, 0, sizeof others), memset(first, 0, sizeof first);
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)
    for (int i = 0; i < threads - 1; i++)
        for (int64_t row = N * i / threads; row < N * (i + 1) / threads; row++)
            first[i + 1] += g->weight[row] > 0 && factor_of(t, row) > 0;
    for (int i = 0; i < threads; i++) first[i + 1] += first[i];
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)
    for (int i = 0; i < threads; i++) {
        int64_t *own = i ? others + (i - 1) * S : sums;
        const int64_t number = start_some(t, N * i / threads, N * (i + 1) / threads, first[i], own);
        if (i + 1 == threads) t->num_rows = number;
    }
    for (int64_t c = 0; c < (threads - 1) * S; c++) sums[c % S] += others[c];
}

static int grow_tree(Tree *t) {
    const Grow *g = t->g;
    const int64_t S = g->num_sums;
    const int keeps = g->narrow && g->max_features == g->num_features && !g->random_thresholds && g->criterion != ABSOLUTE &&
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
    if (!failed) settle_others(t);
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
    const int has_entries = holds_rows && g->row_starts, gathers = holds_rows && !g->row_starts;
    const int64_t sizes[] = {S * BLOCK * 8, S * 8, (g->narrow ? g->width : 1) * S * 8, S * 8, S * 8, F * 4, F * 8,
                             gathers ? N * 8 : 0, gathers && g->index ? N * 4 : 0,
                             gathers && !g->index ? N * (S - 1) * 8 : 0, g->wide ? N * 8 : has_entries ? g->row_starts[N] * 8 : 0,
                             g->wide || has_entries ? N * 8 : 0, S * 4,
                             has_entries ? S * 8 : 0, has_entries ? F * 4 : 0, has_entries ? F * 4 : 0,
                             has_entries ? F * 8 : 0, has_entries ? F * 8 : 0};
    int64_t bytes = 64;
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) bytes += (sizes[i] + 63) / 64 * 64;
    if (!base) return bytes;
    char *at = (char *)(((uintptr_t)base + 63) / 64 * 64);
    s->run = carve(&at, sizes[0]), s->missing = carve(&at, sizes[1]), s->histogram = carve(&at, sizes[2]);
    s->left = carve(&at, sizes[3]), s->best.left = carve(&at, sizes[4]), s->drawn = carve(&at, sizes[5]);
    s->hashes = carve(&at, sizes[6]), s->amount = carve(&at, sizes[7]), s->index = carve(&at, sizes[8]);
    s->gradient = carve(&at, sizes[9]), s->keys = carve(&at, sizes[10]), s->other = carve(&at, sizes[11]);
    s->present = carve(&at, sizes[12]), s->rest = carve(&at, sizes[13]), s->found = carve(&at, sizes[14]);
    s->all = carve(&at, sizes[15]), s->starts = carve(&at, sizes[16]), s->ends = carve(&at, sizes[17]);
    memset(s->histogram, 0, sizes[2]), memset(s->ends, 0, sizes[17]);
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
    if (g->row_starts) {
        t->position = malloc(N * sizeof *t->position), t->turns = calloc(N, sizeof *t->turns);
        if (!t->position || !t->turns) return 1;
    }
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
    free(t->position), free(t->turns);
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
