/*
 * Lines of files, and files as a whole, for lua/perilune/files.lua. LuaJIT reads lines with fgets() and strlen(), so that
 * one of zero bytes never comes to its end: a device that gives nothing else would hold the worker for ever. A whole
 * file it reads into a buffer that doubles, which goes far past the limit of memory before anybody looks.
 */
#include "bind/bind.h"
#include "vm/vm.h"

#include <errno.h>
#include <lualib.h>
#include <stdio.h>
#include <string.h>

/* MAY RAISE. What LuaJIT's userdata of files begin with. */
static FILE *check_file(lua_State *lua)
{
	FILE *file = *(FILE **)luaL_checkudata(lua, 1, LUA_FILEHANDLE);
	if (!file)
		RAISE(lua, "attempt to use a closed file");
	return file;
}

static int push_error(lua_State *lua, int error)
{
	lua_pushnil(lua);
	lua_pushstring(lua, strerror(error));
	lua_pushinteger(lua, error);
	return 3;
}

/* Up to `size` bytes, and not past the end of the line; *last is the byte read last, or EOF. */
static size_t read_piece(FILE *file, char *piece, size_t size, int *last)
{
	size_t n = 0;
	flockfile(file); /* the standard ones are those of all workers */
	do {
		*last = getc_unlocked(file);
		if (*last != EOF)
			piece[n++] = (char)*last;
	} while (*last != EOF && *last != '\n' && n < size);
	funlockfile(file);
	return n;
}

/*
 * MAY RAISE. line(file, keeps) → the next line, with its end if `keeps`; nil: there is no more; or nil, message, errno.
 * Ends soon after the call has been ended; how long the line may be is for the limit of memory to say.
 */
static int l_line(lua_State *lua)
{
	FILE *file = check_file(lua);
	bool keeps = lua_toboolean(lua, 2);
	const volatile sig_atomic_t *stop = &vm_of(lua)->guard.verdict;
	size_t bytes = 0;
	int last;
	luaL_Buffer line;
	clearerr(file);
	luaL_buffinit(lua, &line);
	do {
		if (*stop)
			RAISE(lua, "reading a line was ended");
		size_t n = read_piece(file, luaL_prepbuffer(&line), LUAL_BUFFERSIZE, &last);
		bytes += n;
		luaL_addsize(&line, last == '\n' && !keeps ? n - 1 : n);
	} while (last != EOF && last != '\n');
	int error = ferror(file) ? errno : 0;
	luaL_pushresult(&line);
	if (!error && bytes)
		return 1;
	if (error)
		return push_error(lua, error);
	lua_pushnil(lua);
	return 1;
}

/* MAY RAISE. all(file) → what is left of it, "" at its end; or nil, message, errno. Ends as line() does. */
static int l_all(lua_State *lua)
{
	FILE *file = check_file(lua);
	const volatile sig_atomic_t *stop = &vm_of(lua)->guard.verdict;
	size_t n;
	luaL_Buffer all;
	clearerr(file);
	luaL_buffinit(lua, &all);
	do {
		if (*stop)
			RAISE(lua, "reading a file was ended");
		n = fread(luaL_prepbuffer(&all), 1, LUAL_BUFFERSIZE, file);
		luaL_addsize(&all, n);
	} while (n == LUAL_BUFFERSIZE);
	int error = ferror(file) ? errno : 0;
	luaL_pushresult(&all);
	return error ? push_error(lua, error) : 1;
}

static const luaL_Reg FUNCTIONS[] = {
	{ "line", l_line },
	{ "all", l_all },
	{ NULL, NULL },
};

void bind_files(lua_State *lua)
{
	lua_newtable(lua);
	luaL_register(lua, NULL, FUNCTIONS);
}
