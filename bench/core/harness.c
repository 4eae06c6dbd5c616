#include "harness.h"

#include "bind/bind.h"
#include "config/config.h"
#include "workbench/script.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static void die(const char *what)
{
	fprintf(stderr, "%s\n", what);
	exit(1);
}

void harness_open(struct world *world, const char *path)
{
	char pattern[4096], why[4096], *text;
	const struct override one_worker[] = { { (char *)"workers", (char *)"1", (char *)"benchmark" } };
	const struct script script = { .path = path, .overrides = one_worker, .override_count = 1 };
	if (vm_find_lua_path(pattern, sizeof pattern))
		die("Perilune's Lua modules were not found");
	vm_set_lua_path(pattern);
	vm_set_libraries(BIND_LIBRARIES);
	struct config *config = script_load(&script, &text);
	if (!config)
		die(text ? text : "not enough memory");
	config->listeners[0].connections = UINT32_MAX; /* as many as are asked for */
	if (!world_open(world, config, NULL, why, sizeof why))
		die(why);
	config_drop(config);
}

struct peer *harness_connect(struct world *world)
{
	struct peer *peer = world_connect(world, 0, &(struct world_way){ 0 });
	if (!peer)
		die("not enough memory");
	return peer;
}

void harness_serve(struct peer *peer)
{
	struct conn_host *host = peer->conn.host;
	while (memory_stream_report(&peer->memory))
		conn_host_settle(host);
}

void harness_close(struct world *world)
{
	world_close(world);
	world_free_log(world);
	script_forget();
}

uint64_t harness_cpu_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
