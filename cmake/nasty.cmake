# Target perilune_nasty: the executable over streams that do whatever a stream may do, for specs: spec/nasty/hook.c.

add_executable(perilune_nasty src/main.c spec/nasty/hook.c)
target_link_libraries(perilune_nasty PRIVATE perilune_support luajit_for_modules)
# What is optimised across files cannot be led elsewhere.
target_link_options(perilune_nasty PRIVATE -Wl,--wrap=agents_open $<$<C_COMPILER_ID:GNU>:-fno-lto>)
set_target_properties(perilune_nasty PROPERTIES
  INTERPROCEDURAL_OPTIMIZATION OFF RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/test)
