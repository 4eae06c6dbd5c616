# Target perilune_flags: how everything of ours is compiled. Assertions stay on in all of them.

include(CheckIPOSupported)
include(CheckPIESupported)

set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
check_pie_supported(LANGUAGES C)
# The executable exports LuaJIT's symbols for C modules. Ours stay inside, or LTO could not touch them.
set(CMAKE_C_VISIBILITY_PRESET hidden)
# A target that is up to date says nothing.
set_property(GLOBAL PROPERTY TARGET_MESSAGES OFF)

# CMake's own would add -DNDEBUG.
set(CMAKE_C_FLAGS_RELEASE "-O3 -g")
set(CMAKE_C_FLAGS_DEBUG "-Og -g")

add_library(perilune_flags INTERFACE)
target_compile_definitions(perilune_flags INTERFACE _GNU_SOURCE)
target_compile_options(perilune_flags INTERFACE
  -Wall -Wextra -Wmissing-prototypes -Wshadow -Wconversion -Wstrict-prototypes
  # gcc leaves signs out of -Wconversion, clang does not.
  $<$<C_COMPILER_ID:Clang>:-Wno-sign-conversion -Wstring-conversion>
  $<$<BOOL:${PERILUNE_WERROR}>:-Werror>)

if(PERILUNE_SANITIZE)
  target_compile_options(perilune_flags INTERFACE
    -fsanitize=${PERILUNE_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer
    # TSan keeps a call stack of its own; lua_error() unwinds it only through frames with clean-ups, and
    # after 65,536 errors it would be full.
    -fexceptions)
  target_link_options(perilune_flags INTERFACE -fsanitize=${PERILUNE_SANITIZE})
  # malloc knows the bounds of each block, our slabs do not.
  target_compile_definitions(perilune_flags INTERFACE PERILUNE_PLAIN_ALLOC)
else()
  target_compile_options(perilune_flags INTERFACE
    -fstack-protector-strong $<$<CONFIG:Release>:-D_FORTIFY_SOURCE=2>)
  target_link_options(perilune_flags INTERFACE -Wl,-z,relro,-z,now)
endif()

if(PERILUNE_LTO)
  check_ipo_supported(RESULT lto_works OUTPUT why_not LANGUAGES C)
  if(lto_works)
    set(CMAKE_INTERPROCEDURAL_OPTIMIZATION ON)
    # With machine code in them, too: tests link that, in a twentieth of the time.
    target_compile_options(perilune_flags INTERFACE $<$<C_COMPILER_ID:GNU>:-ffat-lto-objects>)
  else()
    message(NOTICE "Built without LTO: ${why_not}")
  endif()
endif()
