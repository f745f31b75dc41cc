/* The product of a matrix and one row of numbers, y = W x + b: what a language model does for each token that it says.

   All of W is read once, so that memory sets the pace: it is quickest where several rows of W are read side by side. */

#include "vectors.h"

typedef struct {
    int64_t outputs, inputs, threads; /* E, D */
    const float *weight;              /* (E, D) */
    const float *x;                   /* (D,) */
    const float *bias;                /* (E,), or NULL */
    float *y;                         /* (E,) */
} RowProduct;

#define ROWS LANES /* of W at a time, each with a sum of its own in a register */

INLINE void products(const RowProduct *task, int64_t first, const int rows) {
    const int64_t inputs = task->inputs, whole = inputs - inputs % LANES;
    const int left = (int)(inputs - whole);
    const float *weight = task->weight + first * inputs, *x = task->x;
    vec sum[ROWS] = {};
    for (int64_t i = 0; i < whole; i += LANES) {
        const vec v = load(x + i, LANES);
        for (int row = 0; row < rows; row++) sum[row] += load(weight + row * inputs + i, LANES) * v;
    }
    if (left) {
        const vec v = load(x + whole, left);
        for (int row = 0; row < rows; row++) sum[row] += load(weight + row * inputs + whole, left) * v;
    }
    for (int row = 0; row < rows; row++) {
        float total = 0;
        for (int lane = 0; lane < LANES; lane++) total += sum[row][lane];
        task->y[first + row] = total + (task->bias ? task->bias[first + row] : 0);
    }
}

KERNEL(row_product, RowProduct) {
    const int64_t blocks = task->outputs / ROWS;
#pragma omp parallel for num_threads(task->threads) schedule(static) if (task->threads > 1)
    for (int64_t block = 0; block < blocks; block++) products(task, block * ROWS, ROWS);
    for (int64_t row = blocks * ROWS; row < task->outputs; row++) products(task, row, 1);
    return 0;
}
