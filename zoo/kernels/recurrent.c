/* The passes of recurrent_passes.py in single precision for CPUs: all steps of one direction in one call.

   The rows of the batch are shared out among the threads. Rows do not depend on each other, so that a thread walks
   through all steps alone and nobody waits. Where rows are few and units are many, these are shared out, and the threads meet
   after each step; each keeps its part of the weights in its own cache. A step multiplies a block of up to ROWS rows by a tile of WIDE vectors of
   packed weights, holds the sums in registers, and finishes its gates there.

   Letters as in the Python modules: T steps, B rows, D inputs, H hidden units, G gates, N = sum of the steps' rows. */

#include "products.h"

#define FEW 8                /* rows for each thread */
#define LEAST_WORK (1 << 15) /* multiplications of a gate in a step, for each of the threads that meet after it */

/* What a pass reads and writes; what a layer does not have is NULL. Everything lies in rows, without gaps, and there is
   at least one of each. */
typedef struct {
    int64_t steps, rows, inputs, hidden; /* T, B, D, H */
    int64_t total;                       /* N */
    int64_t reverse, relu, threads;
    const int64_t *sizes;                /* (T,) rows of each step, not increasing, or NULL where all are B */
    const float *x, *h0, *c0;            /* (N, D), (B, H), (B, H) */
    const float *w_ih, *w_hh;            /* (G*H, D), (G*H, H) */
    const float *bias_ih, *bias_hh;      /* (G*H,) */
    float *h;                            /* (N, H), of all steps */
    float *h_n, *c_n;                    /* (B, H), final states */
    float *gates, *c, *u;                /* (N, G*H), (N, H), (N, H), kept for the way back, or NULL */
    const float *d_h;                    /* (N, H), gradient of h from outside, or NULL for zeros */
    float *carry, *d_c;                  /* (B, H), gradient of h and c: in of the final, out of the initial ones */
    float *d;                            /* (N, G*H), of what the gates sum up; for the GRU (N, 4*H): u, r, z, n */
    float *d_ih, *d_hh;                  /* as the weights */
    float *d_bias_ih, *d_bias_hh;        /* as the biases */
} Task;

typedef enum { RNN, LSTM, GRU } Cell;

/* ---- the walk over steps ---- */

typedef struct {
    int64_t start, count; /* of this step's rows among all N */
    int64_t before, seen; /* the same of the step taken before; seen = 0 at the first */
    int64_t going_on;     /* rows that the next step has too, from the first on */
} Step;

typedef struct {
    Step *steps;         /* T, in the order in which they are taken */
    const vec *packed_x; /* W_ih */
    const vec *packed;   /* W_hh */
    const float *bias;   /* (G*H,) both biases, for the GRU (4*H,) of r, z, n and u */
} Plan;

static Step *plan_steps(const Task *task) {
    Step *steps = malloc((task->steps + 1) * sizeof(Step));
    if (!steps) return NULL;
    int64_t start = 0;
    for (int64_t t = 0; t < task->steps; t++) {
        Step *step = steps + (task->reverse ? task->steps - 1 - t : t);
        step->start = start;
        step->count = task->sizes ? task->sizes[t] : task->rows;
        start += step->count;
    }
    for (int64_t s = 0; s < task->steps; s++) {
        steps[s].before = s ? steps[s - 1].start : 0;
        steps[s].seen = s ? steps[s - 1].count : 0;
        steps[s].going_on = s + 1 < task->steps ? least(steps[s + 1].count, steps[s].count) : 0;
    }
    return steps;
}

/* The state that row r of a step starts from. */
INLINE const float *origin(const Step *step, const float *values, const float *initial, int64_t r, int64_t width) {
    return r < step->seen ? values + (step->before + r) * width : initial + r * width;
}

/* ---- forward: each of these finishes LANES units of one row; x = W_ih x_t, s = W_hh h ---- */

INLINE void rnn_finish(const Task *task, const Plan *plan, int64_t at, int64_t unit, const vec *x, const vec *s) {
    for (int v = 0; v < width_at(unit, task->hidden); v++) {
        const int64_t first = unit + v * LANES;
        const int n = lanes(task->hidden - first);
        vec sum = x[v] + s[v] + load(plan->bias + first, n);
        if (task->relu) store(task->h + at * task->hidden + first, choose(sum < set(0.0f), set(0.0f), sum), n);
        else store(task->h + at * task->hidden + first, tanh_(sum), n);
    }
}

/* sigmoid(a) and tanh(b) with one division for the two, 1 / p = q (1 / pq), where nothing overflows. */
INLINE void sigmoid_tanh(vec a, vec b, vec *sigmoid_a, vec *tanh_b) {
    if (__builtin_expect(any_above(-a, STEEP), 0)) {
        *sigmoid_a = sigmoid(a), *tanh_b = tanh_(b);
        return;
    }
    vec p = below(a), e = above(b), q = e + 2.0f, both = 1.0f / (p * q);
    *sigmoid_a = q * both, *tanh_b = e * p * both;
}

INLINE void lstm_finish(const Task *task, const Plan *plan, const Step *step, int64_t row, int64_t unit, const vec *x,
                        const vec *s) {
    const int64_t H = task->hidden, at = step->start + row;
    const int n = lanes(H - unit), keep = task->gates != NULL;
    const float *b = plan->bias + unit;
    vec i, g, o, seen, f = sigmoid(x[1] + s[1] + load(b + H, n));
    sigmoid_tanh(x[0] + s[0] + load(b, n), x[2] + s[2] + load(b + 2 * H, n), &i, &g);
    const float *old = keep ? origin(step, task->c, task->c0, row, H) : task->c_n + row * H;
    vec c = f * load(old + unit, n) + i * g;
    store((keep ? task->c + at * H : task->c_n + row * H) + unit, c, n);
    sigmoid_tanh(x[3] + s[3] + load(b + 3 * H, n), c, &o, &seen);
    store(task->h + at * H + unit, o * seen, n);
    if (keep) {
        float *a = task->gates + at * 4 * H + unit;
        store(a, i, n), store(a + H, f, n), store(a + 2 * H, g, n), store(a + 3 * H, o, n);
    }
}

INLINE void gru_finish(const Task *task, const Plan *plan, const float *old, int64_t at, int64_t unit, const vec *x,
                       const vec *s) {
    const int64_t H = task->hidden;
    const int n = lanes(H - unit);
    const float *b = plan->bias + unit;
    vec r = sigmoid(x[0] + s[0] + load(b, n)), z = sigmoid(x[1] + s[1] + load(b + H, n));
    vec u = s[2] + load(b + 3 * H, n);
    vec new = tanh_(x[2] + load(b + 2 * H, n) + r * u);
    store(task->h + at * H + unit, new + z * (load(old + unit, n) - new), n);
    if (task->gates) {
        float *a = task->gates + at * 3 * H + unit;
        store(task->u + at * H + unit, u, n);
        store(a, r, n), store(a + H, z, n), store(a + 2 * H, new, n);
    }
}

/* Units of a tile of a cell's packed weights. */
INLINE int64_t units_of(Cell cell) { return cell == RNN ? WIDE * LANES : LANES; }

/* All rows [first, last) of one step, of the units [begin, end), from which on a tile begins; `cell` is a constant where
   this is inlined. */
INLINE void step_forward(Cell cell, const Task *task, const Plan *plan, const Step *step, int64_t first, int64_t last,
                         int64_t begin, int64_t end) {
    const int64_t H = task->hidden, D = task->inputs;
    const int64_t units = units_of(cell), high = height(last - first);
    const int64_t before = begin / units * (cell == RNN ? WIDE : cell == GRU ? 3 : 4);
    const vec *tile_x = plan->packed_x + before * D, *tile = plan->packed + before * H;
    for (int64_t unit = begin; unit < end; unit += units) {
        const int wide = cell == RNN ? width_at(unit, H) : cell == GRU ? 3 : 4;
        for (int64_t top = first; top < last; top += high) {
            const int count = (int)least(high, last - top);
            const float *from[ROWS] = {0}, *from_x[ROWS] = {0};
            vec x[ROWS][WIDE], s[ROWS][WIDE];
            for (int r = 0; r < count; r++) {
                from[r] = origin(step, task->h, task->h0, top + r, H);
                from_x[r] = task->x + (step->start + top + r) * D;
            }
            product(count, wide, D, 1, from_x, tile_x, x);
            product(count, wide, H, 1, from, tile, s);
            for (int r = 0; r < count; r++) {
                if (cell == RNN) rnn_finish(task, plan, step->start + top + r, unit, x[r], s[r]);
                if (cell == LSTM) lstm_finish(task, plan, step, top + r, unit, x[r], s[r]);
                if (cell == GRU) gru_finish(task, plan, from[r], step->start + top + r, unit, x[r], s[r]);
            }
        }
        tile_x += D * wide, tile += H * wide;
    }
}

/* The rows among [first, last) that end with this step leave their state. */
INLINE void leave(Cell cell, const Task *task, const Step *step, int64_t first, int64_t last) {
    const int64_t H = task->hidden, from = step->going_on > first ? step->going_on : first;
    if (from >= last) return;
    const int64_t bytes = (last - from) * H * sizeof(float);
    memcpy(task->h_n + from * H, task->h + (step->start + from) * H, bytes);
    if (cell == LSTM && task->c) memcpy(task->c_n + from * H, task->c + (step->start + from) * H, bytes);
}

INLINE void walk_forward(Cell cell, const Task *task, const Plan *plan) {
    const int threads = (int)least(task->threads, task->rows);
    const int64_t share = (task->rows + threads - 1) / threads;
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)
    for (int64_t first = 0; first < task->rows; first += share)
        for (const Step *step = plan->steps; step < plan->steps + task->steps; step++) {
            const int64_t last = least(first + share, step->count);
            step_forward(cell, task, plan, step, first, last, 0, task->hidden);
            leave(cell, task, step, first, last);
        }
}

/* How many threads share out units, `units` of them in a tile: more than one where rows are few, so that a step is mostly
   reading weights, and each has enough of it to be worth that they meet. */
static int threads_of_units(const Task *task, int64_t units) {
    const int64_t enough = task->rows * task->hidden * task->hidden / LEAST_WORK, tiles = (task->hidden + units - 1) / units;
    const int64_t threads = least(least(task->threads, enough), tiles);
    return threads > 1 && task->rows <= FEW * threads ? (int)threads : 1;
}

INLINE void walk_forward_by_units(Cell cell, const Task *task, const Plan *plan, int threads) {
    const int64_t H = task->hidden, units = units_of(cell);
#pragma omp parallel num_threads(threads)
    for (const Step *step = plan->steps; step < plan->steps + task->steps; step++) {
#pragma omp for schedule(static)
        for (int64_t unit = 0; unit < H; unit += units)
            step_forward(cell, task, plan, step, 0, step->count, unit, least(unit + units, H));
#pragma omp single nowait
        leave(cell, task, step, 0, step->count);
    }
}

static float *join_biases(Cell cell, const Task *task) {
    const int64_t H = task->hidden, shared = (cell == RNN ? 1 : cell == LSTM ? 4 : 2) * H;
    float *bias = floats(4 * H);
    if (!bias) return NULL;
    memset(bias, 0, 4 * H * sizeof(float));
    if (!task->bias_ih) return bias;
    for (int64_t j = 0; j < shared; j++) bias[j] = task->bias_ih[j] + task->bias_hh[j];
    for (int64_t j = 2 * H; cell == GRU && j < 3 * H; j++) bias[j] = task->bias_ih[j], bias[j + H] = task->bias_hh[j];
    return bias;
}

INLINE int forward(Cell cell, const Task *task) {
    const int64_t H = task->hidden, D = task->inputs, gates = cell == LSTM ? 4 : 3;
    const int threads = (int)task->threads;
    if (cell == LSTM && !task->gates) memcpy(task->c_n, task->c0, task->rows * H * sizeof(float));
    float *packed_x = cell == RNN ? pack_columns(task->w_ih, D, H, 1, D, 0, threads)
                                  : pack_units(task->w_ih, gates, H, D, threads);
    float *packed = cell == RNN ? pack_columns(task->w_hh, H, H, 1, H, 0, threads)
                                : pack_units(task->w_hh, gates, H, H, threads);
    float *bias = join_biases(cell, task);
    Step *steps = plan_steps(task);
    const int failed = !packed_x || !packed || !bias || !steps;
    const Plan plan = {steps, (const vec *)packed_x, (const vec *)packed, bias};
    const int together = threads_of_units(task, units_of(cell));
    if (!failed && together > 1) walk_forward_by_units(cell, task, &plan, together);
    else if (!failed) walk_forward(cell, task, &plan);
    free(packed_x), free(packed), free(bias), free(steps);
    return failed;
}

/* ---- the way back: each of these turns the gradient `dh` of LANES units of h at one row into those of the gates ---- */

INLINE void rnn_slopes(const Task *task, int64_t at, int64_t unit, int n, vec dh) {
    vec h = load(task->h + at * task->hidden + unit, n);
    float *to = task->d + at * task->hidden + unit;
    if (task->relu) store(to, choose(h <= set(0.0f), set(0.0f), dh), n);
    else store(to, dh * (1.0f - h * h), n);
}

INLINE void lstm_slopes(const Task *task, const Step *step, int64_t row, int64_t unit, int n, vec dh) {
    const int64_t H = task->hidden, at = step->start + row;
    const float *a = task->gates + at * 4 * H + unit;
    float *to = task->d + at * 4 * H + unit, *carried = task->d_c + row * H + unit;
    vec i = load(a, n), f = load(a + H, n), g = load(a + 2 * H, n), o = load(a + 3 * H, n);
    vec seen = tanh_(load(task->c + at * H + unit, n)), old = load(origin(step, task->c, task->c0, row, H) + unit, n);
    vec dc = load(carried, n) + dh * o * (1.0f - seen * seen);
    store(to, dc * g * i * (1.0f - i), n);
    store(to + H, dc * old * f * (1.0f - f), n);
    store(to + 2 * H, dc * i * (1.0f - g * g), n);
    store(to + 3 * H, dh * seen * o * (1.0f - o), n);
    store(carried, dc * f, n);
}

/* d in the order u, r, z, n: the products with W_hh take the first three, those with W_ih the last three. */
INLINE void gru_slopes(const Task *task, const Step *step, int64_t row, int64_t unit, int n, vec dh) {
    const int64_t H = task->hidden, at = step->start + row;
    const float *a = task->gates + at * 3 * H + unit;
    float *to = task->d + at * 4 * H + unit;
    vec r = load(a, n), z = load(a + H, n), new = load(a + 2 * H, n);
    vec old = load(origin(step, task->h, task->h0, row, H) + unit, n);
    vec dn = dh * (1.0f - z) * (1.0f - new * new);
    store(to, dn * r, n);
    store(to + H, dn * load(task->u + at * H + unit, n) * r * (1.0f - r), n);
    store(to + 2 * H, dh * (old - new) * z * (1.0f - z), n);
    store(to + 3 * H, dn, n);
    store(task->carry + row * H + unit, dh * z, n);
}

/* carry = d W_hh, for the GRU carry += d W_hh, at the rows [first, last) of one step and the units [begin, end), from
   which on a tile begins. */
INLINE void carry_back(Cell cell, const Task *task, const Plan *plan, const Step *step, int64_t first, int64_t last,
                       int64_t begin, int64_t end) {
    const int64_t H = task->hidden, depth = (cell == RNN ? 1 : cell == LSTM ? 4 : 3) * H;
    const int64_t stride = cell == RNN ? H : 4 * H, high = height(last - first);
    const vec *tile = plan->packed + begin / LANES * depth;
    for (int64_t unit = begin; unit < end; unit += WIDE * LANES) {
        const int wide = width_at(unit, H);
        for (int64_t top = first; top < last; top += high) {
            const int count = (int)least(high, last - top);
            const float *from[ROWS] = {0};
            vec sums[ROWS][WIDE];
            for (int r = 0; r < count; r++) from[r] = task->d + (step->start + top + r) * stride;
            product(count, wide, depth, 1, from, tile, sums);
            for (int r = 0; r < count; r++)
                for (int v = 0; v < wide; v++) {
                    const int n = lanes(H - unit - v * LANES);
                    float *to = task->carry + (top + r) * H + unit + v * LANES;
                    if (cell == GRU) store(to, load(to, n) + sums[r][v], n);
                    else store(to, sums[r][v], n);
                }
        }
        tile += depth * wide;
    }
}

/* The gradients of the gates at the rows [first, last) of one step and the units [begin, end). */
INLINE void slopes(Cell cell, const Task *task, const Step *step, int64_t first, int64_t last, int64_t begin, int64_t end) {
    const int64_t H = task->hidden;
    for (int64_t row = first; row < last; row++)
        for (int64_t unit = begin; unit < end; unit += LANES) {
            const int n = lanes(H - unit);
            const int64_t at = step->start + row;
            vec dh = load(task->carry + row * H + unit, n);
            if (task->d_h) dh += load(task->d_h + at * H + unit, n);
            if (cell == RNN) rnn_slopes(task, at, unit, n, dh);
            if (cell == LSTM) lstm_slopes(task, step, row, unit, n, dh);
            if (cell == GRU) gru_slopes(task, step, row, unit, n, dh);
        }
}

INLINE void walk_backward(Cell cell, const Task *task, const Plan *plan) {
    const int threads = (int)least(task->threads, task->rows);
    const int64_t share = (task->rows + threads - 1) / threads;
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)
    for (int64_t first = 0; first < task->rows; first += share)
        for (const Step *step = plan->steps + task->steps - 1; step >= plan->steps; step--) {
            const int64_t last = least(first + share, step->count);
            slopes(cell, task, step, first, last, 0, task->hidden);
            carry_back(cell, task, plan, step, first, last, 0, task->hidden);
        }
}

INLINE void walk_backward_by_units(Cell cell, const Task *task, const Plan *plan, int threads) {
    const int64_t H = task->hidden, units = WIDE * LANES;
#pragma omp parallel num_threads(threads)
    for (const Step *step = plan->steps + task->steps - 1; step >= plan->steps; step--) {
#pragma omp for schedule(static)
        for (int64_t unit = 0; unit < H; unit += units)
            slopes(cell, task, step, 0, step->count, unit, least(unit + units, H));
#pragma omp for schedule(static)
        for (int64_t unit = 0; unit < H; unit += units)
            carry_back(cell, task, plan, step, 0, step->count, unit, least(unit + units, H));
    }
}

/* Gradients of weights and biases, the products of all steps' d with x and with the states before. */
INLINE int weight_gradients(Cell cell, const Task *task, const Plan *plan) {
    const int64_t N = task->total, H = task->hidden, D = task->inputs;
    const int threads = (int)task->threads;
    const float **lines = malloc((2 * N + 1) * sizeof(float *)), **before = lines + N;
    if (!lines) return 1;
    for (int64_t at = 0; at < N; at++) lines[at] = task->x + at * D;
    for (const Step *step = plan->steps; step < plan->steps + task->steps; step++)
        for (int64_t r = 0; r < step->count; r++) before[step->start + r] = origin(step, task->h, task->h0, r, H);
    Factor factors[2] = {{lines, D, task->d_ih, NULL}, {before, H, task->d_hh, NULL}};
    const int64_t both = (cell == RNN ? 1 : cell == LSTM ? 4 : 2) * H, stride = cell == RNN ? H : 4 * H;
    const float *d = task->d + (cell == GRU ? H : 0);
    int failed = outer(d, stride, both, N, factors, 2, task->d_bias_ih, threads);
    if (task->d_bias_hh) memcpy(task->d_bias_hh, task->d_bias_ih, both * sizeof(float));
    if (cell == GRU) { /* n meets x alone, and u the state before */
        Factor by_x = {lines, D, task->d_ih + both * D, NULL}, by_h = {before, H, task->d_hh + both * H, NULL};
        failed |= outer(task->d + 3 * H, stride, H, N, &by_x, 1, task->d_bias_ih ? task->d_bias_ih + both : NULL, threads);
        failed |= outer(task->d, stride, H, N, &by_h, 1, task->d_bias_hh ? task->d_bias_hh + both : NULL, threads);
    }
    free(lines);
    return failed;
}

INLINE int backward(Cell cell, const Task *task) {
    const int64_t H = task->hidden, depth = (cell == RNN ? 1 : cell == LSTM ? 4 : 3) * H;
    float *packed = pack_columns(task->w_hh, depth, H, H, 1, cell == GRU ? 2 * H : 0, (int)task->threads);
    Step *steps = plan_steps(task);
    int failed = !packed || !steps;
    const Plan plan = {steps, NULL, (const vec *)packed, NULL};
    const int together = threads_of_units(task, WIDE * LANES);
    if (!failed && together > 1) walk_backward_by_units(cell, task, &plan, together);
    else if (!failed) walk_backward(cell, task, &plan);
    if (!failed) failed = weight_gradients(cell, task, &plan);
    free(packed), free(steps);
    return failed;
}

KERNEL(rnn_forward, Task) { return forward(RNN, task); }
KERNEL(rnn_backward, Task) { return backward(RNN, task); }
KERNEL(lstm_forward, Task) { return forward(LSTM, task); }
KERNEL(lstm_backward, Task) { return backward(LSTM, task); }
KERNEL(gru_forward, Task) { return forward(GRU, task); }
KERNEL(gru_backward, Task) { return backward(GRU, task); }
