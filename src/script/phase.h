/* A script's calls in an instance that belong to no connection, such as setup(): what is said when they fail. */
#pragma once

#include "script/instance.h"

struct phase {
	const char *name; /* "setup", "snapshot", "teardown"; NULL: the top level */
	int ref;          /* of the function in the VM's registry; LUA_NOREF for the top level */
	bool is_serving;  /* it is a call of a generation that serves: places have its number */
};

/*
 * Both take what was raised from the top of the VM's stack; no call may be running. The report has the place, the
 * source line and a hint; whatever the script raised, it is escaped and bounded.
 */

/* Writes the report, at most size - 1 bytes. What fails to load has no generation's number in it. */
void phase_explain(struct instance *instance, const struct phase *phase, char *why, size_t size);

/* Logs "<phase> failed", with the generation. */
void phase_log(struct instance *instance, const struct phase *phase);
