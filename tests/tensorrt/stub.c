/* Stands in for libnvinfer, libnvonnxparser and libnvinfer_plugin, so that TensorRT's own Python API can be
   imported and its names looked up on a machine without TensorRT and without a GPU. Every entry point answers
   NULL, as the real ones do where there is no driver. Compiled when the tests run. */
#include <stddef.h>

#define ENTRY(name) void *name(void) { return NULL; }

ENTRY(createInferBuilder_INTERNAL)
ENTRY(createInferRefitter_INTERNAL)
ENTRY(createInferRuntime_INTERNAL)
ENTRY(createNvOnnxParserRefitter_INTERNAL)
ENTRY(createNvOnnxParser_INTERNAL)
ENTRY(getBuilderPluginRegistry)
ENTRY(getPluginRegistry)

int getNvOnnxParserVersion(void) { return 0; }
int initLibNvInferPlugins(void *logger, const char *name_space) { return 0; }
