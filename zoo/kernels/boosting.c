/* What a round of boosting takes of its rows, and what it gives back to them, one output a row.

   Before its tree: the negative gradient g = (y - m) w and the second derivative h of each row's loss, as integers in
   the units of their sums (zoo/models/trees/criteria.py). After it: the outputs with the values of the leaves added,
   and the sums of their losses.

   | loss          | m                   | h           | loss of a row         |
   | log_loss      | p, the sigmoid of F | p (1 - p) w | log(1 + exp(F)) - y F |
   | squared_error | F                   | w           | (y - F)^2             |

   Letters: N rows, M nodes, B blocks of rows. */

#include "boosting.h"
#include "doubles.h"

enum { BLOCK = 1024 }; /* rows whose losses are added up in order, whatever the number of threads */

INLINE double gradient_of(const Derive *task, int64_t i) { return (task->y[i] - task->mean[i]) * task->weight[i]; }

INLINE double bend_of(const Derive *task, int64_t i, int64_t loss) {
    const double m = task->mean[i];
    return loss == LOG_LOSS ? m * (1.0 - m) * task->weight[i] : task->weight[i];
}

INLINE void find_largest(const Derive *task, int64_t loss, int64_t from, int64_t to, double *largest) {
    double bend = 0.0, gradient = 0.0;
    for (int64_t i = from; i < to; i++) {
        const double h = bend_of(task, i, loss), g = __builtin_fabs(gradient_of(task, i));
        bend = h > bend ? h : bend, gradient = g > gradient ? g : gradient;
    }
    largest[0] = bend, largest[1] = gradient;
}

KERNEL(largest_derivatives, Derive) {
    const int64_t N = task->rows, threads = task->threads;
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)
    for (int64_t t = 0; t < threads; t++) {
        const int64_t from = N * t / threads, to = N * (t + 1) / threads;
        if (task->loss == LOG_LOSS)
            find_largest(task, LOG_LOSS, from, to, task->largest + 2 * t);
        else
            find_largest(task, SQUARED_ERROR, from, to, task->largest + 2 * t);
    }
    return 0;
}

INLINE int64_t rounded(double x) { return (int64_t)__builtin_rint(x); }

INLINE void fix(const Derive *task, int64_t loss, int64_t from, int64_t to) {
    for (int64_t i = from; i < to; i++) {
        const int64_t h = rounded(bend_of(task, i, loss) * task->weight_unit), least_weight = h > 1 ? h : 1;
        task->fixed_weight[i] = task->weight[i] > 0.0 ? least_weight : 0; /* a row counts, however sure */
        task->fixed_gradient[i] = rounded(gradient_of(task, i) * task->gradient_unit);
    }
}

KERNEL(fixed_derivatives, Derive) {
    const int64_t N = task->rows, threads = task->threads;
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)
    for (int64_t t = 0; t < threads; t++) {
        if (task->loss == LOG_LOSS)
            fix(task, LOG_LOSS, N * t / threads, N * (t + 1) / threads);
        else
            fix(task, SQUARED_ERROR, N * t / threads, N * (t + 1) / threads);
    }
    return 0;
}

/* max(F, 0) - y F + log(1 + exp(-|F|)) */
INLINE vec log_losses(vec output, vec y) {
    const ivec positive = output > set(0.0);
    const vec size = choose(positive, output, -output);
    return choose(positive, output, set(0.0)) - y * output + log_of_one_more(exponential(-size));
}

INLINE vec losses_of(int64_t loss, vec output, vec y) {
    if (loss == LOG_LOSS) return log_losses(output, y);
    return (y - output) * (y - output);
}

INLINE void step_block(const Step *task, int64_t loss, int64_t from, int64_t to, double *sums) {
    double losses[BLOCK + LANES], train = 0.0, held = 0.0;
    for (int64_t i = from; i < to; i++) task->after[i] = task->output[i] + task->value[task->leaf[i]];
    int64_t i = from;
    for (; i + LANES <= to; i += LANES)
        *(vec *)(losses + i - from) = losses_of(loss, *(const vec *)(task->after + i), *(const vec *)(task->y + i));
    if (i < to) {
        vec output = {}, y = {};
        for (int64_t lane = 0; lane < to - i; lane++) output[lane] = task->after[i + lane], y[lane] = task->y[i + lane];
        *(vec *)(losses + i - from) = losses_of(loss, output, y);
    }
    for (i = from; i < to; i++) {
        const double amount = losses[i - from] * task->weight[i];
        const int apart = task->held_out && task->held_out[i];
        train += apart ? 0.0 : amount, held += apart ? amount : 0.0;
    }
    sums[0] = train, sums[1] = held;
}

KERNEL(add_leaves, Step) {
    const int64_t N = task->rows, blocks = (N + BLOCK - 1) / BLOCK;
#pragma omp parallel for num_threads((int)task->threads) schedule(static) if (task->threads > 1)
    for (int64_t b = 0; b < blocks; b++) {
        const int64_t from = b * BLOCK, to = least(from + BLOCK, N);
        if (task->loss == LOG_LOSS)
            step_block(task, LOG_LOSS, from, to, task->sums + 2 * b);
        else
            step_block(task, SQUARED_ERROR, from, to, task->sums + 2 * b);
    }
    return 0;
}
