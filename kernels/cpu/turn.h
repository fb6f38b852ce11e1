/* Squares of vectors whose rows and columns change places, by halves: off the diagonal, blocks of half the side change
 * places, then blocks of half of that inside each (Eklundh, "A Fast Computer Method for Matrix Transposing", 1972).
 */
#ifndef FUSIBLE_TURN_H
#define FUSIBLE_TURN_H

#include "vector.h"

/* Lanes of a (0 .. VL - 1) and b (VL ..) by literal numbers. */
#if defined(__clang__) || __GNUC__ >= 12
#define LANES_OF(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define LANES_OF(a, b, ...) __builtin_shuffle(a, b, (vi){__VA_ARGS__})
#endif

/* The blocks of side `side` of the square: of each pair of rows that lie so far apart, the upper halves and the lower. */
#define TURN_BLOCKS(square, side, upper, lower)                     \
    UNROLL for (int row = 0; row < VL; row++) if (!(row & (side))) { \
        const vf a = (square)[row], b = (square)[row + (side)];     \
        (square)[row] = LANES_OF(a, b, upper);                      \
        (square)[row + (side)] = LANES_OF(a, b, lower);             \
    }
#define LANES(...) __VA_ARGS__

/* Element n of vector i becomes element i of vector n. */
INLINE void vf_turn(vf *square) {
#if VL == 16
    TURN_BLOCKS(square, 8, LANES(0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23),
                LANES(8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31))
    TURN_BLOCKS(square, 4, LANES(0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27),
                LANES(4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31))
    TURN_BLOCKS(square, 2, LANES(0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29),
                LANES(2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31))
    TURN_BLOCKS(square, 1, LANES(0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30),
                LANES(1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31))
#elif VL == 8
    TURN_BLOCKS(square, 4, LANES(0, 1, 2, 3, 8, 9, 10, 11), LANES(4, 5, 6, 7, 12, 13, 14, 15))
    TURN_BLOCKS(square, 2, LANES(0, 1, 8, 9, 4, 5, 12, 13), LANES(2, 3, 10, 11, 6, 7, 14, 15))
    TURN_BLOCKS(square, 1, LANES(0, 8, 2, 10, 4, 12, 6, 14), LANES(1, 9, 3, 11, 5, 13, 7, 15))
#else
    TURN_BLOCKS(square, 2, LANES(0, 1, 4, 5), LANES(2, 3, 6, 7))
    TURN_BLOCKS(square, 1, LANES(0, 4, 2, 6), LANES(1, 5, 3, 7))
#endif
}

#endif
