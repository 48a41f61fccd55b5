/* What TensorRT's headers need of CUDA's, for machines without CUDA's: two opaque handles. */
#pragma once
typedef struct CUevent_st *cudaEvent_t;
typedef struct CUstream_st *cudaStream_t;
