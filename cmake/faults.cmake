# Leads calls of the system through spec/faults/shim.c, which makes them fail when asked to.
# Lua's memory goes past it: what Lua does without memory is Lua's affair.

set(wrapped
  malloc calloc realloc strdup strndup
  accept4 bind connect epoll_create1 epoll_ctl epoll_pwait epoll_wait eventfd getrlimit getsockname ioctl listen
  opendir pipe2 pthread_create recv send setsockopt shutdown socket syscall)
list(TRANSFORM wrapped PREPEND "-Wl,--wrap=")
target_sources(perilune PRIVATE spec/faults/shim.c)
target_link_options(perilune PRIVATE ${wrapped})
set_source_files_properties(src/vm/memory.c src/vm/self_test.c PROPERTIES COMPILE_DEFINITIONS realloc=__real_realloc)
