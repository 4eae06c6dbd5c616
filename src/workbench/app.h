/*
 * perilune.workbench.app: apps in memory, as lua/perilune/test/memory.lua sees them. An app is a box with a pointer, a
 * client a number of that app's. What the files of it share; nobody else includes it.
 */
#pragma once

#include "workbench/bench.h"
#include "workbench/world.h"

struct bench_app {
	struct world world;   /* first */
	struct buf_pool pool; /* of `encoded` */
	struct buf *encoded;  /* bytes that are about to be pushed */
	struct bench_app *next;
};

extern const char APP_METATABLE[];

/* The functions of each file, for the library. */
extern const luaL_Reg APP_CLIENT_FUNCTIONS[], APP_STATE_FUNCTIONS[], APP_TAPE_FUNCTIONS[];

/* ---- app_box.c; those that check may raise ---- */

/* The app at index 1 of the stack. */
struct bench_app *app_check(lua_State *lua);
struct world *app_check_world(lua_State *lua);

/* The worker whose number (from 0 on) is at idx, of the app at index 1. */
struct world_worker *app_check_worker(lua_State *lua, int idx);

/* The client whose number is at index 2, of the app at index 1. */
struct peer *app_check_peer(lua_State *lua);

/* Pushes a function of the module in a VM of the app's (struct config, `inside`) on its stack. */
void app_push_inside(struct agents *agents, const char *name);

/* Calls it; there is its one result on that stack then, or (false) the error. */
bool app_call_inside(struct agents *agents, int nargs);

/*
 * Moves the string on top of the app's stack to `lua`; what is not one is "". The app's stack is taken down to `top`.
 */
void app_take_string(struct agents *agents, lua_State *lua, int top);

/* Pushes true, or false and why it did not come to rest. Returns how many. */
int app_push_quiet(lua_State *lua, enum world_quiet quiet);

/* Pushes a time of the app's clock: milliseconds since it began. */
void app_push_time(lua_State *lua, uint64_t at_ms);
