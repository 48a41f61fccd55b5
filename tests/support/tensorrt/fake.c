/* A stand-in for the shim and the GPU behind it, told by the environment what to do: FAKE_TENSORRT names a failure,
 * FAKE_CUDA the driver's version. It computes what the `good` network of tests/support/tiny_network.rs computes. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shim.h"

struct lm_engine {
    int pixels;
    int runs;
};

static const char PLAN[] = "a plan of the stand-in";
static lm_log tell;

static int told(const char *what) {
    const char *mode = getenv("FAKE_TENSORRT");
    return mode != NULL && strcmp(mode, what) == 0;
}

static int32_t refuse(lm_words words, int32_t end, const char *text) {
    strncpy(words.text, text, words.room - 1);
    return end;
}

int32_t lm_headers(void) { return 100300; }

int32_t lm_revision(void) { return LANDMARKD_SHIM_REVISION; }

void lm_log_to(lm_log log) { tell = log; }

/* It was there, and then it was not. */
static int lost;

int32_t lm_describe(void *const *functions, lm_device *device, lm_words words) {
    const char *cuda = getenv("FAKE_CUDA");
    int32_t (*version)(void) = (int32_t (*)(void))functions[LM_GET_INFER_LIB_VERSION];
    if (functions[LM_CU_INIT] == NULL || functions[LM_CREATE_ONNX_PARSER] == NULL || version() != 100300) abort();
    if (told("no_gpu") || lost) return refuse(words, LM_NO_GPU, "CUDA_ERROR_NO_DEVICE");
    if (told("broken")) return refuse(words, LM_CUDA, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH");
    strcpy(device->name, "Stand-in");
    device->capability_major = 8;
    device->capability_minor = 7;
    device->multiprocessors = 16;
    device->cuda_version = cuda == NULL ? 12060 : atoi(cuda);
    device->memory_bytes = 8ull << 30;
    return LM_OK;
}

int32_t lm_build(void *const *functions, const lm_build_order *order, lm_sink sink, void *of, lm_words words) {
    (void)functions;
    /* No raise(): the handler of Rust's runtime would return from it. */
    if (told("crash")) *(volatile int *)NULL = 1;
    if (told("hang")) {
        for (;;) pause();
    }
    if (told("greedy")) {
        size_t much = (size_t)900 << 20;
        volatile char *memory = malloc(much);
        for (size_t i = 0; memory != NULL && i < much; i += 4096) memory[i] = 1;
        for (;;) pause();
    }
    if (told("refuse") || order->onnx_bytes == 0) {
        tell(1, "no kernel for this layer");
        return refuse(words, LM_REFUSED, "TensorRT built no engine");
    }
    sink(of, PLAN, sizeof PLAN);
    return LM_OK;
}

int32_t lm_open(void *const *functions, const void *plan, size_t bytes, const lm_interface *interface,
    lm_engine **engine, lm_words words) {
    (void)functions;
    if (bytes != sizeof PLAN || memcmp(plan, PLAN, bytes) != 0) {
        return refuse(words, LM_REFUSED, "TensorRT does not take the engine's plan");
    }
    if (interface->landmarks != 2) return refuse(words, LM_INTERFACE, "coordinates");
    if (told("die_open")) *(volatile int *)NULL = 1;
    if (told("stuck")) {
        for (;;) pause();
    }
    if (told("full_says_the_log")) {
        tell(1, "[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)");
        return refuse(words, LM_REFUSED, "TensorRT does not take the engine's plan");
    }
    if (told("full")) return refuse(words, LM_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY");
    *engine = calloc(1, sizeof **engine);
    (*engine)->pixels = interface->width * interface->height;
    return LM_OK;
}

int32_t lm_run(lm_engine *engine, const float *frame, float *coordinates, float *sigma, lm_words words) {
    static const float places[4] = {-0.2f, -0.1f, 0.2f, 0.1f};
    static const float spread[4] = {0.01f, 0.01f, 0.02f, 0.02f};
    double sum = 0.0;
    /* The golden film and one more, and then there is no memory. */
    if (told("memory") && ++engine->runs > 2) return refuse(words, LM_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY");
    if (told("lose") && ++engine->runs > 1) {
        lost = 1;
        return refuse(words, LM_CUDA, "CUDA_ERROR_UNKNOWN");
    }
    if (told("die") && ++engine->runs > 1) *(volatile int *)NULL = 1;
    for (int i = 0; i < engine->pixels; ++i) sum += frame[i];
    for (int i = 0; i < 4; ++i) {
        coordinates[i] = places[i] + 0.1f * (float)(sum / engine->pixels) + (told("differ") ? 0.05f : 0.0f);
        sigma[i] = spread[i];
    }
    return LM_OK;
}

void lm_close(lm_engine *engine) { free(engine); }
