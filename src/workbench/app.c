/* Apps in memory: their life, their time, faults on purpose. */
#include "workbench/app.h"

#include "workbench/script.h"

#include <limits.h>
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

/*
 * MAY RAISE. The configuration of the script at the bottom of the stack: path, image | nil, overrides. NULL: why not is
 * in *text, as script_load() has it. Pushes what it needs meanwhile.
 */
static struct config *app_load_config(lua_State *lua, char **text)
{
	struct script script = { .path = luaL_checkstring(lua, 1) };
	script.image = luaL_optlstring(lua, 2, NULL, &script.image_bytes);
	read_overrides(lua, 3, &script);
	return script_load(&script, text);
}

/* MAY RAISE. open(path, image | nil, overrides[, inside]) → app | nil, message */
static int l_app_open(lua_State *lua)
{
	const char *inside = luaL_optstring(lua, 4, "perilune.test.inside");
	struct bench_app **box = lua_newuserdata(lua, sizeof(struct bench_app *));
	*box = NULL;
	luaL_getmetatable(lua, APP_METATABLE);
	lua_setmetatable(lua, -2);
	int at = lua_gettop(lua);
	char *text, why[4096];
	struct config *config = app_load_config(lua, &text);
	if (!config)
		return app_refuse(lua, text);
	*box = new_app(bench_of(lua), config, inside, why, sizeof why);
	config_drop(config);
	if (*box) {
		lua_pushvalue(lua, at);
		return 1;
	}
	lua_pushnil(lua);
	lua_pushstring(lua, why);
	return 2;
}

/* MAY RAISE. reload(app, path, image | nil, overrides[, inside]) → true | nil, message */
static int l_app_reload(lua_State *lua)
{
	struct world *world = app_check_world(lua);
	lua_remove(lua, 1); /* its caller has it */
	const char *inside = luaL_optstring(lua, 4, "perilune.test.inside");
	char *text, why[4096];
	struct config *config = app_load_config(lua, &text);
	if (!config)
		return app_refuse(lua, text);
	bool ok = world_reload(world, config, inside, why, sizeof why);
	config_drop(config);
	if (ok) {
		lua_pushboolean(lua, 1);
		return 1;
	}
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

int app_push_quiet(lua_State *lua, enum world_quiet quiet)
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
	return app_push_quiet(lua, world_settle(app_check_world(lua)));
}

/* advance(app, ms): the same, so much later */
static int l_advance(lua_State *lua)
{
	struct world *world = app_check_world(lua);
	lua_Number ms = luaL_checknumber(lua, 2);
	luaL_argcheck(lua, ms >= 0 && ms <= 1e13, 2, "milliseconds expected");
	return app_push_quiet(lua, world_advance(world, world_now_ms(world) + (uint64_t)ms));
}

/* begin_drain(app): the same; connections are asked to end */
static int l_begin_drain(lua_State *lua)
{
	return app_push_quiet(lua, world_begin_drain(app_check_world(lua)));
}

/* drain(app): the same; all connections end */
static int l_drain(lua_State *lua)
{
	return app_push_quiet(lua, world_drain(app_check_world(lua)));
}

/* now(app) → milliseconds since it began */
static int l_app_now(lua_State *lua)
{
	app_push_time(lua, world_now_ms(app_check_world(lua)));
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

/* MAY RAISE. Calls a function of perilune.test.inside, in each worker, with a callback's name and a number. */
static int tell_inside(lua_State *lua, const char *function, const char *callback, lua_Number n)
{
	const struct world *world = app_check_world(lua);
	for (unsigned i = 0; i < world->worker_count; i++) {
		struct agents *agents = world->workers[i].agents;
		lua_State *inside = agents->vm.lua;
		int top = lua_gettop(inside);
		app_push_inside(agents, function);
		lua_pushstring(inside, callback);
		lua_pushnumber(inside, n);
		bool ok = app_call_inside(agents, 2);
		app_take_string(agents, lua, top);
		if (!ok)
			return luaL_error(lua, "%s", lua_tostring(lua, -1));
		lua_pop(lua, 1);
	}
	return 0;
}

/* MAY RAISE. fail(app, callback, n[, worker]): its n-th call raises, of that worker or of any */
static int l_fail(lua_State *lua)
{
	struct world *world = app_check_world(lua);
	const char *callback = luaL_checkstring(lua, 2);
	lua_Number n = luaL_checknumber(lua, 3);
	int worker = lua_isnoneornil(lua, 4) ? -1 : (int)app_check_worker(lua, 4)->index;
	luaL_argcheck(lua, n >= 1 && n <= UINT32_MAX, 3, "which call is a number from 1 on");
	if (!world_add_fault(world, callback, (unsigned)n, worker))
		return luaL_error(lua, "too many callbacks are to fail");
	return tell_inside(lua, "fail", callback, n);
}

/* MAY RAISE. take(app, callback, seconds): each call of it takes so long */
static int l_take(lua_State *lua)
{
	return tell_inside(lua, "take", luaL_checkstring(lua, 2), luaL_checknumber(lua, 3));
}

/* MAY RAISE. seed(app, worker, n): what its math.random() draws from now on */
static int l_seed(lua_State *lua)
{
	struct agents *agents = app_check_worker(lua, 2)->agents;
	lua_Number seed = luaL_checknumber(lua, 3);
	lua_State *inside = agents->vm.lua;
	int top = lua_gettop(inside);
	app_push_inside(agents, "seed");
	lua_pushnumber(inside, seed);
	bool ok = app_call_inside(agents, 1);
	app_take_string(agents, lua, top);
	return ok ? 0 : luaL_error(lua, "%s", lua_tostring(lua, -1));
}

/* MAY RAISE. coverage(app, worker) → what perilune.test.covered has counted, encoded */
static int l_coverage(lua_State *lua)
{
	struct agents *agents = app_check_worker(lua, 2)->agents;
	int top = lua_gettop(agents->vm.lua);
	app_push_inside(agents, "coverage");
	bool ok = app_call_inside(agents, 0);
	app_take_string(agents, lua, top);
	return ok ? 1 : luaL_error(lua, "%s", lua_tostring(lua, -1));
}

/* starve(app, on): no connection gets memory for bytes that have to wait */
static int l_starve(lua_State *lua)
{
	struct world *world = app_check_world(lua);
	for (unsigned i = 0; i < world->worker_count; i++) {
		struct world_worker *worker = &world->workers[i];
		worker->host.pool.limit_bytes = lua_toboolean(lua, 2) ? 1 : worker->buffer_bytes;
	}
	return 0;
}

/* stall_worker(app, worker, on) */
static int l_stall_worker(lua_State *lua)
{
	struct world_worker *worker = app_check_worker(lua, 2);
	bool is_stalled = lua_toboolean(lua, 3);
	char what[64];
	if (worker->is_stalled != is_stalled && worker->world->lan) {
		snprintf(what, sizeof what, "worker %u %s", worker->index, is_stalled ? "stalls" : "goes on");
		lan_note_node(worker->world->lan, worker->world->node, what);
	}
	worker->is_stalled = is_stalled;
	return 0;
}

/* hold_jobs(app, on) */
static int l_hold_jobs(lua_State *lua)
{
	app_check_world(lua)->holds_jobs = lua_toboolean(lua, 2);
	return 0;
}

/* run_jobs(app, most) → how many were run; as settle() */
static int l_run_jobs(lua_State *lua)
{
	unsigned ran;
	lua_Number most = luaL_checknumber(lua, 2);
	enum world_quiet quiet =
	    world_run_jobs(app_check_world(lua), most < UINT_MAX ? (unsigned)most : UINT_MAX, &ran);
	lua_pushnumber(lua, ran);
	return 1 + app_push_quiet(lua, quiet);
}

static const luaL_Reg FUNCTIONS[] = {
	{ "open", l_app_open },
	{ "close", l_app_close },
	{ "is_closed", l_app_is_closed },
	{ "settle", l_settle },
	{ "advance", l_advance },
	{ "begin_drain", l_begin_drain },
	{ "drain", l_drain },
	{ "now", l_app_now },
	{ "next", l_next },
	{ "fail", l_fail },
	{ "take", l_take },
	{ "starve", l_starve },
	{ "stall_worker", l_stall_worker },
	{ "hold_jobs", l_hold_jobs },
	{ "run_jobs", l_run_jobs },
	{ "coverage", l_coverage },
	{ "seed", l_seed },
	{ "reload", l_app_reload },
	{ NULL, NULL },
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
