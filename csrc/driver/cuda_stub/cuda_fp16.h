// See cuda_runtime.h.
