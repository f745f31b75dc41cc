/* The passes of recurrent_passes.py in single precision for CPUs: all steps of one direction in one call.

   The rows of the batch are shared out among the threads. Rows do not depend on each other, so that a thread walks
   through all steps alone and nobody waits. A step multiplies a block of up to ROWS rows by a tile of WIDE vectors of
   packed weights, holds the sums in registers, and finishes its gates there.

   Letters as in the Python modules: T steps, B rows, H hidden units, N = sum of the steps' rows. `sizes` are the rows
   of each step in order of time, not increasing, as in a PackedSequence. */

#include "recurrent_gradients.h"
#include "recurrent_vectors.h"

/* ---- the walk over steps ---- */

typedef struct {
    int64_t steps, rows, hidden; /* T, B, H */
    const int64_t *sizes;        /* T, or NULL where all are B */
    int reverse, threads;
} Walk;

typedef struct {
    int64_t start, count;   /* of this step's rows among all N */
    int64_t before, seen;   /* the same of the step taken before; seen = 0 at the first */
} Step;

static void plan(const Walk *walk, Step *steps) {
    int64_t start = 0;
    for (int64_t t = 0; t < walk->steps; t++) {
        Step *step = steps + (walk->reverse ? walk->steps - 1 - t : t);
        step->start = start;
        step->count = walk->sizes ? walk->sizes[t] : walk->rows;
        start += step->count;
    }
    for (int64_t s = 0; s < walk->steps; s++) {
        steps[s].before = s ? steps[s - 1].start : 0;
        steps[s].seen = s ? steps[s - 1].count : 0;
    }
}

/* The state that row r of a step starts from. */
INLINE const float *origin(const Step *step, const float *values, const float *initial, int64_t r, int64_t width) {
    return r < step->seen ? values + (step->before + r) * width : initial + r * width;
}

/* What a pass reads and writes, (N, .) for all steps or (B, .); what a layer does not have is NULL. */
typedef struct {
    const float *x;      /* (N, D) */
    float *gates;        /* (N, G*H), after their activations; only where they are kept for the way back */
    float *h, *c, *u;    /* (N, H); c is (B, H) where nothing is kept */
    const float *h0, *c0; /* (B, H) */
    const float *bias;   /* (G*H,), for the GRU (4*H,) with b_hn at the end */
    const vec *packed_x; /* W_ih */
    const float *d_h;    /* (N, H), gradient of h from outside */
    float *carry, *d_c;  /* (B, H), gradient of h and c that travels back: in of the final, out of the initial ones */
    float *d;            /* (N, .), gradients of what the gates sum up */
    const vec *packed;   /* W_hh */
    int64_t inputs;      /* D */
    int keep, relu;
} Pass;

typedef enum { RNN, LSTM, GRU } Cell;

/* Each of these finishes LANES units of one row: `at` among N, `row` of the batch, x = W_ih x, s = W_hh h. */

INLINE void rnn_finish(const Walk *walk, const Pass *p, int64_t at, int64_t unit, const vec *x, const vec *s) {
    for (int v = 0; v < width_at(unit, walk->hidden); v++) {
        const int64_t first = unit + v * LANES;
        const int n = lanes(walk->hidden - first);
        vec sum = x[v] + s[v] + load(p->bias + first, n);
        if (p->relu) store(p->h + at * walk->hidden + first, choose(sum < set(0.0f), set(0.0f), sum), n);
        else store(p->h + at * walk->hidden + first, tanh_(sum), n);
    }
}

INLINE void lstm_finish(const Walk *walk, const Pass *p, const Step *step, int64_t row, int64_t unit, const vec *x,
                        const vec *s) {
    const int64_t H = walk->hidden, at = step->start + row;
    const int n = lanes(H - unit);
    const float *b = p->bias + unit;
    /* one division serves two quotients: 1 / a = b (1 / ab) */
    vec f = sigmoid(x[1] + s[1] + load(b + H, n)), bi = below(x[0] + s[0] + load(b, n));
    vec bo = below(x[3] + s[3] + load(b + 3 * H, n)), eg = above(x[2] + s[2] + load(b + 2 * H, n));
    vec first = 1.0f / (bi * (eg + 2.0f)), i = (eg + 2.0f) * first, g = eg * bi * first;
    const float *old = p->keep ? origin(step, p->c, p->c0, row, H) : p->c + row * H;
    vec c = f * load(old + unit, n) + i * g;
    store((p->keep ? p->c + at * H : p->c + row * H) + unit, c, n);
    vec ec = above(c), second = 1.0f / (bo * (ec + 2.0f)), o = (ec + 2.0f) * second;
    store(p->h + at * H + unit, ec * second, n);
    if (p->keep) {
        float *a = p->gates + at * 4 * H + unit;
        store(a, i, n), store(a + H, f, n), store(a + 2 * H, g, n), store(a + 3 * H, o, n);
    }
}

INLINE void gru_finish(const Walk *walk, const Pass *p, const float *old, int64_t at, int64_t unit, const vec *x,
                       const vec *s) {
    const int64_t H = walk->hidden;
    const int n = lanes(H - unit);
    const float *b = p->bias + unit;
    vec r = sigmoid(x[0] + s[0] + load(b, n)), z = sigmoid(x[1] + s[1] + load(b + H, n));
    vec u = s[2] + load(b + 3 * H, n);
    vec new = tanh_(x[2] + load(b + 2 * H, n) + r * u);
    store(p->h + at * H + unit, new + z * (load(old + unit, n) - new), n);
    if (p->keep) {
        float *a = p->gates + at * 3 * H + unit;
        store(p->u + at * H + unit, u, n);
        store(a, r, n), store(a + H, z, n), store(a + 2 * H, new, n);
    }
}

/* All rows [first, last) of one step; `cell` is a constant where this is inlined. */
INLINE void step_forward(Cell cell, const Walk *walk, const Pass *p, const Step *step, int64_t first, int64_t last) {
    const int64_t H = walk->hidden, D = p->inputs;
    const int64_t units = cell == RNN ? WIDE * LANES : LANES, high = height(last - first);
    const vec *tile_x = p->packed_x, *tile = p->packed;
    for (int64_t unit = 0; unit < H; unit += units) {
        const int wide = cell == RNN ? width_at(unit, H) : cell == GRU ? 3 : 4;
        for (int64_t top = first; top < last; top += high) {
            const int count = (int)least(high, last - top);
            const float *from[ROWS], *from_x[ROWS];
            vec x[ROWS][WIDE], s[ROWS][WIDE];
            for (int r = 0; r < count; r++) {
                from[r] = origin(step, p->h, p->h0, top + r, H);
                from_x[r] = p->x + (step->start + top + r) * D;
            }
            product(count, wide, D, 1, from_x, tile_x, x);
            product(count, wide, H, 1, from, tile, s);
            for (int r = 0; r < count; r++) {
                if (cell == RNN) rnn_finish(walk, p, step->start + top + r, unit, x[r], s[r]);
                if (cell == LSTM) lstm_finish(walk, p, step, top + r, unit, x[r], s[r]);
                if (cell == GRU) gru_finish(walk, p, from[r], step->start + top + r, unit, x[r], s[r]);
            }
        }
        tile_x += D * wide, tile += H * wide;
    }
}

/* Each of these turns the gradient `dh` of LANES units of h at one row into those of the gates. */

INLINE void rnn_slopes(const Walk *walk, const Pass *p, int64_t at, int64_t unit, int n, vec dh) {
    vec h = load(p->h + at * walk->hidden + unit, n);
    float *to = p->d + at * walk->hidden + unit;
    if (p->relu) store(to, choose(h > set(0.0f), dh, set(0.0f)), n);
    else store(to, dh * (1.0f - h * h), n);
}

INLINE void lstm_slopes(const Walk *walk, const Pass *p, const Step *step, int64_t row, int64_t unit, int n, vec dh) {
    const int64_t H = walk->hidden, at = step->start + row;
    const float *a = p->gates + at * 4 * H + unit;
    float *to = p->d + at * 4 * H + unit, *carried = p->d_c + row * H + unit;
    vec i = load(a, n), f = load(a + H, n), g = load(a + 2 * H, n), o = load(a + 3 * H, n);
    vec seen = tanh_(load(p->c + at * H + unit, n)), old = load(origin(step, p->c, p->c0, row, H) + unit, n);
    vec dc = load(carried, n) + dh * o * (1.0f - seen * seen);
    store(to, dc * g * i * (1.0f - i), n);
    store(to + H, dc * old * f * (1.0f - f), n);
    store(to + 2 * H, dc * i * (1.0f - g * g), n);
    store(to + 3 * H, dh * seen * o * (1.0f - o), n);
    store(carried, dc * f, n);
}

/* d in the order u, r, z, n: the products with W_hh take the first three, those with W_ih the last three. */
INLINE void gru_slopes(const Walk *walk, const Pass *p, const Step *step, int64_t row, int64_t unit, int n, vec dh) {
    const int64_t H = walk->hidden, at = step->start + row;
    const float *a = p->gates + at * 3 * H + unit;
    float *to = p->d + at * 4 * H + unit;
    vec r = load(a, n), z = load(a + H, n), new = load(a + 2 * H, n);
    vec old = load(origin(step, p->h, p->h0, row, H) + unit, n);
    vec dn = dh * (1.0f - z) * (1.0f - new * new);
    store(to, dn * r, n);
    store(to + H, dn * load(p->u + at * H + unit, n) * r * (1.0f - r), n);
    store(to + 2 * H, dh * (old - new) * z * (1.0f - z), n);
    store(to + 3 * H, dn, n);
    store(p->carry + row * H + unit, dh * z, n);
}

/* carry = d W_hh, for the GRU carry += d W_hh, at the rows [first, last) of one step. */
INLINE void step_back(Cell cell, const Walk *walk, const Pass *p, const Step *step, int64_t first, int64_t last) {
    const int64_t H = walk->hidden, depth = (cell == RNN ? 1 : cell == LSTM ? 4 : 3) * H;
    const int64_t stride = cell == RNN ? H : 4 * H, high = height(last - first);
    const vec *tile = p->packed;
    for (int64_t unit = 0; unit < H; unit += WIDE * LANES) {
        const int wide = width_at(unit, H);
        for (int64_t top = first; top < last; top += high) {
            const int count = (int)least(high, last - top);
            const float *from[ROWS];
            vec sums[ROWS][WIDE];
            for (int r = 0; r < count; r++) from[r] = p->d + (step->start + top + r) * stride;
            product(count, wide, depth, 1, from, tile, sums);
            for (int r = 0; r < count; r++)
                for (int v = 0; v < wide; v++) {
                    const int n = lanes(H - unit - v * LANES);
                    float *to = p->carry + (top + r) * H + unit + v * LANES;
                    if (cell == GRU) store(to, load(to, n) + sums[r][v], n);
                    else store(to, sums[r][v], n);
                }
        }
        tile += depth * wide;
    }
}

INLINE void step_backward(Cell cell, const Walk *walk, const Pass *p, const Step *step, int64_t first, int64_t last) {
    const int64_t H = walk->hidden;
    for (int64_t row = first; row < last; row++)
        for (int64_t unit = 0; unit < H; unit += LANES) {
            const int n = lanes(H - unit);
            const int64_t at = step->start + row;
            vec dh = load(p->carry + row * H + unit, n) + load(p->d_h + at * H + unit, n);
            if (cell == RNN) rnn_slopes(walk, p, at, unit, n, dh);
            if (cell == LSTM) lstm_slopes(walk, p, step, row, unit, n, dh);
            if (cell == GRU) gru_slopes(walk, p, step, row, unit, n, dh);
        }
    step_back(cell, walk, p, step, first, last);
}

/* All steps of a pass, the rows shared out among the threads. */
INLINE void walk_all(Cell cell, int backward, const Walk *walk, const Pass *p) {
    Step *steps = malloc(walk->steps * sizeof(Step));
    plan(walk, steps);
    const int64_t share = (walk->rows + walk->threads - 1) / walk->threads;
#pragma omp parallel for num_threads(walk->threads) schedule(static, 1)
    for (int64_t first = 0; first < walk->rows; first += share)
        for (int64_t s = 0; s < walk->steps; s++) {
            const Step *step = steps + (backward ? walk->steps - 1 - s : s);
            const int64_t last = least(first + share, step->count);
            if (backward) step_backward(cell, walk, p, step, first, last);
            else step_forward(cell, walk, p, step, first, last);
        }
    free(steps);
}

void rnn_forward(const Walk *walk, const Pass *p) { walk_all(RNN, 0, walk, p); }
void rnn_backward(const Walk *walk, const Pass *p) { walk_all(RNN, 1, walk, p); }
void lstm_forward(const Walk *walk, const Pass *p) { walk_all(LSTM, 0, walk, p); }
void lstm_backward(const Walk *walk, const Pass *p) { walk_all(LSTM, 1, walk, p); }
void gru_forward(const Walk *walk, const Pass *p) { walk_all(GRU, 0, walk, p); }
void gru_backward(const Walk *walk, const Pass *p) { walk_all(GRU, 1, walk, p); }
