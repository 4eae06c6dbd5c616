#include "script/snapshot.h"

#include "base/limits.h"
#include "script/phase.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

struct taking {
	const struct instance *instance;
	size_t most;
};

/* Runs protected: taking → bytes, or nil. */
static int l_take_snapshot(lua_State *lua)
{
	const struct taking *taking = lua_touserdata(lua, 1);
	const struct instance *instance = taking->instance;
	vm_push_function(lua, "perilune.kept", "take");
	lua_rawgeti(lua, LUA_REGISTRYINDEX, instance->snapshot_ref);
	lua_rawgeti(lua, LUA_REGISTRYINDEX, instance->app_ref);
	lua_pushnumber(lua, (lua_Number)taking->most);
	lua_call(lua, 3, 1);
	return 1;
}

/* What is on top of the stack. */
static int copy_bytes(lua_State *lua, struct snapshot *snapshot, char *why, size_t size)
{
	size_t len;
	const char *bytes = lua_tolstring(lua, -1, &len);
	if (!bytes)
		return 0;
	snapshot->bytes = malloc(len);
	if (!snapshot->bytes) {
		limits_explain(UV_ENOMEM, why, size);
		return UV_ENOMEM;
	}
	memcpy(snapshot->bytes, bytes, len);
	snapshot->len = len;
	return 0;
}

int snapshot_take(struct instance *instance, size_t most, struct snapshot *snapshot, char *why, size_t size)
{
	static const struct vm_budget BUDGET = { .ms = VM_SNAPSHOT_MS };
	const struct phase phase = { .name = "snapshot", .ref = instance->snapshot_ref, .is_serving = true };
	struct taking taking = { instance, most };
	struct vm *vm = &instance->vm;
	if (phase.ref == LUA_NOREF || phase.ref == LUA_REFNIL)
		return 0;
	lua_pushcfunction(vm->lua, l_take_snapshot);
	lua_pushlightuserdata(vm->lua, &taking);
	vm->stage = VM_KEEPING;
	guard_name(&vm->guard, phase.name, 0);
	int failed = vm_pcall(vm, vm->lua, 1, 1, &BUDGET);
	vm->stage = VM_SERVING;
	if (failed) {
		phase_explain(instance, &phase, why, size);
		return UV_EINVAL;
	}
	int err = copy_bytes(vm->lua, snapshot, why, size);
	lua_pop(vm->lua, 1);
	return err;
}

void snapshot_free(struct snapshot *snapshot)
{
	free(snapshot->bytes);
	*snapshot = (struct snapshot){ 0 };
}
