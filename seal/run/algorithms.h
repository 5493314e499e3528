/*
--algorithms FILE: which algorithm of cuBLASLt each product takes. Without the file the first that cuBLASLt proposes is
taken. With it every shape is timed once, and what was fastest is kept: another algorithm may add in another order, so
the file is what lets the same seed give the same bytes in the next run.
*/
#ifndef SEAL_ALGORITHMS_H
#define SEAL_ALGORITHMS_H

// After matmul_create. Reads the file, if there is one, and from then on adds what is chosen to it: it is whole after
// every choice. Fatal, in one line, where it is damaged, or of another GPU, precision or version of cuBLASLt. Each rank
// has a file of its own.
void algorithms_open(const char* path);

#endif
