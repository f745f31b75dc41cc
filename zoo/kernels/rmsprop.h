/* RMSprop's step of some numbers of one tensor; included once for each type, with REAL, SQRT and FMA.

   A number is rounded in the same way wherever it stands, so that the bits depend on no thread and no block. */

/* Numbers from `first` on, `count` of them, which are at most BLOCK: each loop is over what the nearest cache holds. */
static void NAME(take_block)(const Rmsprop *task, int64_t tensor, int64_t first, int64_t count) {
    void *const *at = task->tensors + tensor; /* of each kind */
    REAL *restrict theta = (REAL *)*at + first, *restrict v = (REAL *)*(at += task->count) + first;
    REAL *restrict mean = task->centered ? (REAL *)*(at += task->count) + first : NULL;
    REAL *restrict sum = task->has_momentum ? (REAL *)*(at += task->count) + first : NULL;
    const REAL *restrict grad = (const REAL *)*(at += task->count) + first;
    const REAL alpha = (REAL)task->alpha, share = (REAL)(1 - task->alpha), rate = -(REAL)task->rate;
    const REAL eps = (REAL)task->eps, decay = (REAL)task->weight_decay, momentum = (REAL)task->momentum;
    REAL g[BLOCK], length[BLOCK];

    for (int64_t i = 0; i < count; i++) g[i] = task->maximize ? -grad[i] : grad[i];
    if (decay != 0)
        for (int64_t i = 0; i < count; i++) g[i] = FMA(decay, theta[i], g[i]);
    for (int64_t i = 0; i < count; i++) v[i] = FMA(share * g[i], g[i], alpha * v[i]);
    if (mean) {
        for (int64_t i = 0; i < count; i++) {
            mean[i] = NAME(between)(mean[i], g[i], share);
            length[i] = SQRT(FMA(-mean[i], mean[i], v[i])) + eps;
        }
    } else {
        for (int64_t i = 0; i < count; i++) length[i] = SQRT(v[i]) + eps;
    }
    if (sum) {
        for (int64_t i = 0; i < count; i++) {
            sum[i] = momentum * sum[i] + g[i] / length[i];
            theta[i] = FMA(rate, sum[i], theta[i]);
        }
    } else {
        for (int64_t i = 0; i < count; i++) theta[i] += rate * g[i] / length[i];
    }
}
