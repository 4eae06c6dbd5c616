# Targets: luajit, luajit_for_modules, libuv, PkgConfig::JANSSON, PkgConfig::OPENSSL, PkgConfig::CARES, PkgConfig::PCRE2,
# PkgConfig::ZLIB, Threads::Threads.

find_package(PkgConfig REQUIRED)
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)
# Reads and writes what the control socket speaks.
pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET jansson>=2.13)
pkg_check_modules(OPENSSL REQUIRED IMPORTED_TARGET openssl>=3.0)
# Asks DNS servers; 1.18 is the first that says how long each address of an answer may be kept.
pkg_check_modules(CARES REQUIRED IMPORTED_TARGET libcares>=1.18)
# Sums and compresses what handlers ask for.
pkg_check_modules(ZLIB REQUIRED IMPORTED_TARGET zlib>=1.2.11)
# Matches ngx.re of drivers.
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8>=10.30)
pkg_check_modules(UV REQUIRED IMPORTED_TARGET libuv>=1.42)
if(PERILUNE_FAULTS)
  # What a shared library calls cannot be made to fail.
  find_library(UV_STATIC_LIBRARY NAMES libuv_a.a libuv.a HINTS ${UV_LIBDIR} REQUIRED)
  add_library(libuv INTERFACE)
  target_link_libraries(libuv INTERFACE ${UV_STATIC_LIBRARY} Threads::Threads ${CMAKE_DL_LIBS} rt)
else()
  add_library(libuv ALIAS PkgConfig::UV)
endif()

# A call into a shared library goes through the PLT: 8 ns each, several times per frame. So the
# static LuaJIT is preferred.
pkg_check_modules(LUAJIT REQUIRED luajit>=2.1)
pkg_get_variable(LUAJIT_LIBDIR luajit libdir)
find_library(LUAJIT_STATIC_LIBRARY libluajit-5.1.a HINTS ${LUAJIT_LIBDIR})

add_library(luajit INTERFACE)
target_include_directories(luajit SYSTEM INTERFACE ${LUAJIT_INCLUDE_DIRS})
add_library(luajit_for_modules INTERFACE)

if(LUAJIT_STATIC_LIBRARY)
  target_link_libraries(luajit INTERFACE ${LUAJIT_STATIC_LIBRARY} m ${CMAKE_DL_LIBS})
  # Modules for Lua in C take the API from the executable, and may use parts that we do not.
  target_link_options(luajit_for_modules INTERFACE
    -Wl,-E -Wl,--whole-archive ${LUAJIT_STATIC_LIBRARY} -Wl,--no-whole-archive)
else()
  message(NOTICE "No static LuaJIT in ${LUAJIT_LIBDIR}: the shared one makes calls into Lua slower")
  target_link_directories(luajit INTERFACE ${LUAJIT_LIBRARY_DIRS})
  target_link_libraries(luajit INTERFACE ${LUAJIT_LIBRARIES})
endif()
