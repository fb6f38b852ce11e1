"""Templates of Triton kernels: ordinary functions of Triton's language, whose hooks generated kernels bring."""
