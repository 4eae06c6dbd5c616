/* How Perilune's own modules are found, and how they are compiled once for many VMs. */
#include "vm/vm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct module {
	struct module *next;
	char *name;
	uint8_t *code; /* vm_dump() */
	size_t bytes;
};

static struct module *modules;
static bool is_shared;

static void free_module(struct module *module)
{
	free(module->name);
	free(module->code);
	free(module);
}

void vm_share_modules(bool share)
{
	is_shared = share;
	while (modules) {
		struct module *next = modules->next;
		free_module(modules);
		modules = next;
	}
}

static const struct module *modules_find(const char *name)
{
	for (const struct module *each = modules; each; each = each->next)
		if (!strcmp(each->name, name))
			return each;
	return NULL;
}

/* Keeps the function on top of the stack, unless memory is short. */
static void modules_keep(lua_State *lua, const char *name)
{
	struct module *module = calloc(1, sizeof *module);
	if (!module)
		return;
	module->name = strdup(name);
	module->bytes = vm_dump_bytes(lua);
	module->code = malloc(module->bytes);
	if (!module->name || !module->bytes || !module->code || !vm_dump(lua, module->code)) {
		free_module(module);
		return;
	}
	module->next = modules;
	modules = module;
}

/* The file of "perilune.config.read": where the pattern has its last '?'. False: the name is too long. */
static bool modules_path_of(const char *pattern, const char *name, char *path, size_t size)
{
	const char *mark = strrchr(pattern, '?'); /* the folder may have more */
	if (!mark)
		return false;
	int before = (int)(mark - pattern);
	int n = snprintf(path, size, "%.*s%s%s", before, pattern, name, mark + 1);
	if (n < 0 || (size_t)n >= size)
		return false;
	for (char *at = path + before; at < path + before + strlen(name); at++)
		if (*at == '.')
			*at = '/';
	return true;
}

/* MAY RAISE. What require() calls to load a library in C that is late. */
static int l_make_library(lua_State *lua)
{
	const struct vm_library *library = lua_touserdata(lua, lua_upvalueindex(1));
	library->push(lua);
	return 1;
}

/*
 * MAY RAISE. A searcher for package.loaders: (name) → its chunk, or nothing: then others have a look. It takes a path
 * as it is, where package.path would split it at a ';', and put the name wherever there is a '?'.
 */
static int l_search(lua_State *lua)
{
	const char *name = luaL_checkstring(lua, 1);
	char path[4200];
	if (strncmp(name, "perilune", 8) != 0)
		return 0;
	const struct vm_library *library = vm_late_library(name);
	if (library) {
		lua_pushlightuserdata(lua, (void *)library);
		lua_pushcclosure(lua, l_make_library, 1);
		return 1;
	}
	const struct module *module = is_shared ? modules_find(name) : NULL;
	if (module)
		return luaL_loadbuffer(lua, (const char *)module->code, module->bytes, name) ? lua_error(lua)
											     : 1;
	if (!modules_path_of(lua_tostring(lua, lua_upvalueindex(1)), name, path, sizeof path))
		return 0;
	if (luaL_loadfile(lua, path))
		return access(path, F_OK) ? 0 : lua_error(lua);
	vm_despecialize(lua);
	if (is_shared)
		modules_keep(lua, name);
	return 1;
}

/* MAY RAISE. LuaJIT's searcher of Lua files, upvalue 1: (name) → its chunk, or what it has tried. */
static int l_search_files(lua_State *lua)
{
	lua_settop(lua, 1);
	lua_pushvalue(lua, lua_upvalueindex(1));
	lua_insert(lua, 1);
	lua_call(lua, 1, 1);
	vm_despecialize(lua);
	return 1;
}

/* The searchers are at the top of the stack. */
static void wrap_file_searcher(lua_State *lua)
{
	enum { FILES = 2 /* behind package.preload */ };
	lua_rawgeti(lua, -1, FILES);
	lua_pushcclosure(lua, l_search_files, 1);
	lua_rawseti(lua, -2, FILES);
}

void vm_open_modules(lua_State *lua, const char *pattern)
{
	lua_getglobal(lua, "table");
	lua_getfield(lua, -1, "insert");
	lua_getglobal(lua, "package");
	lua_getfield(lua, -1, "loaders");
	lua_remove(lua, -2);
	wrap_file_searcher(lua);
	lua_pushinteger(lua, 2); /* behind package.preload */
	lua_pushstring(lua, pattern);
	lua_pushcclosure(lua, l_search, 1);
	lua_call(lua, 3, 0);
	lua_pop(lua, 1);
}

void vm_push_function(lua_State *lua, const char *module, const char *name)
{
	lua_getglobal(lua, "require");
	lua_pushstring(lua, module);
	lua_call(lua, 1, 1);
	lua_getfield(lua, -1, name);
	lua_remove(lua, -2);
}
