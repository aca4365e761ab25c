"""Faster ways to compute what the story writes out: fused kernels, gradients by hand, memory with spare room."""
