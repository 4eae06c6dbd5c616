# Target perilune_support: the core, and what tests and fuzz targets have in common.

file(GLOB support_sources CONFIGURE_DEPENDS spec/support/*.c)
add_library(perilune_support STATIC ${support_sources})
target_link_libraries(perilune_support PUBLIC perilune_core)
target_include_directories(perilune_support PUBLIC ${CMAKE_SOURCE_DIR}/spec)
