# Configures and builds cpp/diffusion beside this project, with its settings, and
# installs the extension: two ggmls cannot be in one CMake project.
include(ExternalProject)
include(third_party/stable-diffusion.cpp/fetch.cmake)

set(settings "")
foreach(name CMAKE_BUILD_TYPE CMAKE_C_COMPILER CMAKE_CXX_COMPILER CMAKE_C_COMPILER_LAUNCHER
             CMAKE_CXX_COMPILER_LAUNCHER CMAKE_MAKE_PROGRAM CMAKE_TOOLCHAIN_FILE
             CMAKE_OSX_ARCHITECTURES CMAKE_OSX_DEPLOYMENT_TARGET CMAKE_CUDA_ARCHITECTURES
             CMAKE_CUDA_COMPILER CMAKE_CUDA_HOST_COMPILER CMAKE_C_FLAGS CMAKE_CXX_FLAGS
             CMAKE_CUDA_FLAGS CMAKE_MODULE_LINKER_FLAGS CMAKE_PREFIX_PATH CUDAToolkit_ROOT
             Python_EXECUTABLE pybind11_DIR SNAPLLM_NATIVE SNAPLLM_CUDA
             SNAPLLM_METAL SNAPLLM_VULKAN SNAPLLM_WERROR SNAPLLM_UPSTREAM_TOOLS
             SNAPLLM_STABLE_DIFFUSION_CPP_DIR)
  if(DEFINED ${name} AND NOT "${${name}}" STREQUAL "")
    string(REPLACE ";" "|" value "${${name}}")
    list(APPEND settings -D${name}=${value})
  endif()
endforeach()
foreach(setting ${SNAPLLM_GGML_SETTINGS})
  list(APPEND settings -D${setting})
endforeach()

set(folder ${CMAKE_BINARY_DIR}/diffusion)
ExternalProject_Add(snapllm_diffusion
  SOURCE_DIR ${CMAKE_SOURCE_DIR}/cpp/diffusion
  BINARY_DIR ${folder}
  CMAKE_ARGS ${settings}
  LIST_SEPARATOR |
  BUILD_ALWAYS ON
  INSTALL_COMMAND ""
  USES_TERMINAL_BUILD ON)

# The file's name depends on the interpreter, so it is known only once built.
install(CODE "
  file(GLOB built \"${folder}/_diffusion*.so\" \"${folder}/*/_diffusion*.pyd\")
  if(NOT built)
    message(FATAL_ERROR \"snapllm._diffusion was not built\")
  endif()
  file(INSTALL \${built} DESTINATION \"\${CMAKE_INSTALL_PREFIX}/snapllm\")"
  COMPONENT python)

# The licences of what it links go where it goes; nlohmann/json's is llama.cpp's too.
install(FILES third_party/stable-diffusion.cpp/NOTICE RENAME NOTICE-diffusion
        DESTINATION ${SNAPLLM_LICENCES} COMPONENT licences)
snapllm_install_licence(LICENSE-stable-diffusion.cpp ${SNAPLLM_SD_SOURCE}/LICENSE)
snapllm_install_licence(LICENSE-ggml-diffusion ${SNAPLLM_SD_SOURCE}/ggml/LICENSE)
snapllm_install_licence(LICENSE-darts-clone
                        ${SNAPLLM_SD_SOURCE}/thirdparty/LICENSE.darts_clone.txt)
# Both of miniz' licences stand in one place, one after the other; zip's is the first.
snapllm_extract_licence(LICENSE-zip-miniz ${SNAPLLM_SD_SOURCE}/thirdparty/miniz.h
                        "This is free and unencumbered software" "**/")
