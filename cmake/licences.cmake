# Installs the licences of what the extensions link beside them; the NOTICE files name
# each work and the file with its text. Every text comes from the sources that are built.
set(SNAPLLM_LICENCES snapllm/third_party_licenses)

# snapllm_install_licence(<name> <file>): a file that is a licence as a whole.
function(snapllm_install_licence name file)
  if(NOT EXISTS ${file})
    message(WARNING "No ${name} is installed: ${file} does not exist")
    return()
  endif()
  install(FILES ${file} RENAME ${name} DESTINATION ${SNAPLLM_LICENCES} COMPONENT licences)
endfunction()

# snapllm_extract_licence(<name> <source file> <first words> <end>): a licence that stands
# in a comment, from its first words to before the first <end> after them.
function(snapllm_extract_licence name source first_words end)
  set(text "")
  if(EXISTS ${source})
    file(READ ${source} text)
  endif()
  string(FIND "${text}" "${first_words}" start)
  if(start EQUAL -1)
    message(WARNING "No ${name} is installed: ${source} does not hold it")
    return()
  endif()
  string(SUBSTRING "${text}" ${start} -1 text)
  string(FIND "${text}" "${end}" length)
  string(SUBSTRING "${text}" 0 ${length} text)
  file(WRITE ${CMAKE_BINARY_DIR}/licences/${name} "${text}\n")
  snapllm_install_licence(${name} ${CMAKE_BINARY_DIR}/licences/${name})
endfunction()

# Both extensions hold pybind11, whose package has its licence in its metadata: newer ones
# in a folder there. Debian's package has it where all of Debian's have theirs.
set(metadata ${pybind11_DIR}/../../../../pybind11*-${pybind11_VERSION}.dist-info)
file(GLOB found ${metadata}/LICENSE ${metadata}/licenses/LICENSE
     /usr/share/doc/pybind11-dev/copyright)
list(APPEND found ${pybind11_DIR}/LICENSE)
list(GET found 0 found)
snapllm_install_licence(LICENSE-pybind11 ${found})
