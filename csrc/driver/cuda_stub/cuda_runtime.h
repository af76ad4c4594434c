// Stands in for CUDA's header when nccl_abi_check.cpp includes the NCCL wheel's <nccl.h>: all that
// it needs of CUDA is the name of a stream, and a version that asks for no more headers.
#pragma once
#define CUDART_VERSION 0
typedef struct CUstream_st* cudaStream_t;
