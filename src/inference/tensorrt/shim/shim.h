/* The C face of TensorRT, as src/inference/tensorrt/native.rs knows it: TensorRT itself has none.
 *
 * Nothing is linked. The caller opens the libraries, and hands over the addresses of their functions in the order of
 * the list below; a zero stands for one that the call does not need. Nothing here throws, and nothing is kept between
 * calls but the engine and the place to log to. Revision: LANDMARKD_SHIM_REVISION in native.rs is this one. */
#ifndef LANDMARKD_SHIM_H
#define LANDMARKD_SHIM_H

#include <stddef.h>
#include <stdint.h>

#define LANDMARKD_SHIM_REVISION 2

/* Where a function of the libraries stands in the list. */
enum {
    LM_CU_INIT,
    LM_CU_DRIVER_GET_VERSION,
    LM_CU_DEVICE_GET,
    LM_CU_DEVICE_GET_NAME,
    LM_CU_DEVICE_GET_ATTRIBUTE,
    LM_CU_DEVICE_TOTAL_MEM,
    LM_CU_DEVICE_PRIMARY_CTX_RETAIN,
    LM_CU_DEVICE_PRIMARY_CTX_RELEASE,
    LM_CU_CTX_SET_CURRENT,
    LM_CU_MEM_ALLOC,
    LM_CU_MEM_FREE,
    LM_CU_MEMCPY_HTOD_ASYNC,
    LM_CU_MEMCPY_DTOH_ASYNC,
    LM_CU_STREAM_CREATE,
    LM_CU_STREAM_DESTROY,
    LM_CU_STREAM_SYNCHRONIZE,
    LM_CU_GET_ERROR_NAME,
    LM_CREATE_INFER_BUILDER,
    LM_CREATE_INFER_RUNTIME,
    LM_CREATE_ONNX_PARSER,
    LM_GET_INFER_LIB_VERSION,
    LM_FUNCTIONS
};

/* How a call ended. */
enum {
    LM_OK,
    LM_NO_GPU,        /* no driver, or no GPU that it drives */
    LM_OUT_OF_MEMORY, /* of the GPU */
    LM_REFUSED,       /* TensorRT took the network, the plan or the machine for unsuitable */
    LM_INTERFACE,     /* the plan is of another network than asked for */
    LM_CUDA           /* anything else that the driver refused */
};

/* Where the reason of a failure goes: zero-ended, cut to its room. */
typedef struct {
    char *text;
    size_t room;
} lm_words;

/* One line of TensorRT's; severities as ILogger::Severity has them, 0 worst. May come from any thread. */
typedef void (*lm_log)(int32_t severity, const char *line);
/* Takes the plan's bytes; they are gone afterwards. */
typedef void (*lm_sink)(void *of, const void *plan, size_t bytes);

typedef struct {
    char name[256];
    int32_t capability_major;
    int32_t capability_minor;
    int32_t multiprocessors;
    int32_t cuda_version; /* of the driver: 1000 * major + 10 * minor */
    uint64_t memory_bytes;
} lm_device;

typedef struct {
    const void *onnx;
    size_t onnx_bytes;
    uint64_t workspace_bytes;
    int32_t on_gpu; /* 0: no driver is needed, and none is looked for (TensorRT-RTX alone builds so) */
} lm_build_order;

typedef struct {
    int32_t height;
    int32_t width;
    int32_t landmarks;
} lm_interface;

typedef struct lm_engine lm_engine;

#ifdef __cplusplus
extern "C" {
#endif

/* The TensorRT whose headers this was compiled against, major * 10000 + minor * 100 + patch; negative for RTX. */
int32_t lm_headers(void);
int32_t lm_revision(void);
/* From now on lines go there; once for the process. */
void lm_log_to(lm_log log);
int32_t lm_describe(void *const *functions, lm_device *device, lm_words words);
int32_t lm_build(void *const *functions, const lm_build_order *order, lm_sink sink, void *of, lm_words words);
int32_t lm_open(void *const *functions, const void *plan, size_t bytes, const lm_interface *interface,
    lm_engine **engine, lm_words words);
/* `frame` has height * width numbers, `coordinates` and `sigma` 2 * landmarks each. One call at a time. */
int32_t lm_run(lm_engine *engine, const float *frame, float *coordinates, float *sigma, lm_words words);
void lm_close(lm_engine *engine);

#ifdef __cplusplus
}
#endif
#endif
