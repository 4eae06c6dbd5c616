/*
 * Lines of files, numbers in them, and files as a whole, for lua/perilune/files.lua. LuaJIT reads lines with fgets()
 * and strlen(), so that one of zero bytes never comes to its end: a device that gives nothing else would hold the
 * worker for ever. White space and digits it reads to their end, however far that is. A whole file it reads into a
 * buffer that doubles, which goes far past the limit of memory before anybody looks. And what it opens may be a FIFO,
 * which is waited for inside of fopen(), or the process's own memory: here only files are opened.
 */
#include "base/regular.h"
#include "bind/bind.h"
#include "vm/vm.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <lualib.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

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
static size_t files_read_piece(FILE *file, char *piece, size_t size, int *last)
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
	struct guard *guard = &vm_of(lua)->guard;
	size_t bytes = 0;
	int last;
	luaL_Buffer line;
	clearerr(file);
	luaL_buffinit(lua, &line);
	do {
		if (guard_must_end(guard, lua))
			RAISE(lua, "reading a line was ended");
		size_t n = files_read_piece(file, luaL_prepbuffer(&line), LUAL_BUFFERSIZE, &last);
		bytes += n;
		luaL_addsize(&line, last == '\n' && !keeps ? n - 1 : n);
	} while (last != EOF && last != '\n');
	int error = ferror(file) ? errno : 0;
	guard_note_return(&vm_of(lua)->guard, lua);
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
	struct guard *guard = &vm_of(lua)->guard;
	size_t n;
	luaL_Buffer all;
	clearerr(file);
	luaL_buffinit(lua, &all);
	do {
		if (guard_must_end(guard, lua))
			RAISE(lua, "reading a file was ended");
		n = fread(luaL_prepbuffer(&all), 1, LUAL_BUFFERSIZE, file);
		luaL_addsize(&all, n);
	} while (n == LUAL_BUFFERSIZE);
	int error = ferror(file) ? errno : 0;
	guard_note_return(&vm_of(lua)->guard, lua);
	luaL_pushresult(&all);
	return error ? push_error(lua, error) : 1;
}

/* Up to `most` bytes of white space; true: there may be more. */
static bool skip_blanks(FILE *file, size_t most)
{
	int c;
	flockfile(file);
	do
		c = getc_unlocked(file);
	while (c != EOF && isspace(c) && --most);
	bool is_blank = c != EOF && isspace(c);
	if (!is_blank)
		ungetc(c, file);
	funlockfile(file);
	return is_blank;
}

/*
 * MAY RAISE. number(file) → the next number; nil: there is none; or nil, message, errno. As LuaJIT reads it, by
 * scanf(), but for one of more than NUMERAL_BYTES: what is behind them is another one.
 */
static int l_number(lua_State *lua)
{
	enum { PIECE_BYTES = 65536 };
#define NUMERAL_BYTES "4096"
	FILE *file = check_file(lua);
	double number;
	clearerr(file);
	while (skip_blanks(file, PIECE_BYTES))
		if (guard_must_end(&vm_of(lua)->guard, lua))
			RAISE(lua, "reading a number was ended");
	bool is_number = fscanf(file, "%" NUMERAL_BYTES "lf", &number) == 1;
	if (ferror(file))
		return push_error(lua, errno);
	if (is_number)
		lua_pushnumber(lua, number);
	else
		lua_pushnil(lua);
	return 1;
}

/* ---- opening ---- */

/* As fopen(3) takes them. -1: it is no mode. */
static int flags_of(const char *mode)
{
	bool both = strchr(mode, '+');
	int flags = both ? O_RDWR : *mode == 'r' ? O_RDONLY : O_WRONLY;
	if (!*mode || !strchr("rwa", *mode) || strspn(mode + 1, "+bxe") != strlen(mode + 1))
		return -1;
	if (*mode != 'r')
		flags |= O_CREAT | (*mode == 'a' ? O_APPEND : O_TRUNC);
	return flags | (strchr(mode, 'x') && *mode != 'r' ? O_EXCL : 0);
}

/* nil, message, errno. */
static int push_open_error(lua_State *lua, const char *path, const char *instead, int error)
{
	lua_pushnil(lua);
	if (instead && error != EISDIR)
		lua_pushfstring(lua, "%s: is %s: only files can be opened, unless unsafe has \"io.special\"",
				path, instead);
	else
		lua_pushfstring(lua, "%s: %s", path, strerror(error));
	lua_pushinteger(lua, error);
	return 3;
}

/* Does `unsafe` let special files be opened? MAY RAISE: while the script is loaded, the answer may be an error. */
static bool takes_special(lua_State *lua)
{
	lua_pushvalue(lua, lua_upvalueindex(2));
	lua_pushliteral(lua, "io.special");
	lua_call(lua, 1, 1);
	bool takes = lua_toboolean(lua, -1);
	lua_pop(lua, 1);
	return takes;
}

/* MAY RAISE. LuaJIT's own io.open of these two arguments. */
static int open_anything(lua_State *lua)
{
	lua_pushvalue(lua, lua_upvalueindex(1));
	lua_insert(lua, 1);
	lua_call(lua, 2, LUA_MULTRET);
	guard_note_return(&vm_of(lua)->guard, lua);
	return lua_gettop(lua);
}

/*
 * MAY RAISE. open(path[, mode]) → file; nil, message, errno. Only LuaJIT can make its userdata of a file, so it opens
 * what is always there, and gets our file in its place: before that there is nothing to be lost by an error.
 */
static int l_files_open(lua_State *lua)
{
	const char *path = luaL_checkstring(lua, 1), *mode = luaL_optstring(lua, 2, "r"), *instead = NULL;
	int flags = flags_of(mode);
	if (flags < 0)
		return push_open_error(lua, path, NULL, EINVAL);
	lua_settop(lua, 2);
	lua_pushvalue(lua, lua_upvalueindex(1));
	lua_pushliteral(lua, "/");
	lua_call(lua, 1, 1);
	FILE **file = lua_touserdata(lua, 3); /* NULL: there are no descriptors, which the next one says */
	if (file) {
		fclose(*file);
		*file = NULL;
	}
	int fd = file ? harmless_open(path, flags, 0666, &instead) : -EMFILE;
	guard_note_return(&vm_of(lua)->guard, lua);
	if (fd < 0 && instead && fd != -EISDIR && takes_special(lua)) {
		lua_settop(lua, 2);
		return open_anything(lua);
	}
	if (fd < 0)
		return push_open_error(lua, path, instead, -fd);
	*file = fdopen(fd, mode);
	if (*file)
		return 1;
	int error = errno;
	close(fd);
	return push_open_error(lua, path, NULL, error);
}

/* MAY RAISE. opener(io.open, may_open) → the io.open of scripts; may_open(name) tells what `unsafe` has. */
static int l_opener(lua_State *lua)
{
	luaL_checktype(lua, 1, LUA_TFUNCTION);
	luaL_checktype(lua, 2, LUA_TFUNCTION);
	lua_settop(lua, 2);
	lua_pushcclosure(lua, l_files_open, 2);
	return 1;
}

static const luaL_Reg FUNCTIONS[] = {
	{ "line", l_line }, { "all", l_all }, { "number", l_number }, { "opener", l_opener }, { NULL, NULL },
};

void bind_files(lua_State *lua)
{
	lua_newtable(lua);
	luaL_register(lua, NULL, FUNCTIONS);
}
