// The C face of TensorRT, see shim.h. One source for TensorRT 10 and TensorRT-RTX 1: the header's enumerators and
// methods have the same names, and their numbers come from the header.

#include "shim.h"

#include <cstring>
#include <new>

#include <NvInfer.h>
#include <NvOnnxParser.h>

#if !defined(TRT_MAJOR_RTX) && (NV_TENSORRT_MAJOR != 10 || NV_TENSORRT_MINOR < 3)
#error "the headers of TensorRT 10.3 or a later 10 are needed (JetPack 6.1 or later): set TENSORRT_INCLUDE_DIR"
#endif

namespace {

// The driver's, as cuda.h has them; it is not needed to compile this.
using CUresult = int;
using CUdevice = int;
using CUcontext = void *;
using CUstream = cudaStream_t;
using CUdeviceptr = unsigned long long;
constexpr CUresult kSUCCESS = 0;
constexpr CUresult kOUT_OF_MEMORY = 2;
// The driver's library without a driver behind it, and a driver without a GPU.
constexpr CUresult kSTUB_LIBRARY = 34;
constexpr CUresult kNO_DEVICE = 100;
constexpr int kMULTIPROCESSOR_COUNT = 16;
constexpr int kCAPABILITY_MAJOR = 75;
constexpr int kCAPABILITY_MINOR = 76;
// Without a driver TensorRT's factories have returned small numbers instead of null.
constexpr uintptr_t kLOWEST_POINTER = 64 << 10;

template <typename Function>
Function *at(void *const *functions, int which) {
    return reinterpret_cast<Function *>(functions[which]);
}

template <typename T>
T *sound(T *pointer) {
    return reinterpret_cast<uintptr_t>(pointer) < kLOWEST_POINTER ? nullptr : pointer;
}

// What the factories are told: the library's own version. The headers may be of a later minor version than the library,
// and what is called here is in all of them at the same place; a library that compares would refuse the headers' number.
int32_t version_of(void *const *functions) {
    return at<int32_t()>(functions, LM_GET_INFER_LIB_VERSION)();
}

void say(lm_words words, const char *text) {
    if (words.room == 0) return;
    std::strncpy(words.text, text, words.room - 1);
    words.text[words.room - 1] = '\0';
}

int32_t refuse(lm_words words, int32_t end, const char *text) {
    say(words, text);
    return end;
}

lm_log g_log = nullptr;

class Logger : public nvinfer1::ILogger {
public:
    void log(Severity severity, char const *line) noexcept override {
        if (g_log != nullptr) g_log(static_cast<int32_t>(severity), line);
    }
};

// One for the process: TensorRT keeps the first it is given.
Logger g_logger;

// Destroyed in the reverse of the order in which they were made.
template <typename T>
struct Owned {
    T *it = nullptr;
    explicit Owned(T *made) : it(sound(made)) {}
    Owned(Owned const &) = delete;
    Owned &operator=(Owned const &) = delete;
    ~Owned() { delete it; }
    T *operator->() const { return it; }
    explicit operator bool() const { return it != nullptr; }
};

// Calls of the driver; the first that fails is remembered, those after it are not made.
struct Driver {
    void *const *functions;
    CUresult result = kSUCCESS;

    template <typename... Arguments>
    bool call(int which, Arguments... arguments) {
        if (result == kSUCCESS) result = at<CUresult(Arguments...)>(functions, which)(arguments...);
        return result == kSUCCESS;
    }

    int32_t failed(lm_words words) const {
        const char *name = nullptr;
        auto name_of = at<CUresult(CUresult, const char **)>(functions, LM_CU_GET_ERROR_NAME);
        if (name_of == nullptr || name_of(result, &name) != kSUCCESS || sound(name) == nullptr) name = "CUDA error";
        switch (result) {
        case kOUT_OF_MEMORY: return refuse(words, LM_OUT_OF_MEMORY, name);
        case kSTUB_LIBRARY:
        case kNO_DEVICE: return refuse(words, LM_NO_GPU, name);
        default: return refuse(words, LM_CUDA, name);
        }
    }
};

struct Tensor {
    const char *name;
    nvinfer1::TensorIOMode mode;
    int32_t count;
    int64_t sides[4];
};

bool has(nvinfer1::ICudaEngine const &engine, Tensor const &tensor) {
    if (engine.getTensorIOMode(tensor.name) != tensor.mode) return false;
    if (engine.getTensorDataType(tensor.name) != nvinfer1::DataType::kFLOAT) return false;
    auto const shape = engine.getTensorShape(tensor.name);
    if (shape.nbDims != tensor.count) return false;
    for (int32_t i = 0; i < tensor.count; ++i) {
        if (shape.d[i] != tensor.sides[i]) return false;
    }
    return true;
}

} // namespace

struct lm_engine {
    Driver driver;
    CUdevice device = 0;
    CUcontext context = nullptr;
    CUstream stream = nullptr;
    CUdeviceptr buffers[3] = {0, 0, 0};
    size_t bytes[3] = {0, 0, 0};
    nvinfer1::IRuntime *runtime = nullptr;
    nvinfer1::ICudaEngine *engine = nullptr;
    nvinfer1::IExecutionContext *execution = nullptr;
};

extern "C" int32_t lm_headers(void) {
    int32_t const version = NV_TENSORRT_MAJOR * 10000 + NV_TENSORRT_MINOR * 100 + NV_TENSORRT_PATCH;
#ifdef TRT_MAJOR_RTX
    return -version;
#else
    return version;
#endif
}

extern "C" int32_t lm_revision(void) { return LANDMARKD_SHIM_REVISION; }

extern "C" void lm_log_to(lm_log log) { g_log = log; }

extern "C" int32_t lm_describe(void *const *functions, lm_device *device, lm_words words) {
    Driver driver{functions};
    CUdevice first = 0;
    size_t memory = 0;
    std::memset(device, 0, sizeof *device);
    driver.call(LM_CU_INIT, 0u);
    driver.call(LM_CU_DRIVER_GET_VERSION, &device->cuda_version);
    driver.call(LM_CU_DEVICE_GET, &first, 0);
    driver.call(LM_CU_DEVICE_GET_NAME, &device->name[0], static_cast<int>(sizeof device->name), first);
    driver.call(LM_CU_DEVICE_GET_ATTRIBUTE, &device->multiprocessors, kMULTIPROCESSOR_COUNT, first);
    driver.call(LM_CU_DEVICE_GET_ATTRIBUTE, &device->capability_major, kCAPABILITY_MAJOR, first);
    driver.call(LM_CU_DEVICE_GET_ATTRIBUTE, &device->capability_minor, kCAPABILITY_MINOR, first);
    driver.call(LM_CU_DEVICE_TOTAL_MEM, &memory, first);
    device->memory_bytes = memory;
    return driver.result == kSUCCESS ? LM_OK : driver.failed(words);
}

extern "C" int32_t lm_build(
    void *const *functions, const lm_build_order *order, lm_sink sink, void *of, lm_words words) {
    if (order->on_gpu != 0) {
        Driver driver{functions};
        if (!driver.call(LM_CU_INIT, 0u)) return driver.failed(words);
    }
    auto create = at<void *(void *, int32_t)>(functions, LM_CREATE_INFER_BUILDER);
    Owned<nvinfer1::IBuilder> builder(static_cast<nvinfer1::IBuilder *>(create(&g_logger, version_of(functions))));
    if (!builder) return refuse(words, LM_REFUSED, "TensorRT gives no builder");
    auto const typed = 1u << static_cast<uint32_t>(nvinfer1::NetworkDefinitionCreationFlag::kSTRONGLY_TYPED);
    Owned<nvinfer1::INetworkDefinition> network(builder->createNetworkV2(typed));
    Owned<nvinfer1::IBuilderConfig> config(builder->createBuilderConfig());
    if (!network || !config) return refuse(words, LM_REFUSED, "TensorRT gives no network definition");
    auto parse = at<void *(void *, void *, int)>(functions, LM_CREATE_ONNX_PARSER);
    Owned<nvonnxparser::IParser> parser(
        static_cast<nvonnxparser::IParser *>(parse(network.it, &g_logger, NV_ONNX_PARSER_VERSION)));
    if (!parser) return refuse(words, LM_REFUSED, "TensorRT gives no ONNX parser");
    if (!parser->parse(order->onnx, order->onnx_bytes, nullptr)) {
        auto const *error = parser->getNbErrors() > 0 ? parser->getError(0) : nullptr;
        return refuse(words, LM_REFUSED, error == nullptr ? "the ONNX parser gives no reason" : error->desc());
    }
    // What is f32 in the network is to be f32, with all its bits.
    config->clearFlag(nvinfer1::BuilderFlag::kTF32);
    if (order->workspace_bytes > 0) {
        config->setMemoryPoolLimit(nvinfer1::MemoryPoolType::kWORKSPACE, order->workspace_bytes);
    }
    Owned<nvinfer1::IHostMemory> plan(builder->buildSerializedNetwork(*network.it, *config.it));
    if (!plan || plan->size() == 0) return refuse(words, LM_REFUSED, "TensorRT built no engine");
    sink(of, plan->data(), plan->size());
    return LM_OK;
}

extern "C" int32_t lm_open(void *const *functions, const void *plan, size_t bytes, const lm_interface *interface,
    lm_engine **engine, lm_words words) {
    *engine = nullptr;
    auto *made = new (std::nothrow) lm_engine{Driver{functions}};
    if (made == nullptr) return refuse(words, LM_OUT_OF_MEMORY, "no memory");
    auto give_up = [made, words](int32_t end, const char *text) {
        lm_close(made);
        return refuse(words, end, text);
    };
    Driver &driver = made->driver;
    driver.call(LM_CU_INIT, 0u);
    driver.call(LM_CU_DEVICE_GET, &made->device, 0);
    driver.call(LM_CU_DEVICE_PRIMARY_CTX_RETAIN, &made->context, made->device);
    driver.call(LM_CU_CTX_SET_CURRENT, made->context);
    driver.call(LM_CU_STREAM_CREATE, &made->stream, 0u);
    if (driver.result != kSUCCESS) {
        int32_t const end = driver.failed(words);
        lm_close(made);
        return end;
    }
    auto create = at<void *(void *, int32_t)>(functions, LM_CREATE_INFER_RUNTIME);
    made->runtime = sound(static_cast<nvinfer1::IRuntime *>(create(&g_logger, version_of(functions))));
    if (made->runtime == nullptr) return give_up(LM_REFUSED, "TensorRT gives no runtime");
    made->engine = sound(made->runtime->deserializeCudaEngine(plan, bytes));
    if (made->engine == nullptr) return give_up(LM_REFUSED, "TensorRT does not take the engine's plan");
    using Mode = nvinfer1::TensorIOMode;
    Tensor const tensors[3] = {
        {"frame", Mode::kINPUT, 4, {1, 1, interface->height, interface->width}},
        {"coordinates", Mode::kOUTPUT, 3, {1, interface->landmarks, 2, 0}},
        {"sigma", Mode::kOUTPUT, 3, {1, interface->landmarks, 2, 0}},
    };
    if (made->engine->getNbIOTensors() != 3) return give_up(LM_INTERFACE, "the engine has not three tensors");
    for (Tensor const &tensor : tensors) {
        if (!has(*made->engine, tensor)) return give_up(LM_INTERFACE, tensor.name);
    }
    made->execution = sound(made->engine->createExecutionContext());
    if (made->execution == nullptr) return give_up(LM_OUT_OF_MEMORY, "TensorRT gives no execution context");
    for (int i = 0; i < 3; ++i) {
        made->bytes[i] = sizeof(float);
        for (int32_t side = 0; side < tensors[i].count; ++side) {
            made->bytes[i] *= static_cast<size_t>(tensors[i].sides[side]);
        }
        if (!driver.call(LM_CU_MEM_ALLOC, &made->buffers[i], made->bytes[i])) {
            int32_t const end = driver.failed(words);
            lm_close(made);
            return end;
        }
        if (!made->execution->setTensorAddress(tensors[i].name, reinterpret_cast<void *>(made->buffers[i]))) {
            return give_up(LM_REFUSED, "TensorRT does not take a tensor's address");
        }
    }
    *engine = made;
    return LM_OK;
}

extern "C" int32_t lm_run(
    lm_engine *engine, const float *frame, float *coordinates, float *sigma, lm_words words) {
    Driver &driver = engine->driver;
    driver.call(LM_CU_CTX_SET_CURRENT, engine->context);
    driver.call(LM_CU_MEMCPY_HTOD_ASYNC, engine->buffers[0], static_cast<const void *>(frame), engine->bytes[0],
        engine->stream);
    bool const ran = driver.result == kSUCCESS && engine->execution->enqueueV3(engine->stream);
    if (ran) {
        driver.call(LM_CU_MEMCPY_DTOH_ASYNC, static_cast<void *>(coordinates), engine->buffers[1], engine->bytes[1],
            engine->stream);
        driver.call(
            LM_CU_MEMCPY_DTOH_ASYNC, static_cast<void *>(sigma), engine->buffers[2], engine->bytes[2], engine->stream);
    }
    // Whatever failed: the caller's memory is its own again when this returns, so nothing may be under way.
    Driver last{driver.functions};
    last.call(LM_CU_STREAM_SYNCHRONIZE, engine->stream);
    if (driver.result == kSUCCESS) driver.result = last.result;
    if (driver.result != kSUCCESS) return driver.failed(words);
    return ran ? LM_OK : refuse(words, LM_CUDA, "TensorRT does not run the engine");
}

extern "C" void lm_close(lm_engine *engine) {
    if (engine == nullptr) return;
    // What failed before does not keep the rest from being given back.
    Driver driver{engine->driver.functions};
    auto free = [&driver](int which, auto... arguments) {
        driver.call(which, arguments...);
        driver.result = kSUCCESS;
    };
    if (engine->context != nullptr) free(LM_CU_CTX_SET_CURRENT, engine->context);
    if (engine->stream != nullptr) free(LM_CU_STREAM_SYNCHRONIZE, engine->stream);
    delete engine->execution;
    delete engine->engine;
    delete engine->runtime;
    for (CUdeviceptr buffer : engine->buffers) {
        if (buffer != 0) free(LM_CU_MEM_FREE, buffer);
    }
    if (engine->stream != nullptr) free(LM_CU_STREAM_DESTROY, engine->stream);
    if (engine->context != nullptr) free(LM_CU_DEVICE_PRIMARY_CTX_RELEASE, engine->device);
    delete engine;
}
