# snapllm_fetch_source(<lock file> <subfolder of the package> <destination> [EXCLUDE regex])
#
# Unpacks <subfolder> of the source package that the lock file pins into
# <destination>, once. The package comes through pip, so that the user's index and
# proxy settings hold, and pip checks its hash. It is kept in the user's cache
# folder; a destination that is already there, as in our own source distribution,
# needs no network.
function(snapllm_fetch_source lock subfolder destination)
  cmake_parse_arguments(ARG "" "EXCLUDE" "" ${ARGN})
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${lock})
  file(SHA256 ${lock} lock_hash)
  if(EXISTS ${destination}/CMakeLists.txt)
    if(NOT EXISTS ${destination}/.snapllm-lock)
      return()  # shipped with the source distribution
    endif()
    file(READ ${destination}/.snapllm-lock unpacked_hash)
    if(unpacked_hash STREQUAL lock_hash)
      return()
    endif()
  endif()

  file(STRINGS ${lock} pins REGEX "==")
  list(GET pins 0 pin)
  string(REGEX MATCH "^([A-Za-z0-9_-]+)==([0-9.]+)" matched "${pin}")
  set(package ${CMAKE_MATCH_1})
  string(REPLACE "-" "_" stem "${CMAKE_MATCH_1}-${CMAKE_MATCH_2}")
  string(REGEX REPLACE "_([0-9.]+)$" "-\\1" stem "${stem}")
  if(DEFINED ENV{XDG_CACHE_HOME})
    set(cache $ENV{XDG_CACHE_HOME}/snapllm/sources)
  else()
    set(cache $ENV{HOME}/.cache/snapllm/sources)
  endif()
  set(archive ${cache}/${stem}.tar.gz)

  file(STRINGS ${lock} hashes REGEX "sha256:")
  string(REGEX MATCH "sha256:([0-9a-f]+)" matched "${hashes}")
  set(expected ${CMAKE_MATCH_1})
  set(actual "")
  if(EXISTS ${archive})
    file(SHA256 ${archive} actual)
  endif()
  if(NOT actual STREQUAL expected)
    message(STATUS "Fetching ${stem}")
    file(MAKE_DIRECTORY ${cache})
    # Only the package itself must be a source archive: with :all:, pip would also
    # compile the build tools that its metadata asks for.
    execute_process(
      COMMAND ${Python_EXECUTABLE} -m pip download --quiet --disable-pip-version-check
              --no-deps --no-binary ${package} --require-hashes -r ${lock} -d ${cache}
      RESULT_VARIABLE result)
    if(NOT result EQUAL 0 OR NOT EXISTS ${archive})
      message(FATAL_ERROR "Could not fetch ${stem}. Give a checkout with "
                          "-DSNAPLLM_LLAMA_CPP_DIR= or -DSNAPLLM_STABLE_DIFFUSION_CPP_DIR=.")
    endif()
  endif()

  message(STATUS "Unpacking ${stem}")
  set(scratch ${destination}.unpacking)
  file(REMOVE_RECURSE ${scratch} ${destination})
  file(ARCHIVE_EXTRACT INPUT ${archive} DESTINATION ${scratch} PATTERNS "*/${subfolder}/*")
  file(RENAME ${scratch}/${stem}/${subfolder} ${destination})
  file(REMOVE_RECURSE ${scratch})
  if(ARG_EXCLUDE)
    file(GLOB unused ${destination}/*)
    list(FILTER unused INCLUDE REGEX "/(${ARG_EXCLUDE})$")
    file(REMOVE_RECURSE ${unused})
  endif()
  file(WRITE ${destination}/.snapllm-lock ${lock_hash})
endfunction()
