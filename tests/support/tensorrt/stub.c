/* Libraries with the names and functions of CUDA's driver and TensorRT, and nothing behind them: one of DRIVER, TENSORRT
 * and PARSER says which; VERSION is TensorRT's, and NO_BUILDER leaves a function out. */
#define FUNCTION(name) int name(void) { return 0; }

#ifdef DRIVER
FUNCTION(cuInit)
FUNCTION(cuDriverGetVersion)
FUNCTION(cuDeviceGet)
FUNCTION(cuDeviceGetName)
FUNCTION(cuDeviceGetAttribute)
FUNCTION(cuDeviceTotalMem_v2)
FUNCTION(cuDevicePrimaryCtxRetain)
FUNCTION(cuDevicePrimaryCtxRelease_v2)
FUNCTION(cuCtxSetCurrent)
FUNCTION(cuMemAlloc_v2)
FUNCTION(cuMemFree_v2)
FUNCTION(cuMemcpyHtoDAsync_v2)
FUNCTION(cuMemcpyDtoHAsync_v2)
FUNCTION(cuStreamCreate)
FUNCTION(cuStreamDestroy_v2)
FUNCTION(cuStreamSynchronize)
FUNCTION(cuGetErrorName)
#endif
#ifdef TENSORRT
#ifndef NO_BUILDER
FUNCTION(createInferBuilder_INTERNAL)
#endif
FUNCTION(createInferRuntime_INTERNAL)
int getInferLibVersion(void) { return VERSION; }
#endif
#ifdef PARSER
FUNCTION(createNvOnnxParser_INTERNAL)
#endif
