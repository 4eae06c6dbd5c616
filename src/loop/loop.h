/*
 * An event loop of libuv's that cannot abort the process once it is open.
 *
 * libuv calls abort() where the kernel does not take a descriptor into its epoll set, where it has no memory for the
 * list of its descriptors, and where it has no pipe for its signals. All of that happens when a loop gets a descriptor.
 * The ones it always has, for signals and for uv_async_t, it gets in here, and an abort becomes an error. So nothing
 * else may be given one: sockets and files are a reactor's (reactor.h), and what is on the loop is timers, signals and
 * asyncs, which need neither memory nor the kernel. For the same reason nobody uses libuv's pool of threads.
 *
 * Threads: loop_open() in one at a time.
 */
#pragma once

#include <uv.h>

/*
 * 0, or an error; then the loop is not to be used, nor closed: libuv may be half-way in it. After an error nobody may
 * open the process's first loop again.
 */
int loop_open(uv_loop_t *loop);
