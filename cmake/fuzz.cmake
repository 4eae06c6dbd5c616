# fuzz/X_fuzz.c becomes test/fuzz.X, which scripts/fuzz runs.

if(NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
  message(FATAL_ERROR "PERILUNE_FUZZ needs clang (and libclang-rt-dev): cmake --preset fuzz")
endif()
# The profile is for scripts/fuzz, which says what lines were reached.
target_compile_options(perilune_flags INTERFACE
  -fsanitize=fuzzer-no-link -fprofile-instr-generate -fcoverage-mapping)
target_link_options(perilune_flags INTERFACE -fprofile-instr-generate)

include(cmake/support.cmake)

file(GLOB fuzz_sources CONFIGURE_DEPENDS fuzz/*_fuzz.c)
foreach(source IN LISTS fuzz_sources)
  cmake_path(GET source STEM name)
  add_executable(${name} ${source})
  target_link_libraries(${name} PRIVATE perilune_support)
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  string(REPLACE "_fuzz" "" name_only ${name})
  set_target_properties(${name} PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/test OUTPUT_NAME fuzz.${name_only})
endforeach()
