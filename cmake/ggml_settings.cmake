# snapllm_cached_ggml_settings(<result>): all of ggml's cached options, as NAME=VALUE with
# | between the items of a list.
function(snapllm_cached_ggml_settings result)
  get_cmake_property(names CACHE_VARIABLES)
  list(FILTER names INCLUDE REGEX "^GGML_")
  set(settings "")
  foreach(name ${names})
    string(REPLACE ";" "|" value "$CACHE{${name}}")
    list(APPEND settings "${name}=${value}")
  endforeach()
  set(${result} "${settings}" PARENT_SCOPE)
endfunction()
