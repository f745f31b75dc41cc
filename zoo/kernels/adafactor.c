/* Adafactor's step of all tensors of a list: parameters and gradients are passed over for the means of squares and the
   parameters' lengths, gradients for the length of what is to be subtracted, and both for subtracting it.

   Sums are double, of parts that depend on the shape alone. Letters: B matrices of a tensor, M rows, N columns. */

#include "rounded.h"
#include "doubles.h"

#define BLOCK 512     /* numbers that are worked out at a time, so that they stay in the nearest cache */
#define PART 32768    /* numbers of an item at least, where a tensor has them */
#define MOST_PARTS 16 /* of a matrix: each has its own sums of columns */
#define LARGE 131072  /* numbers of a tensor from which its items are shared among threads, and not the tensors */

/* Do something with WIDTH a constant, where rows are shorter than a vector: an `if` that an `else` may follow. */
#define OF_WIDTH(known, width, something) if ((width) == (known) && (known) < LANES) { enum { WIDTH = known }; something; }
#define BY_WIDTH(width, something)          \
    OF_WIDTH(1, width, something)           \
    else OF_WIDTH(2, width, something)      \
    else OF_WIDTH(3, width, something)      \
    else OF_WIDTH(4, width, something)      \
    else OF_WIDTH(5, width, something)      \
    else OF_WIDTH(6, width, something)      \
    else OF_WIDTH(7, width, something)

typedef struct {
    int64_t count, threads, wide, wide_steps; /* of tensors; whether numbers, and counts of steps, are double */
    int64_t factored, maximize;
    double rate, decay, floor, least_size, cut, weight_decay; /* eta, tau, eps_1, eps_2, d, lambda */
    const int64_t *shapes; /* (3, count): B, M, N of each parameter; numbers, 1, 1 where it is not factored */
    void *const *tensors;  /* (kinds, count): parameters; R and C, or V; gradients */
    void *const *steps;    /* (count): of each the number of its steps, to which this one is added */
} Adafactor;

/* How a tensor is shared out: an item is some rows of a matrix, or some matrices. */
typedef struct {
    int64_t matrices, rows, columns;
    int64_t parts, group, items; /* of a matrix; matrices of an item; of a tensor */
} Shape;

typedef struct {
    int64_t matrix, end_matrix, row, end_row;
} Item;

static Shape shape_of(const Adafactor *task, int64_t tensor) {
    const int64_t *at = task->shapes + tensor;
    Shape s = {at[0], at[task->count], at[2 * task->count], 1, 1, 0};
    const int64_t numbers = s.rows * s.columns;
    if (numbers >= 2 * PART) s.parts = least(least(numbers / PART, MOST_PARTS), s.rows);
    else s.group = numbers ? 1 + (PART - 1) / numbers : s.matrices + 1;
    s.items = s.parts > 1 ? s.matrices * s.parts : (s.matrices + s.group - 1) / s.group;
    return s;
}

static Item item_of(const Shape *s, int64_t item) {
    if (s->parts == 1) return (Item){item * s->group, least(s->matrices, (item + 1) * s->group), 0, s->rows};
    const int64_t matrix = item / s->parts, part = item % s->parts;
    return (Item){matrix, matrix + 1, s->rows * part / s->parts, s->rows * (part + 1) / s->parts};
}

static double added(const double *values, int64_t count) {
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) sum += values[i];
    return sum;
}

/* Add this step to the count of a parameter's; return it. */
static double count_step(const Adafactor *task, int64_t tensor) {
    if (task->wide_steps) return *(double *)task->steps[tensor] += 1;
    return *(float *)task->steps[tensor] += 1;
}

#define REAL float
#define NAME(x) x##_float
#define WIDEN(p) widened(p)
#define SQRT __builtin_sqrtf
#define FMA FMA_FLOAT
#include "adafactor.h"
#undef REAL
#undef NAME
#undef WIDEN
#undef SQRT
#undef FMA

#define REAL double
#define NAME(x) x##_double
#define WIDEN(p) (*(const vec *)(p))
#define SQRT __builtin_sqrt
#define FMA FMA_DOUBLE
#include "adafactor.h"

KERNEL(adafactor_step, Adafactor) {
    int (*const take)(const Adafactor *, int64_t, int64_t) = task->wide ? take_tensor_double : take_tensor_float;
    int failed = 0;
#pragma omp parallel for num_threads(task->threads) schedule(dynamic) reduction(| : failed) if (task->threads > 1)
    for (int64_t tensor = 0; tensor < task->count; tensor++) {
        const int64_t *at = task->shapes + tensor;
        if (task->threads == 1 || at[0] * at[task->count] * at[2 * task->count] < LARGE) failed |= take(task, tensor, 1);
    }
    for (int64_t tensor = 0; tensor < task->count && task->threads > 1; tensor++) {
        const int64_t *at = task->shapes + tensor;
        if (at[0] * at[task->count] * at[2 * task->count] >= LARGE) failed |= take(task, tensor, task->threads);
    }
    return failed;
}
