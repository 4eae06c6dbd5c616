#include "support/lua_fuzz.h"

#include "bind/bind.h"
#include "vm/vm.h"

#include <stdio.h>
#include <stdlib.h>

enum { COLLECT_EVERY = 1000 };

static struct vm vm;

static void open_vm(const char *check, void (*push)(lua_State *lua))
{
	char pattern[4096];
	if (vm_find_lua_path(pattern, sizeof pattern))
		abort();
	vm_set_lua_path(pattern);
	vm_set_libraries(BIND_LIBRARIES);
	if (vm_open(&vm) || luaL_loadstring(vm.lua, check))
		abort();
	vm_despecialize(vm.lua);
	push(vm.lua);
}

/*
 * The VM keeps what it has behind pointers with tags, which LeakSanitizer cannot follow. What is tried here has no
 * memory but the VM's. (Its runtime may be a shared library, which has to see this.)
 */
/* NOLINTBEGIN(bugprone-reserved-identifier) */
const char *__lsan_default_suppressions(void) __attribute__((visibility("default")));

const char *__lsan_default_suppressions(void)
/* NOLINTEND(bugprone-reserved-identifier) */
{
	return "leak:vm_alloc\n";
}

lua_State *lua_fuzz_vm(const char *check, void (*push)(lua_State *lua))
{
	static unsigned inputs;
	if (!vm.lua)
		open_vm(check, push);
	if (++inputs % COLLECT_EVERY == 0)
		lua_gc(vm.lua, LUA_GCCOLLECT, 0);
	return vm.lua;
}

void lua_fuzz_fail(lua_State *lua)
{
	fprintf(stderr, "%s\n", lua_tostring(lua, -1));
	abort();
}
