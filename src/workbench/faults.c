/*
 * Faults on purpose: calls of an app in memory that raise. Which VM makes the call does not matter, so they are counted
 * here, for all workers.
 */
#include "agent/agent.h"
#include "workbench/world.h"

#include <stdio.h>
#include <string.h>

static struct world_fault *find_fault(struct world *world, const char *callback)
{
	for (unsigned i = 0; i < WORLD_FAULTS_MAX; i++)
		if (!strcmp(world->faults[i].callback, callback))
			return &world->faults[i];
	return NULL;
}

bool world_add_fault(struct world *world, const char *callback, unsigned left, int worker)
{
	struct world_fault *fault = find_fault(world, callback);
	if (!fault)
		fault = find_fault(world, "");
	if (!fault || strlen(callback) >= sizeof fault->callback)
		return false;
	snprintf(fault->callback, sizeof fault->callback, "%s", callback);
	fault->left = left;
	fault->worker = worker;
	return true;
}

/* is_due(callback) → is this call of it to raise? Of the app's VM. */
static int l_is_due(lua_State *lua)
{
	const struct world_worker *worker = world_worker_of(agents_of(lua)->host);
	struct world_fault *fault = find_fault(worker->world, luaL_checkstring(lua, 1));
	bool counts = fault && fault->left && (fault->worker < 0 || (unsigned)fault->worker == worker->index);
	lua_pushboolean(lua, counts && !--fault->left);
	return 1;
}

/* MAY RAISE. */
static int install_faults(lua_State *lua)
{
	lua_pushcfunction(lua, l_is_due);
	lua_setfield(lua, LUA_REGISTRYINDEX, "perilune.is_due");
	return 0;
}

bool world_open_faults(struct agents *agents)
{
	return !lua_cpcall(agents->vm.lua, install_faults, NULL);
}
