/* What draws of rows are asked by, also from the kernel that splits clusters. */

#pragma once
#include "kernel.h"

typedef struct {
    int64_t rows, size; /* size at most 64 */
    int64_t offset;     /* of the counter */
    const double *near, *weight; /* (N), or NULL */
    const int64_t *content;      /* (N), hashes of the rows */
    int64_t *chosen;             /* (size), rows of greatest score; out */
    int64_t *number;             /* (), how many there are; out */
} Draw;

int kmeans_sample(const Draw *task);
