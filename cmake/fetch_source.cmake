# The user's cache folder for sources, or the build folder where it cannot be written.
function(snapllm_source_cache result)
  set(folder "$ENV{XDG_CACHE_HOME}")
  if(folder STREQUAL "" AND NOT "$ENV{HOME}" STREQUAL "")
    set(folder $ENV{HOME}/.cache)
  endif()
  string(COMPARE EQUAL "${folder}" "" failed)
  set(cache "${folder}/snapllm/sources")
  # By commands: file() would end the configuring where it fails.
  foreach(action make_directory touch)
    if(NOT failed)
      execute_process(COMMAND ${CMAKE_COMMAND} -E ${action} ${cache}
                      RESULT_VARIABLE failed OUTPUT_QUIET ERROR_QUIET)
    endif()
  endforeach()
  if(failed)
    set(cache ${CMAKE_BINARY_DIR}/sources)
    file(MAKE_DIRECTORY ${cache})
  endif()
  set(${result} ${cache} PARENT_SCOPE)
endfunction()

# snapllm_fetch_source(<lock file> <subfolder of the package> <destination> [EXCLUDE regex])
#
# Unpacks <subfolder> of the source package that the lock file pins into
# <destination>, once. The package comes through pip, so that the user's index and
# proxy settings hold, and pip checks its hash. It is kept in the user's cache
# folder. A destination that is already there, as in our own source distribution,
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
  snapllm_source_cache(cache)
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

  # Complete, with its lock, before it gets its name, and the last one loses its name as a
  # whole: what is killed on the way leaves nothing that looks like a shipped tree.
  message(STATUS "Unpacking ${stem}")
  set(scratch ${destination}.unpacking)
  set(unpacked ${scratch}/${stem}/${subfolder})
  file(REMOVE_RECURSE ${scratch})
  file(ARCHIVE_EXTRACT INPUT ${archive} DESTINATION ${scratch} PATTERNS "*/${subfolder}/*")
  if(ARG_EXCLUDE)
    file(GLOB unused ${unpacked}/*)
    list(FILTER unused INCLUDE REGEX "/(${ARG_EXCLUDE})$")
    file(REMOVE_RECURSE ${unused})
  endif()
  file(WRITE ${unpacked}/.snapllm-lock ${lock_hash})
  if(EXISTS ${destination})
    file(RENAME ${destination} ${scratch}/replaced)
  endif()
  file(RENAME ${unpacked} ${destination})
  file(REMOVE_RECURSE ${scratch})
endfunction()
