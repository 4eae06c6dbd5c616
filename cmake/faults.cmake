# Target perilune_faults: the executable whose calls of the system lead through spec/faults/shim.c, which makes them
# fail when asked to, and those of Lua's API that may collect through spec/faults/lua_shim.c, as well as Lua's own memory.

set(wrapped
  malloc calloc realloc strdup strndup
  accept4 bind connect epoll_create1 epoll_ctl epoll_pwait epoll_wait eventfd getpeername getrlimit getsockname
  ioctl listen opendir pipe2 pthread_create recv recvmmsg send sendfile sendmmsg setsockopt shutdown socket syscall
  luaL_loadbuffer luaL_loadfile luaL_loadstring luaL_newmetatable luaL_traceback
  lua_call lua_close lua_concat lua_cpcall lua_createtable lua_gc lua_newthread lua_newuserdata lua_pcall
  lua_pushcclosure lua_pushfstring lua_pushlstring lua_pushstring lua_resume lua_tolstring)
list(TRANSFORM wrapped PREPEND "-Wl,--wrap=")
add_executable(perilune_faults src/main.c spec/faults/shim.c spec/faults/lua_shim.c)
target_link_libraries(perilune_faults PRIVATE perilune_core luajit_for_modules)
target_link_options(perilune_faults PRIVATE ${wrapped})
set_target_properties(perilune_faults PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/test)

# perilune_own_realloc(file function): in place of the library's object of src/vm/FILE.c, one that calls that function.
function(perilune_own_realloc file function)
  add_library(perilune_faults_${file} OBJECT src/vm/${file}.c)
  target_link_libraries(perilune_faults_${file} PRIVATE perilune_core)
  target_compile_definitions(perilune_faults_${file} PRIVATE realloc=${function})
  target_sources(perilune_faults PRIVATE $<TARGET_OBJECTS:perilune_faults_${file}>)
endfunction()
perilune_own_realloc(memory lua_realloc)
perilune_own_realloc(self_test __real_realloc)
