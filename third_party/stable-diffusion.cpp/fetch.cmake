# Sets SNAPLLM_SD_SOURCE: the pinned upstream tree, unpacked beside this file, or a
# checkout. The main project includes this too, so that configuring it is enough to have
# all sources.
set(SNAPLLM_STABLE_DIFFUSION_CPP_DIR "" CACHE PATH
    "A stable-diffusion.cpp checkout to build instead of the pinned one")
if(SNAPLLM_STABLE_DIFFUSION_CPP_DIR)
  set(SNAPLLM_SD_SOURCE ${SNAPLLM_STABLE_DIFFUSION_CPP_DIR})
else()
  set(SNAPLLM_SD_SOURCE ${CMAKE_CURRENT_LIST_DIR}/upstream)
  snapllm_fetch_source(${CMAKE_CURRENT_LIST_DIR}/requirements.lock
                       vendor/stable-diffusion.cpp ${SNAPLLM_SD_SOURCE}
                       EXCLUDE "docs|assets|script")
endif()
