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

/*
 * The same for what scripts call by way of Lua of ours: the line that is named is the script's. choice.c: MAY RAISE, it
 * always does.
 */
void bind_raise(lua_State *lua, const char *format, ...) __attribute__((format(__printf__, 2, 3), noreturn));

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

/* begin.c, sync.c: add to that table what begins tasks and timers, and what calls wait for each other with. */
void bind_begin(lua_State *lua);
void bind_sync(lua_State *lua);

/* connect.c: adds what makes connections out. */
void bind_connect(lua_State *lua);

/* job.c: adds what gives jobs. */
void bind_job(lua_State *lua);

/* core.c: the clock of its worker, in milliseconds. */
uint64_t bind_now_ms(const struct agents *agents);

/* names.c: adds what sends to agents by their names. */
void bind_names(lua_State *lua);

/* names.c: has the channel's agent a method message? MAY RAISE. */
bool bind_takes_messages(lua_State *lua, struct agents *agents, const struct channel *channel);

/* hub.c: adds what publishes to topics; and conn:join(), conn:leave(), conn:publish(), conn:topics(). */
void bind_hub(lua_State *lua);
int bind_conn_join(lua_State *lua);
int bind_conn_leave(lua_State *lua);
int bind_conn_publish(lua_State *lua);
int bind_conn_topics(lua_State *lua);

/* hub.c: the same for what `perilune.http` has of events. */
int bind_events_join(lua_State *lua);
int bind_events_leave(lua_State *lua);

/* dict.c: adds what shared dictionaries are made from. */
void bind_dict(lua_State *lua);

/* dict.c: MAY RAISE. Makes those that the script declares, before anybody asks for one. */
void bind_open_dicts(lua_State *lua);

/* begin.c: MAY RAISE. On whose behalf the running call is, which may begin something; `what` begins it, as `apps` does
 * in setup(app). */
struct channel *bind_check_beginner(lua_State *lua, const char *what, const char *apps);

/* conn.c: MAY RAISE. The channel of the conn object at 1; NULL: it has ended. */
struct channel *bind_check_conn(lua_State *lua);

/* conn.c: the channel with that id, or NULL: it has ended, to this VM. */
struct channel *bind_find_conn(struct agents *agents, uint64_t id);

/* conn.c: the running call, if it is on behalf of the channel's agent; NULL: it is not. */
struct run *bind_own_run(const struct agents *agents, const struct channel *channel);

/* conn.c: MAY RAISE. What such a call has returned before goes out now; NULL: there is none. */
void bind_take_replies(lua_State *lua, struct agents *agents, struct run *run);

/* MAY RAISE. A number into the table on top of the stack. */
void bind_set_number(lua_State *lua, const char *name, double value);

/* nil, "closed". Returns 2. */
int bind_push_closed(lua_State *lua);

/* MAY RAISE. Is it "binary" what is at idx, and not "text"? */
bool bind_is_binary_check(lua_State *lua, int idx);

/* message.c: conn:begin(). */
int bind_conn_begin(lua_State *lua);

/* sync.c: MAY RAISE. The running call, which can be suspended here. */
struct run *bind_check_waiter(lua_State *lua, const char *what);

/* open.c: the loops and the opener of an endpoint whose agent is at idx. MAY RAISE. */
void bind_open_agent(lua_State *lua, struct agent_endpoint *endpoint, int idx, const struct batch *batch);

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

/* regex.c: pushes the table of what only drivers use, in lua/perilune/compat/. */
void bind_drivers(lua_State *lua);

/* encoding.c, crc.c, crypto.c, json.c, deflate.c: push the tables of functions that `require "perilune"` has by these
 * names. */
void bind_encoding(lua_State *lua);
void bind_crc(lua_State *lua);
void bind_crypto(lua_State *lua);
void bind_json(lua_State *lua);
void bind_deflate(lua_State *lua);

/* http.c: pushes the table that lua/perilune/requests.lua stands on. */
void bind_http(lua_State *lua);

/* http_reader.c: adds to it what reads responses. */
void bind_http_reader(lua_State *lua);

/* http_fields.c: adds to it what makes a table of a head. */
void bind_http_fields(lua_State *lua);

/* encoding.c: pushes a decoder of base64 that takes as much as nginx's. */
void bind_push_loose_base64(lua_State *lua);

/* tls.c: pushes what is known of a connection that has TLS: conn.tls. MAY RAISE. */
struct ssl_st;
void bind_push_tls(lua_State *lua, struct ssl_st *ssl);

/* files.c: pushes the table that lua/perilune/files.lua reads lines with. */
void bind_files(lua_State *lua);

/* How much is gone through at once. Then: piece.c, MAY RAISE: `what` was ended, where the call has to end. */
enum { BIND_PIECE_BYTES = 65536 };
void bind_go_on(lua_State *lua, const char *what);

/* piece.c: MAY RAISE. Room for n bytes of a result: `small`, or what is pushed then. */
struct bind_small {
	char bytes[1024];
};
char *bind_room(lua_State *lua, struct bind_small *small, size_t n);

/* piece.c: what decoders return of data that has such a fault at an offset: nil, message. */
int bind_refuse_byte(lua_State *lua, size_t at, const char *what);

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

/* The same, and the message says whose argument it is, and which: "crypto.digest: the digest". */
unsigned bind_choice_of(lua_State *lua, int idx, const char *const *names, const char *what);

/*
 * argument.c: arguments of functions whose messages say so themselves, since a function that is left by a tail call has
 * no name in LuaJIT's: "crypto.hmac", "the key". All of these MAY RAISE.
 */
const char *bind_string_of(lua_State *lua, int idx, size_t *n, const char *what, const char *name);
double bind_number_of(lua_State *lua, int idx, const char *what, const char *name);
void bind_type_of(lua_State *lua, int idx, int type, const char *what, const char *name);
void bind_refuse_type(lua_State *lua, int idx, const char *expected, const char *what, const char *name)
    __attribute__((noreturn));

/* choice.c: the option whose name is below its value, which is on top of the stack: one of the names. MAY RAISE. */
const char *bind_option_check(lua_State *lua, const char *const *names, const char *what);

/* choice.c: its value, a size. MAY RAISE. */
size_t bind_size_option_check(lua_State *lua, const char *name, const char *what);

/* codec.c: a duration at idx (seconds, "5m", false) in milliseconds. MAY RAISE. */
uint32_t bind_duration_check(lua_State *lua, int idx);

/* The same, and the message says whose argument it is: "perilune.after". */
uint32_t bind_duration_of(lua_State *lua, int idx, const char *what);
