/* A VM for fuzz targets whose subject is a library in C, and whose check is a function in Lua. */
#pragma once

#include <lua.h>

/*
 * The VM, which is opened by the first call and outlives all inputs: on its stack are the check, and then what `push`
 * has pushed. Call it for each input: now and then it collects, since nobody paces this VM's collector, and what it
 * leaves would be found as memory that grows.
 */
lua_State *lua_fuzz_vm(const char *check, void (*push)(lua_State *lua));

/* The check failed, and its error is on top of the stack. */
void lua_fuzz_fail(lua_State *lua) __attribute__((noreturn));
