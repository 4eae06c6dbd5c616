/* Apps in memory: their life, their time, faults on purpose. */
#include "workbench/app.h"

#include "workbench/script.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- arguments; all of these may raise ---- */

/* list[i][key], which stays alive in the list. */
static char *text_of(lua_State *lua, const char *key)
{
	lua_getfield(lua, -1, key);
	const char *text = luaL_checkstring(lua, -1);
	lua_pop(lua, 1);
	return (char *)text;
}

/* The list of { path, value, origin } at idx. Pushes what holds the result. */
static void read_overrides(lua_State *lua, int idx, struct script *script)
{
	luaL_checktype(lua, idx, LUA_TTABLE);
	script->override_count = lua_objlen(lua, idx);
	struct override *overrides = lua_newuserdata(lua, (script->override_count + 1) * sizeof *overrides);
	for (size_t i = 0; i < script->override_count; i++) {
		lua_rawgeti(lua, idx, (int)i + 1);
		luaL_checktype(lua, -1, LUA_TTABLE);
		overrides[i] =
		    (struct override){ text_of(lua, "path"), text_of(lua, "value"), text_of(lua, "origin") };
		lua_pop(lua, 1);
	}
	script->overrides = overrides;
}

/* ---- the app ---- */

static void close_app(struct bench *bench, struct bench_app *app)
{
	struct bench_app **link = &bench->apps;
	while (*link != app)
		link = &(*link)->next;
	*link = app->next;
	world_close(&app->world);
	world_free_log(&app->world);
	buf_release(&app->pool, &app->encoded);
	buf_pool_deinit(&app->pool);
	free(app);
}

void bench_close_apps(struct bench *bench)
{
	while (bench->apps)
		close_app(bench, bench->apps);
}

/* Pushes text that malloc() made, and frees it. */
static int app_refuse(lua_State *lua, char *text)
{
	char why[4096];
	snprintf(why, sizeof why, "%s", text ? text : "not enough memory");
	free(text);
	lua_pushnil(lua);
	lua_pushstring(lua, why);
	return 2;
}

static struct bench_app *new_app(struct bench *bench, struct config *config, const char *inside, char *why,
				 size_t size)
{
	struct bench_app *app = calloc(1, sizeof *app);
	if (!app) {
		snprintf(why, size, "not enough memory");
		return NULL;
	}
	if (!world_open(&app->world, config, inside, why, size)) {
		free(app);
		return NULL;
	}
	app->world.stop = &bench->vm.guard.verdict;
	buf_pool_init(&app->pool, 0, 1);
	app->next = bench->apps;
	bench->apps = app;
	return app;
}

/* MAY RAISE. open(path, image | nil, overrides[, inside]) → app | nil, message */
static int l_app_open(lua_State *lua)
{
	struct script script = { .path = luaL_checkstring(lua, 1) };
	script.image = luaL_optlstring(lua, 2, NULL, &script.image_bytes);
	const char *inside = luaL_optstring(lua, 4, "perilune.test.inside");
	read_overrides(lua, 3, &script);
	struct bench_app **box = lua_newuserdata(lua, sizeof(struct bench_app *));
	*box = NULL;
	luaL_getmetatable(lua, APP_METATABLE);
	lua_setmetatable(lua, -2);
	char *text, why[4096];
	struct config *config = script_load(&script, &text);
	if (!config)
		return app_refuse(lua, text);
	*box = new_app(bench_of(lua), config, inside, why, sizeof why);
	config_drop(config);
	if (*box)
		return 1;
	lua_pushnil(lua);
	lua_pushstring(lua, why);
	return 2;
}

/* close(app): cuts what is left. Again: nothing. */
static int l_app_close(lua_State *lua)
{
	struct bench_app **box = luaL_checkudata(lua, 1, APP_METATABLE);
	struct bench_app *app = *box;
	*box = NULL;
	if (app)
		close_app(bench_of(lua), app);
	return 0;
}

/* Is it closed? */
static int l_app_is_closed(lua_State *lua)
{
	struct bench_app **box = luaL_checkudata(lua, 1, APP_METATABLE);
	lua_pushboolean(lua, !*box);
	return 1;
}

/* ---- time ---- */

static int push_quiet(lua_State *lua, enum world_quiet quiet)
{
	lua_pushboolean(lua, quiet == WORLD_QUIET);
	if (quiet == WORLD_QUIET)
		return 1;
	lua_pushstring(lua, quiet == WORLD_RESTLESS ? "restless" : "stopped");
	return 2;
}

/* settle(app) → true | false, "restless" | "stopped" */
static int l_settle(lua_State *lua)
{
	return push_quiet(lua, world_settle(app_check_world(lua)));
}

/* advance(app, ms): the same, so much later */
static int l_advance(lua_State *lua)
{
	struct world *world = app_check_world(lua);
	lua_Number ms = luaL_checknumber(lua, 2);
	luaL_argcheck(lua, ms >= 0 && ms <= 1e13, 2, "milliseconds expected");
	return push_quiet(lua, world_advance(world, world->host.now_ms + (uint64_t)ms));
}

/* begin_drain(app): the same; connections are asked to end */
static int l_begin_drain(lua_State *lua)
{
	return push_quiet(lua, world_begin_drain(app_check_world(lua)));
}

/* drain(app): the same; all connections end */
static int l_drain(lua_State *lua)
{
	return push_quiet(lua, world_drain(app_check_world(lua)));
}

/* now(app) → milliseconds since it began */
static int l_app_now(lua_State *lua)
{
	app_push_time(lua, app_check_world(lua)->host.now_ms);
	return 1;
}

/* next(app) → when something is due, or nil */
static int l_next(lua_State *lua)
{
	uint64_t next_ms = world_next_ms(app_check_world(lua));
	if (next_ms == WHEEL_NEVER)
		lua_pushnil(lua);
	else
		app_push_time(lua, next_ms);
	return 1;
}

/* ---- faults ---- */

/* MAY RAISE. Calls that function of perilune.test.inside with a callback's name and a number: arguments 2 and 3. */
static int tell_inside(lua_State *lua, const char *function)
{
	struct world *world = app_check_world(lua);
	const char *callback = luaL_checkstring(lua, 2);
	lua_Number n = luaL_checknumber(lua, 3);
	lua_State *inside = world->agents.vm.lua;
	int top = lua_gettop(inside);
	app_push_inside(world, function);
	lua_pushstring(inside, callback);
	lua_pushnumber(inside, n);
	bool ok = app_call_inside(world, 2);
	app_take_string(world, lua, top);
	return ok ? 0 : luaL_error(lua, "%s", lua_tostring(lua, -1));
}

/* MAY RAISE. fail(app, callback, n): its n-th call raises */
static int l_fail(lua_State *lua)
{
	return tell_inside(lua, "fail");
}

/* MAY RAISE. take(app, callback, seconds): each call of it takes so long */
static int l_take(lua_State *lua)
{
	return tell_inside(lua, "take");
}

/* MAY RAISE. coverage(app) → what perilune.test.covered has counted, encoded */
static int l_coverage(lua_State *lua)
{
	struct world *world = app_check_world(lua);
	int top = lua_gettop(world->agents.vm.lua);
	app_push_inside(world, "coverage");
	bool ok = app_call_inside(world, 0);
	app_take_string(world, lua, top);
	return ok ? 1 : luaL_error(lua, "%s", lua_tostring(lua, -1));
}

/* starve(app, on): no connection gets memory for bytes that have to wait */
static int l_starve(lua_State *lua)
{
	struct world *world = app_check_world(lua);
	world->host.pool.limit_bytes = lua_toboolean(lua, 2) ? 1 : world->config->buffer_bytes;
	return 0;
}

static const luaL_Reg FUNCTIONS[] = {
	{ "open", l_app_open },     { "close", l_app_close }, { "is_closed", l_app_is_closed },
	{ "settle", l_settle },     { "advance", l_advance }, { "begin_drain", l_begin_drain },
	{ "drain", l_drain },       { "now", l_app_now },     { "next", l_next },
	{ "fail", l_fail },         { "take", l_take },       { "starve", l_starve },
	{ "coverage", l_coverage }, { NULL, NULL },
};

void bench_push_app(lua_State *lua)
{
	luaL_newmetatable(lua, APP_METATABLE);
	lua_pop(lua, 1);
	lua_newtable(lua);
	luaL_register(lua, NULL, FUNCTIONS);
	luaL_register(lua, NULL, APP_CLIENT_FUNCTIONS);
	luaL_register(lua, NULL, APP_STATE_FUNCTIONS);
	luaL_register(lua, NULL, APP_TAPE_FUNCTIONS);
}
