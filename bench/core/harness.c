#include "harness.h"

#include "bind/bind.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static void gone(struct conn *conn)
{
	struct memory_conn *memory = (struct memory_conn *)(void *)conn;
	memory_conn_deinit(memory);
	free(memory);
}

static void die(const char *what)
{
	fprintf(stderr, "%s\n", what);
	exit(1);
}

void harness_open(struct harness *harness, const char *script)
{
	char pattern[4096], why[4096], *text = NULL;
	*harness = (struct harness){ .next_id = 1, .now_ms = 1000 };
	harness->config.script = (char *)script;
	if (vm_find_lua_path(pattern, sizeof pattern))
		die("Perilune's Lua modules were not found");
	vm_set_lua_path(pattern);
	vm_set_libraries(BIND_LIBRARIES);
	if (config_load(&harness->config, NULL, &text) != CONFIG_OK)
		die(text ? text : "the script cannot be loaded");
	if (conn_host_init(&harness->host, &AGENT_HANDLER, &harness->counters, 0, harness->now_ms))
		die("not enough memory");
	harness->host.gone = gone;
	if (agents_open(&harness->agents, &harness->host, &harness->config, 0, 1, &harness->counters, why,
			sizeof why))
		die(why);
	agents_attach(&harness->agents);
}

struct memory_conn *harness_connect(struct harness *harness)
{
	struct memory_conn *memory = malloc(sizeof *memory);
	if (!memory)
		die("not enough memory");
	memory_conn_init(memory);
	memory->conn.agents = &harness->agents;
	conn_open(&memory->conn, &harness->host, &harness->config.listeners[0].rules,
		  agents_codec(&harness->agents, 0), harness->next_id++);
	return memory;
}

void harness_close(struct harness *harness)
{
	struct idmap *ids = &harness->host.ids;
	struct memory_conn **all = calloc(ids->count + 1, sizeof *all);
	size_t n = 0;
	for (size_t i = 0; i < ids->capacity; i++)
		if (ids->slots[i].value)
			all[n++] = ids->slots[i].value;
	for (size_t i = 0; i < n; i++)
		conn_close(&all[i]->conn, REASON_DRAIN, CLOSE_NOW);
	conn_host_turn(&harness->host, harness->now_ms);
	for (size_t i = 0; i < n; i++)
		memory_conn_run(all[i]);
	free(all);
	agents_close(&harness->agents, VM_TEARDOWN_MS);
	conn_host_deinit(&harness->host);
	harness->config.script = NULL;
	config_free(&harness->config);
}

uint64_t harness_cpu_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
