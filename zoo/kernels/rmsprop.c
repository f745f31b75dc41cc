/* RMSprop's step of all tensors of a list, in one pass over parameters, gradients and what is kept of them. */

#include "rounded.h"

#define BLOCK 512 /* numbers that a step is worked out for at a time */

typedef struct {
    int64_t count, threads, wide, wide_steps; /* of tensors; whether numbers, and counts of steps, are double */
    int64_t centered, has_momentum, maximize;
    double rate, alpha, eps, weight_decay, momentum;
    const int64_t *sizes;  /* (count): numbers of each parameter */
    void *const *tensors;  /* (kinds, count): parameters; means of squares; if there are, means and sums; gradients */
    void *const *steps;    /* (count): of each the number of its steps, to which this one is added */
} Rmsprop;

#define REAL float
#define NAME(x) x##_float
#define SQRT __builtin_sqrtf
#define FMA FMA_FLOAT
#include "rmsprop.h"
#undef REAL
#undef NAME
#undef SQRT
#undef FMA

#define REAL double
#define NAME(x) x##_double
#define SQRT __builtin_sqrt
#define FMA FMA_DOUBLE
#include "rmsprop.h"

/* The numbers from `first` to `last` of all tensors, one behind the other. */
static void take_range(const Rmsprop *task, int64_t first, int64_t last) {
    void (*take_block)(const Rmsprop *, int64_t, int64_t, int64_t) = task->wide ? take_block_double : take_block_float;
    for (int64_t tensor = 0, before = 0; tensor < task->count && before < last; before += task->sizes[tensor++]) {
        int64_t at = first > before ? first - before : 0;
        const int64_t end = least(last - before, task->sizes[tensor]);
        for (; at < end; at += BLOCK) take_block(task, tensor, at, least(BLOCK, end - at));
    }
}

KERNEL(rmsprop_step, Rmsprop) {
    int64_t total = 0;
    for (int64_t tensor = 0; tensor < task->count; tensor++) {
        total += task->sizes[tensor];
        if (task->wide_steps) *(double *)task->steps[tensor] += 1;
        else *(float *)task->steps[tensor] += 1;
    }
#pragma omp parallel for num_threads(task->threads) schedule(static, 1) if (task->threads > 1)
    for (int64_t t = 0; t < task->threads; t++)
        take_range(task, total * t / task->threads, total * (t + 1) / task->threads);
    return 0;
}
