// What this processor can do at most, for benches to hold a kernel's rate against: multiply-adds out of registers, and
// bytes read from memory of a given size. A GEMM's rate in their place hides what the GEMM itself leaves unused.
#pragma once

#include "preluflow/types.hpp"

namespace preluflow {

// Runs `repeats` rounds of multiply-adds on each of `threads` threads, in vectors of this instruction set, and
// returns the flops done in all. Nothing is read or written but registers.
template <class T>
double fma_flops(Index repeats, int threads);

// Reads n numbers `repeats` times on each of `threads` threads, each its own share of them; returns the bytes read.
double read_bytes(const double* values, Index n, Index repeats, int threads);

}  // namespace preluflow
