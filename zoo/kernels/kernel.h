/* What every kernel file includes: how a function is handed to Python.

   A kernel takes one named struct and nothing else. `KERNEL(name, Struct)` declares it with a second function
   `name_size`, by which `zoo.kernels.function` sees that both sides mean the same struct. Threads come from the OpenMP
   that torch has loaded: the libraries are compiled with it, where the compiler has it, and linked without. */

#pragma once
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define KERNEL(name, Struct)                                    \
    int64_t name##_size(void) { return (int64_t)sizeof(Struct); } \
    int name(const Struct *task) /* 0, or 1 where memory ran out */

#define INLINE static inline __attribute__((always_inline))
#define SHARED static __attribute__((unused)) /* of a header: not each file that includes it calls it */

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
