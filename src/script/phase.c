#include "script/phase.h"

#include "base/log.h"
#include "base/text.h"
#include "config/config.h"

#include <stdio.h>

/* An error's __tostring is code of the user's. */
static const struct vm_budget DESCRIBE_BUDGET = { .ms = 100 };

#define UNDESCRIBED "an error that cannot be described"

struct description {
	struct instance *instance;
	const struct phase *phase;
	bool is_loading;
};

/* MAY RAISE. Pushes what runtime.describe_phase() wants to know. */
static void phase_push_about(lua_State *lua, const struct description *description)
{
	const struct instance *instance = description->instance;
	lua_createtable(lua, 0, 5);
	lua_pushstring(lua, instance->directory);
	lua_setfield(lua, -2, "directory");
	lua_pushstring(lua, instance->config->script);
	lua_setfield(lua, -2, "script");
	lua_pushstring(lua, description->phase->name);
	lua_setfield(lua, -2, "callback");
	lua_pushboolean(lua, description->is_loading);
	lua_setfield(lua, -2, "is_loading");
	if (!description->is_loading)
		lua_pushinteger(lua, (lua_Integer)instance->generation);
	else
		lua_pushnil(lua);
	lua_setfield(lua, -2, "generation");
}

/* description, error value → message, report, place */
static int l_phase_describe(lua_State *lua)
{
	const struct description *description = lua_touserdata(lua, 1);
	lua_getfield(lua, LUA_REGISTRYINDEX, "perilune.runtime.describe_phase");
	lua_pushvalue(lua, 2);
	phase_push_about(lua, description);
	lua_rawgeti(lua, LUA_REGISTRYINDEX, description->phase->ref);
	lua_call(lua, 3, 3);
	return 3;
}

/* Describing an error runs code that the error itself may upset; then what is at hand must do. */
static void describe_plainly(lua_State *lua, int at, char *text, size_t size)
{
	if (lua_type(lua, at) == LUA_TSTRING)
		text_escape(TEXT_LINE, text, size, lua_tostring(lua, at), lua_objlen(lua, at));
	else
		snprintf(text, size, "%s", UNDESCRIBED);
}

/* Pushes message, report and place of the error value at `at`, the top. False: nothing but another error value. */
static bool try_to_describe(struct description *description, int at)
{
	struct vm *vm = &description->instance->vm;
	vm_make_room(vm);
	lua_pushcfunction(vm->lua, l_phase_describe);
	lua_pushlightuserdata(vm->lua, description);
	lua_pushvalue(vm->lua, at);
	guard_name(&vm->guard, description->phase->name ? description->phase->name : "loading", 0);
	return !vm_pcall(vm, vm->lua, 2, 3, &DESCRIBE_BUDGET);
}

static bool phase_describe(struct description *description, int at)
{
	lua_State *lua = description->instance->vm.lua;
	if (try_to_describe(description, at))
		return true;
	lua_settop(lua, at);
	if (lua_type(lua, at) == LUA_TSTRING)
		return false;
	lua_pushliteral(lua, UNDESCRIBED); /* where its function begins can be told all the same */
	lua_replace(lua, at);
	return try_to_describe(description, at);
}

void phase_explain(struct instance *instance, const struct phase *phase, char *why, size_t size)
{
	struct description description = { instance, phase, !phase->is_serving };
	lua_State *lua = instance->vm.lua;
	int at = lua_gettop(lua);
	if (phase_describe(&description, at))
		snprintf(why, size, "%s", lua_tostring(lua, -2));
	else
		describe_plainly(lua, at, why, size);
	lua_settop(lua, at - 1);
}

void phase_log(struct instance *instance, const struct phase *phase)
{
	struct description description = { instance, phase, false };
	lua_State *lua = instance->vm.lua;
	int at = lua_gettop(lua);
	char what[32], plain[256];
	const char *message = plain, *report = "", *place = "";
	snprintf(what, sizeof what, "%s failed", phase->name);
	if (phase_describe(&description, at)) {
		message = lua_tostring(lua, -3);
		report = lua_tostring(lua, -2);
		place = lua_tostring(lua, -1);
	} else {
		describe_plainly(lua, at, plain, sizeof plain);
	}
	log_write(LOG_ERROR, what, F_TEXT("error", message), F_TEXT("place", place),
		  F_INT("worker", instance->worker), F_INT("generation", instance->generation),
		  F_TEXT("excerpt", report));
	lua_settop(lua, at - 1);
}
