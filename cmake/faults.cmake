# Leads calls of the system through spec/faults/shim.c, which makes them fail when asked to, and those of Lua's API that
# may collect through spec/faults/lua_shim.c, as well as Lua's own memory.

set(wrapped
  malloc calloc realloc strdup strndup
  accept4 bind connect epoll_create1 epoll_ctl epoll_pwait epoll_wait eventfd getpeername getrlimit getsockname
  ioctl listen opendir pipe2 pthread_create recv recvmmsg send sendmmsg setsockopt shutdown socket syscall
  luaL_loadbuffer luaL_loadfile luaL_loadstring luaL_newmetatable luaL_traceback
  lua_call lua_close lua_concat lua_cpcall lua_createtable lua_gc lua_newthread lua_newuserdata lua_pcall
  lua_pushcclosure lua_pushfstring lua_pushlstring lua_pushstring lua_resume lua_tolstring)
list(TRANSFORM wrapped PREPEND "-Wl,--wrap=")
target_sources(perilune PRIVATE spec/faults/shim.c spec/faults/lua_shim.c)
target_link_options(perilune PRIVATE ${wrapped})
set_source_files_properties(src/vm/memory.c PROPERTIES COMPILE_DEFINITIONS realloc=lua_realloc)
set_source_files_properties(src/vm/self_test.c PROPERTIES COMPILE_DEFINITIONS realloc=__real_realloc)
