/*
 * The C/Lua boundary: one file per Lua library, one list of openers.
 *
 * Functions marked MAY RAISE leave by longjmp on bad arguments: they validate
 * before they acquire anything. Misuse raises; for what a network can do a function
 * returns nil, message and, where programs tell cases apart, a code.
 */
#pragma once

#include "agent/run.h"
#include "base/log.h"

#include <lauxlib.h>
#include <lua.h>
#include <stdint.h>
#include <stdlib.h>

/* luaL_error(), in words that the compiler and its analyzers understand: it does not return. */
#define RAISE(...)                       \
	do {                             \
		luaL_error(__VA_ARGS__); \
		abort();                 \
	} while (0)

/* MAY RAISE: where there are more than n arguments, `self` included, which `what` ("conn:send") would not look at. */
#define BIND_AT_MOST(lua, n, what)                          \
	do {                                                \
		if (lua_gettop(lua) > (n))                  \
			bind_refuse_more((lua), (n), what); \
	} while (0)

/* choice.c: the same, when there are more. Those that are nil say nothing, so that nothing is lost. MAY RAISE. */
void bind_refuse_more(lua_State *lua, int n, const char *what);

/* conn.c: pushes the metatable of conn objects. */
void bind_conn(lua_State *lua);

/* core.c: pushes the table behind `require "perilune"`. */
void bind_core(lua_State *lua);

/* strings.c: pushes the table that lua/perilune/strings.lua is made from: the functions that take patterns. */
void bind_strings(lua_State *lua);

/* strings.c: raises that a result of `what` is over the limit. MAY RAISE: it always does. */
void bind_raise_too_large(lua_State *lua, const char *what, size_t max);

/* pack.c: pushes the table with string.pack and its kin. */
void bind_pack(lua_State *lua);

/* paths.c: pushes the table behind `require "perilune.paths"`. */
void bind_paths(lua_State *lua);

/* logging.c: pushes the table that lua/perilune/test/host.lua logs with. */
void bind_logging(lua_State *lua);

/* compile.c: pushes the table that load() of scripts compiles with. */
void bind_compile(lua_State *lua);

/* tls.c: pushes what is known of a connection that has TLS: conn.tls. MAY RAISE. */
struct ssl_st;
void bind_push_tls(lua_State *lua, struct ssl_st *ssl);

/* files.c: pushes the table that lua/perilune/files.lua reads lines with. */
void bind_files(lua_State *lua);

/* What main() hands to vm_set_libraries(). */
extern const struct vm_library BIND_LIBRARIES[];

/*
 * codec.c: fills in a codec from the canonical table (perilune.config.frame) at idx. A codec in Lua
 * keeps references to its functions in the registry. NULL, or what is wrong. MAY RAISE on no memory.
 */
const char *bind_codec(lua_State *lua, int idx, struct codec *codec);

/* codec.c: the same from what a user wrote (a name or a table) at idx. MAY RAISE. */
void bind_codec_check(lua_State *lua, int idx, uint32_t max_bytes, struct codec *codec);

/* conn.c: the running call. MAY RAISE: only the handler's own coroutine, in a callback that may wait. `what`
 * names the function for the message. */
struct run *bind_check_may_wait(lua_State *lua, const char *what);

/* conn.c: suspends the running call; return what it returns. MAY YIELD. */
int bind_wait(lua_State *lua, struct run *run, enum wait wait, uint64_t until_ms);

/*
 * logging.c: the arguments of perilune.log(level, message[, fields]) as an entry, whose fields are BIND_LOG_FIELDS at
 * most, and may have more behind them. It refers to the arguments. MAY RAISE.
 */
enum { BIND_LOG_FIELDS = 16 };
void bind_log_check(lua_State *lua, struct log_entry *entry, struct log_field *fields);

/* choice.c: which of the names, that NULL ends, is at idx. MAY RAISE, and asks what may have been meant. */
unsigned bind_choice_check(lua_State *lua, int idx, const char *const *names);

/* codec.c: a duration at idx (seconds, "5m", false) in milliseconds. MAY RAISE. */
uint32_t bind_duration_check(lua_State *lua, int idx);
