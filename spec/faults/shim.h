/* What can be made to fail. How to ask for it: shim.c */
#pragma once

#include <stdbool.h>

enum kind {
	MEMORY,     /* malloc and its kin, called by us */
	UV_MEMORY,  /* ... by libuv */
	LUA_MEMORY, /* ... by Lua, outside of protected calls */
	LUA_LARGE,
	LUA_STACK, /* a stack of Lua's that is to become larger */
	FINALISER, /* a call of Lua's API that may collect, in a protected call */
	ACCEPT4,
	BIND,
	CONNECT,
	EPOLL_CREATE1,
	EPOLL_CTL, /* EPOLL_CTL_ADD: the others need nothing that the kernel might not have */
	EPOLL_WAIT,
	EVENTFD,
	GETPEERNAME,
	GETRLIMIT,
	GETSOCKNAME,
	IOCTL,
	LISTEN,
	OPENDIR,
	PIPE2,
	PTHREAD_CREATE,
	RECVFROM, /* and recv */
	RECVMMSG,
	SENDFILE,
	SENDMMSG,
	SENDTO, /* and send */
	SETSOCKOPT,
	SHUTDOWN,
	SOCKET,
	KINDS
};

/* Counts a call. True: it is one of those that are to fail. */
bool shim_is_due(enum kind kind);
