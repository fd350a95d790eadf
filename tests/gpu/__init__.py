"""What only a CUDA device shows. Without one the same tests run on the CPU, at toy size."""
